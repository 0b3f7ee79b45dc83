//! Creating, reading, changing and removing a list.

use outrider_core::directory::write::{AccessPolicy, ListChange, NewList};

use super::address::{ListAddress, parse_addresses};
use super::failure::Failure;
use super::parameter::{PARAMETERS, select};
use super::spool::{Creation, SpoolError, While};
use super::{ListApi, profile};
use crate::http::{Answer, Parameters};

impl ListApi {
    /// `POST /api/LIST`
    pub(super) async fn create(&self, list: ListAddress, sent: &Parameters) -> Result<Answer, Failure> {
        if list.spool_names().is_none() {
            return Err(Failure::INVALID_EMAIL);
        }
        self.check_names(sent)?;
        let mut sent = sent.clone();
        for (name, value) in &self.policy.defaults {
            sent.set_default(name, value);
        }
        self.force(&mut sent);
        let changes = profile::create(&list, &sent);
        let _turn = self.turn(&list).await;
        let pending = match &self.accounts {
            Some(accounts) => Some(accounts.create_list(&self.new_rows(&list, &sent)).await?),
            None => None,
        };
        let address = list.clone();
        let creation = self.files(move |spool| spool.prepare(&address, &changes)).await?;
        // The rows first: a list with rows but without files would swallow mail, so the rename comes last and is undone
        // below if it fails; a crash in between leaves rows whose list a second DELETE removes.
        if let Some(pending) = pending {
            pending.commit().await?;
        }
        if let Creation::New(prepared) = creation
            && let Err(failure) = self.files(move |_| prepared.publish()).await
        {
            if let Some(accounts) = &self.accounts
                && let Err(error) = accounts.delete_list(list.as_str()).await
            {
                tracing::error!(event = "rows of a failed list stay", list = %list, reason = %error);
            }
            return Err(failure);
        }
        Ok(Answer::success())
    }

    /// `GET /api/LIST`
    pub(super) async fn read(&self, list: ListAddress, sent: &Parameters) -> Result<Answer, Failure> {
        if let Some(accounts) = &self.accounts
            && !accounts.list_exists(list.as_str()).await?
        {
            return Err(Failure::NO_SUCH_ACCOUNT);
        }
        let selected = select(sent.get("params"));
        let values = self
            .files(move |spool| {
                let directory = spool.open(&list)?.ok_or(SpoolError::NoSuchList)?;
                let control = directory.open("control").while_doing("reading the settings")?;
                profile::read(&list, control.as_ref(), &selected).while_doing("reading the settings")
            })
            .await?;
        Ok(Answer::data(values))
    }

    /// `PUT /api/LIST`
    pub(super) async fn update(&self, list: ListAddress, sent: &Parameters) -> Result<Answer, Failure> {
        self.check_names(sent)?;
        let mut sent = sent.clone();
        self.force(&mut sent);
        let changes = profile::update(&list, &sent);
        let _turn = self.turn(&list).await;
        let pending = match &self.accounts {
            Some(accounts) => {
                let change = change_of_rows(&sent);
                if change.is_empty() {
                    None
                } else {
                    Some(accounts.change_list(list.as_str(), &change).await?)
                }
            }
            None => None,
        };
        self.files(move |spool| match spool.lock(&list)? {
            Some(directory) => spool.apply(&directory, &changes),
            // What is not there need not be taken away.
            None if profile::only_removes(&changes) => Ok(()),
            None => Err(SpoolError::NoSuchList),
        })
        .await?;
        if let Some(pending) = pending {
            pending.commit().await?;
        }
        Ok(Answer::success())
    }

    /// `DELETE /api/LIST`
    pub(super) async fn delete(&self, list: ListAddress, sent: &Parameters) -> Result<Answer, Failure> {
        let _turn = self.turn(&list).await;
        // The rows first: from then on mail to the list is refused as to an unknown address. If the files cannot be
        // moved, the call fails and may be repeated.
        if let Some(accounts) = &self.accounts {
            accounts.delete_list(list.as_str()).await?;
        }
        if list.spool_names().is_none() {
            return Ok(Answer::success());
        }
        if sent.get("archive") == Some("no") {
            self.files(move |spool| spool.remove(&list)).await?;
            return Ok(Answer::success());
        }
        let stamp = stamp(self.clock.unix_seconds());
        let path = self.files(move |spool| spool.archive(&list, &stamp)).await?;
        Ok(path.map_or_else(Answer::success, |path| Answer::data(path.display().to_string())))
    }

