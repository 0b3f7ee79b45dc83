//! The daemon `policyd`; everything is in the library.

use std::process::ExitCode;

/// Many short buffers of many connections: steadier than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    outrider_core::daemon::main::<outrider_policyd::Policyd>()
}
