//! The functions under test; see there for what each of them promises.

#[path = "../../harness/src/fuzz.rs"]
pub mod entry;
