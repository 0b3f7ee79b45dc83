//! The quota-status daemon.

use std::process::ExitCode;

// Steadier latency than the system allocator under many short buffers.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    outrider_core::daemon::main::<outrider_quota_status::QuotaStatus>()
}
