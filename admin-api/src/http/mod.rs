//! HTTP/1.1 for both APIs: one connection at a time, strict about what it takes, bounded in everything.
//!
//! A request goes through the same steps whatever it asks for: the form of the request line and the framing are
//! checked, the site decides from the head alone whether the request is admitted (path, method, client, token or
//! session), only then is the body read and its parameters decoded, and the work runs in a task of its own, so
//! that a client that hangs up does not leave half of it behind and a fault answers 500 and nothing else.
//!
//! Limits: 64 header fields, 16 KiB of head, 10 s to send it (this also ends idle connections), 1 MiB and 30 s
//! for the body, 1000 form fields. `Transfer-Encoding` is refused: forms have a length, and a message with two
//! lengths is how requests are smuggled.

pub(crate) mod answer;
mod multipart;
pub(crate) mod parameters;
mod serve;

pub(crate) use answer::Answer;
pub(crate) use parameters::Parameters;
pub(crate) use serve::{Bounds, Head, Site, serve};
