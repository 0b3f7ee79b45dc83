//! The filter in one process: in-memory streams, a scripted or hostile next hop, a clock that stands still.

mod conversation;
mod parts;
mod simulation;
mod slow;
