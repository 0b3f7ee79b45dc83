//! The daemon `outrider-admin-api`.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    outrider_core::daemon::main::<outrider_admin_api::AdminApi>()
}
