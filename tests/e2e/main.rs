//! Mail through real servers: Postfix and Dovecot on MariaDB and on PostgreSQL, with the daemons plugged in as on an iRedMail server.
//!
//! Every scenario starts its own servers in its own folders on its own ports, so scenarios run in any order and at the same time. Nothing here
//! measures time; waits are bounded and say what they waited for.

mod bulk;
mod chain;
mod forward;
mod list;
mod notice;
mod outage;
mod policy;
mod throttle;

/// Makes each scenario (a function of the server) a test on MariaDB and one on PostgreSQL.
macro_rules! on_both_servers {
    ($($scenario:ident),+ $(,)?) => {
        mod mariadb {
            $(#[test]
            fn $scenario() -> anyhow::Result<()> {
                super::$scenario(outrider_tests::store::Server::MariaDb)
            })+
        }
        mod postgres {
            $(#[test]
            fn $scenario() -> anyhow::Result<()> {
                super::$scenario(outrider_tests::store::Server::Postgres)
            })+
        }
    };
}
use on_both_servers;
