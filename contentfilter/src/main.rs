//! The binary of the content filter.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    outrider_core::daemon::main::<outrider_contentfilter::ContentFilter>()
}
