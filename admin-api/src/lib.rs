//! Administration by HTTP: mailing lists as mlmmjadmin did it, accounts as iRedAdmin-Pro's REST API did it.
//!
//! Two APIs on two sockets share one process: the list API owns the mlmmj spool, the account API the vmail tables.
//! Nothing is answered without credentials but 404 and 405; each request is authenticated by itself.

mod http;
mod iredadmin;
mod mlmmj;
mod password;
mod settings;
mod site;
mod token;

pub use password::DefaultScheme;
pub use settings::{AccountSettings, Backend, HttpSettings, ListSettings, Settings};
pub use site::AdminApi;
