//! The mailing-list API: mlmmj lists by HTTP, with the paths, parameters and answers of mlmmjadmin.
//!
//! A request carries a token in a header of its own; path and method are looked at first, then the client, then
//! the token, then the rest. Every answer but 404, 405 and 500 is status 200 with `_success`. The files of a list
//! are changed under the lock of the list, and where the lists are in the database too, in step with it.
//!
//! Failures have stable codes: `NO_SUCH_ACCOUNT`, `ALREADY_EXISTS`, `NO_SUCH_DOMAIN`, `INVALID_EMAIL`,
//! `SKEL_DIR_NOT_EXIST`, `SUB_COMMAND_NOT_FOUND`, `SUB_COMMAND_FAILED`, `UNKNOWN_PARAMETER`, `IO_ERROR` and
//! `SQL_ERROR`; the details are in the log.

pub(crate) mod address;
pub(crate) mod confirm;
mod directory;
mod failure;
mod gate;
mod list;
mod membership;
mod parameter;
mod people;
mod profile;
mod route;
pub(crate) mod spool;
mod subscriber;
mod subscription;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use outrider_core::clock::SharedClock;
use outrider_core::directory::write::Accounts;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::http::{Answer, Head, Parameters, Site};
use address::ListAddress;
use failure::Failure;
pub(crate) use gate::Gate;
use route::{Call, NoCall};
use spool::Spool;

/// Requests that change lists wait for each other in this many queues, chosen by the address.
const QUEUES: usize = 64;

/// What the settings say about lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// The first part of `maillists.transport`.
    pub(crate) transport: String,
    /// Parameters of new lists, over the built-in ones.
    pub(crate) defaults: BTreeMap<String, String>,
    /// Parameters that each creation and update sets, whatever was sent.
    pub(crate) forced: BTreeMap<String, String>,
    /// Whether a parameter that does not exist is refused.
    pub(crate) strict: bool,
}

/// The list API.
pub(crate) struct ListApi {
    /// The files.
    spool: Arc<Spool>,
    /// The accounts, where the lists are in the database too.
    accounts: Option<Accounts>,
    /// Who is let in.
    gate: Gate,
    policy: Policy,
    confirm: confirm::Program,
    clock: SharedClock,
    queues: Vec<Arc<Mutex<()>>>,
}

impl ListApi {
    /// An API over these files and, if given, these accounts.
    pub(crate) fn new(
        spool: Spool,
        accounts: Option<Accounts>,
        gate: Gate,
        policy: Policy,
        confirm: confirm::Program,
        clock: SharedClock,
    ) -> Self {
        let queues = (0..QUEUES).map(|_| Arc::default()).collect();
        Self { spool: Arc::new(spool), accounts, gate, policy, confirm, clock, queues }
    }

    /// Waits for the turn of a request that changes `list`. The lock on disk would do, but waiting for it takes a
    /// thread; here requests of this process queue up first, in their order.
    async fn turn(&self, list: &ListAddress) -> OwnedMutexGuard<()> {
        let mut hasher = DefaultHasher::new();
        list.hash(&mut hasher);
        // The remainder is below the number of queues.
        let queue = (hasher.finish() % QUEUES as u64) as usize;
        self.queues[queue].clone().lock_owned().await
    }

    /// Runs file work on the blocking pool.
    async fn files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Spool) -> spool::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let spool = self.spool.clone();
        match tokio::task::spawn_blocking(move || work(&spool)).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(Failure::fault(&error)),
        }
    }

    async fn dispatch(&self, call: Call, parameters: &Parameters) -> Result<Answer, Failure> {
        match call {
            Call::Read(list) => self.read(list, parameters).await,
            Call::Create(list) => self.create(list, parameters).await,
            Call::Update(list) => self.update(list, parameters).await,
            Call::Delete(list) => self.delete(list, parameters).await,
            Call::People(list, role) => self.people(list, role).await,
            Call::ChangePeople(list, role) => self.change_people(list, role, parameters).await,
            Call::Subscribers(list) => self.subscribers(list, parameters).await,
            Call::ChangeSubscribers(list) => self.change_subscribers(list, parameters).await,
            Call::HasSubscriber(list, subscriber) => self.has_subscriber(list, subscriber).await,
            Call::Subscribed(subscriber) => self.subscribed(subscriber, parameters).await,
            Call::Subscribe(subscriber) => self.subscribe(subscriber, parameters).await,
        }
    }
}

impl Site for ListApi {
    type Admitted = Call;

    fn name(&self) -> &'static str {
        "lists"
    }

    async fn admit(&self, head: &Head) -> Result<Call, Answer> {
        let call = route::find(&head.method, &head.path).map_err(|no_call| match no_call {
            NoCall::NotFound => Answer::not_found(),
            NoCall::MethodNotAllowed => Answer::method_not_allowed(),
        })?;
        self.gate.check(head)?;
        Ok(call)
    }

    async fn answer(self: Arc<Self>, call: Call, parameters: Parameters) -> Answer {
        match self.dispatch(call, &parameters).await {
            Ok(answer) => answer,
            Err(failure) => Answer::failure(failure.code()),
        }
    }
}

/// Whether lists have a parameter of this name.
pub(crate) fn is_parameter(name: &str) -> bool {
    parameter::PARAMETERS.iter().any(|parameter| parameter.name == name)
}
