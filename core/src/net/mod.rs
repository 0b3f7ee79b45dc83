//! Sockets of a daemon: listening, accepting within bounds, stopping gracefully; and whom it trusts as a client.

mod accept;
mod activity;
mod listen;
mod shutdown;
mod stream;
mod tls;

pub(crate) use accept::{AcceptPool, Place, accept_loop};
pub use activity::Activity;
pub(crate) use listen::open;
pub use listen::{BindError, BoundListener, Inherited, Socket, SocketFile, bind};
pub use shutdown::{Shutdown, ShutdownTrigger};
pub use stream::{Connection, Local, Peer, Stream};
pub use tls::{AuthoritiesError, client_trusting};
