//! A database of some kind with the iRedMail tables, and what the checks need of it.

use std::time::Duration;

use outrider_core::schema::{Database, create_statements};
use outrider_core::sql::{Db, DbUrl, Engine, PoolOptions};
use outrider_tests::folder::Folder;
use outrider_tests::store::Store;

/// Short limits, so that the checks of waiting end soon.
pub(crate) fn options() -> PoolOptions {
    PoolOptions {
        max_connections: 4,
        acquire_timeout: Duration::from_secs(2),
        statement_timeout: Duration::from_secs(2),
    }
}

/// Where the checks run.
pub(crate) struct Ground {
    pub(crate) vmail: Db,
    pub(crate) store: Option<Box<dyn Store>>,
    folder: Option<Folder>,
}

impl Ground {
    pub(crate) async fn sqlite() -> Ground {
        let folder = Folder::new("sqlite").expect("a folder");
        let vmail = Db::open_file(&folder.path().join("vmail.db"), &options());
        for statement in create_statements(Database::Vmail, Engine::Sqlite) {
            vmail.execute_script(statement).await.expect("created");
        }
        Ground { vmail, store: None, folder: Some(folder) }
    }

    pub(crate) fn server(store: Box<dyn Store>) -> Ground {
        let url: DbUrl = store.access().url("vmail").parse().expect("a URL");
        let vmail = Db::open(&url, &options()).expect("opened");
        Ground { vmail, store: Some(store), folder: None }
    }

    pub(crate) fn engine(&self) -> Engine {
        self.vmail.engine()
    }

    /// Where it is, for those who open it themselves.
    pub(crate) fn url(&self) -> DbUrl {
        match (&self.store, &self.folder) {
            (Some(store), _) => store.access().url("vmail").parse().expect("a URL"),
            (None, folder) => DbUrl::sqlite(&folder.as_ref().expect("a folder").path().join("vmail.db")),
        }
    }

    /// Runs fixed text: the checks' own tables and rows.
    pub(crate) async fn script(&self, sql: &'static str) {
        self.vmail.execute_script(sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
}