    /// Refuses unknown parameters where the settings ask for it: `add_subscribers` sent to the path of the list
    /// would otherwise create the list anew.
    fn check_names(&self, sent: &Parameters) -> Result<(), Failure> {
        let known = |name: &str| PARAMETERS.iter().any(|parameter| parameter.name == name);
        if self.policy.strict && !sent.names().all(known) {
            return Err(Failure::UNKNOWN_PARAMETER);
        }
        Ok(())
    }

    fn force(&self, sent: &mut Parameters) {
        for (name, value) in &self.policy.forced {
            sent.set(name, value);
        }
    }

    fn new_rows(&self, list: &ListAddress, sent: &Parameters) -> NewList {
        let change = change_of_rows(sent);
        NewList {
            address: list.to_string(),
            name: change.name.unwrap_or_default(),
            transport: format!("{}:{}/{}", self.policy.transport, list.domain(), list.local()),
            mlid: uuid::Uuid::new_v4().to_string(),
            max_message_size: change.max_message_size.unwrap_or(0),
            access_policy: change.grant,
            owners: change.owners,
            moderators: change.moderators,
        }
    }
}

/// What the parameters that were sent mean for the rows of the list.
fn change_of_rows(sent: &Parameters) -> ListChange {
    let addresses = |value: &str| parse_addresses(value).iter().map(ToString::to_string).collect();
    let moderators_only = sent.flag("only_moderator_can_post");
    let members_only = sent.flag("only_subscriber_can_post");
    let grant = match (moderators_only, members_only) {
        (Some(true), _) => Some(AccessPolicy::Moderators),
        (_, Some(true)) => Some(AccessPolicy::Members),
        _ => None,
    };
    let mut revoke = Vec::new();
    for (flag, policy) in [(moderators_only, AccessPolicy::Moderators), (members_only, AccessPolicy::Members)]
    {
        if flag == Some(false) && grant.is_none() {
            revoke.push(policy);
        }
    }
    ListChange {
        name: sent.get("name").map(|name| name.lines().next().unwrap_or("").to_owned()),
        max_message_size: sent.get("max_message_size").map(|value| profile::size(value).unwrap_or(0)),
        grant,
        revoke,
        owners: sent.get("owner").or_else(|| sent.get("owners")).map(addresses),
        moderators: sent.get("moderators").map(addresses),
    }
}

/// `YYYYMMDDHHMMSS` in UTC.
fn stamp(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y%m%d%H%M%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps() {
        assert_eq!(stamp(1_742_040_000), "20250315120000");
    }

    #[test]
    fn access_policy_follows_the_values() {
        use AccessPolicy::{Members, Moderators};
        for (moderators, members, grant, revoke) in [
            (None, None, None, vec![]),
            (Some("yes"), None, Some(Moderators), vec![]),
            (Some("yes"), Some("yes"), Some(Moderators), vec![]),
            (Some("no"), Some("yes"), Some(Members), vec![]),
            (Some("no"), None, None, vec![Moderators]),
            (None, Some("no"), None, vec![Members]),
            (Some("no"), Some("no"), None, vec![Moderators, Members]),
            (Some("maybe"), None, None, vec![]),
        ] {
            let mut sent = Parameters::default();
            for (name, value) in
                [("only_moderator_can_post", moderators), ("only_subscriber_can_post", members)]
            {
                if let Some(value) = value {
                    sent.set(name, value);
                }
            }
            let change = change_of_rows(&sent);
            assert_eq!((change.grant, change.revoke), (grant, revoke), "{moderators:?} {members:?}");
        }
    }

    #[test]
    fn only_what_was_sent_changes_rows() {
        assert!(change_of_rows(&[("close_list", "yes")].into()).is_empty());
        let change =
            change_of_rows(&[("name", ""), ("max_message_size", "x"), ("owner", "A@x.example,bad")].into());
        assert_eq!(change.name.as_deref(), Some(""));
        assert_eq!(change.max_message_size, Some(0));
        assert_eq!(change.owners, Some(vec!["a@x.example".to_owned()]));
        assert_eq!(change.moderators, None);
    }
}
