//! Owners and moderators of a list.

use outrider_core::directory::write::ListChange;
use serde_json::Value;

use super::address::{ListAddress, parse_addresses};
use super::failure::Failure;
use super::profile::{self, Change, read_text};
use super::route::Role;
use super::spool::{self, SpoolError, While};
use super::{ListApi, directory::Directory};
use crate::http::{Answer, Parameters};

impl ListApi {
    /// `GET /api/LIST/owners` and `/moderators`
    pub(super) async fn people(&self, list: ListAddress, role: Role) -> Result<Answer, Failure> {
        let people = self
            .files(move |spool| current(&spool.open(&list)?.ok_or(SpoolError::NoSuchList)?, role))
            .await?;
        Ok(Answer::data(Value::from(people)))
    }

    /// `PUT /api/LIST/owners` and `/moderators`
    pub(super) async fn change_people(
        &self,
        list: ListAddress,
        role: Role,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        let [all, add, remove] = role.parameters().map(|name| sent.get(name).map(addresses));
        let _turn = self.turn(&list).await;
        let address = list.clone();
        let (directory, people) = self
            .files(move |spool| {
                let directory = spool.lock(&address)?.ok_or(SpoolError::NoSuchList)?;
                let people = match all {
                    Some(all) => all,
                    None => {
                        let mut people = current(&directory, role)?;
                        people.extend(add.unwrap_or_default());
                        let remove = remove.unwrap_or_default();
                        people.retain(|person| !remove.contains(person));
                        people
                    }
                };
                Ok((directory, sorted(people)))
            })
            .await?;
        let pending = match &self.accounts {
            Some(accounts) => {
                let people = Some(people.clone());
                let change = match role {
                    Role::Owner => ListChange { owners: people, ..ListChange::default() },
                    Role::Moderator => ListChange { moderators: people, ..ListChange::default() },
                };
                Some(accounts.change_list(list.as_str(), &change).await?)
            }
            None => None,
        };
        let change = Change { file: role.file(), content: profile::lines(&people) };
        self.files(move |spool| spool.apply(&directory, &[change])).await?;
        if let Some(pending) = pending {
            pending.commit().await?;
        }
        Ok(Answer::success())
    }
}

/// Who is in the file now, lower-cased and sorted.
fn current(list: &Directory, role: Role) -> spool::Result<Vec<String>> {
    const WHAT: &str = "reading owners and moderators";
    let Some(control) = list.open("control").while_doing(WHAT)? else { return Ok(Vec::new()) };
    let text = read_text(&control, role.file()).while_doing(WHAT)?.unwrap_or_default();
    Ok(sorted(text.lines().map(|line| line.trim().to_lowercase()).filter(|line| !line.is_empty()).collect()))
}

fn addresses(value: &str) -> Vec<String> {
    parse_addresses(value).iter().map(ToString::to_string).collect()
}

fn sorted(mut people: Vec<String>) -> Vec<String> {
    people.sort_unstable();
    people.dedup();
    people
}
