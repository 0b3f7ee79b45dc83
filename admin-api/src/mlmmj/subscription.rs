//! The calls about subscribers.

use serde_json::{Value, json};

use super::ListApi;
use super::address::{ListAddress, parse_addresses};
use super::failure::Failure;
use super::spool::{SpoolError, While};
use super::subscriber::{self, Subscription};
use crate::http::{Answer, Parameters};

impl ListApi {
    /// `GET /api/LIST/subscribers`
    pub(super) async fn subscribers(&self, list: ListAddress, sent: &Parameters) -> Result<Answer, Failure> {
        let subscribers = self
            .files(move |spool| match spool.open(&list)? {
                Some(directory) => subscriber::all(&directory).while_doing("reading subscribers"),
                None => Ok(Vec::new()),
            })
            .await?;
        if sent.contains("email_only") {
            let mut addresses: Vec<String> = subscribers.into_iter().map(|(address, _)| address).collect();
            addresses.sort_unstable();
            return Ok(Answer::data(addresses));
        }
        let entries: Vec<Value> =
            subscribers.iter().map(|(address, subscription)| entry(address, *subscription)).collect();
        Ok(Answer::data(entries))
    }

    /// `POST /api/LIST/subscribers`
    pub(super) async fn change_subscribers(
        &self,
        list: ListAddress,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        let subscription = Subscription::parse(sent.get("subscription"));
        let added = parse_addresses(sent.get("add_subscribers").unwrap_or(""));
        if !added.is_empty() {
            let confirm = sent.is_yes("require_confirm");
            self.add_subscribers(&list, added, subscription, confirm).await?;
        }
        match sent.get("remove_subscribers") {
            Some("ALL") => self.remove_everybody(&list).await?,
            Some(addresses) => self.remove_subscribers(&list, parse_addresses(addresses)).await?,
            None => {}
        }
        Ok(Answer::success())
    }

    /// `GET /api/LIST/has_subscriber/ADDRESS`
    pub(super) async fn has_subscriber(
        &self,
        list: ListAddress,
        address: ListAddress,
    ) -> Result<Answer, Failure> {
        let found = self
            .files(move |spool| match spool.open(&list)? {
                Some(directory) => subscriber::find(&directory, &address).while_doing("reading subscribers"),
                None => Ok(None),
            })
            .await?;
        Ok(found.map_or_else(Answer::no, |subscription| Answer::data(subscription.name())))
    }

    /// `GET /api/subscriber/ADDRESS/subscribed`
    pub(super) async fn subscribed(
        &self,
        address: ListAddress,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        let domain = (!sent.is_yes("query_all_lists")).then(|| address.domain().to_owned());
        let known = match &self.accounts {
            Some(accounts) => Some(accounts.list_addresses(domain.as_deref()).await?),
            None => None,
        };
        let found = self
            .files(move |spool| {
                let lists = match known {
                    Some(known) => known.iter().filter_map(|list| ListAddress::parse(list)).collect(),
                    None => spool.lists(domain.as_deref())?,
                };
                let mut found = Vec::new();
                for list in lists {
                    if let Some(directory) = spool.open(&list)?
                        && let Some(subscription) =
                            subscriber::find(&directory, &address).while_doing("reading subscribers")?
                    {
                        found.push((list.to_string(), subscription));
                    }
                }
                Ok(found)
            })
            .await?;
        let email_only = sent.is_yes("email_only");
        let lists: Vec<Value> = found
            .into_iter()
            .map(|(list, subscription)| if email_only { list.into() } else { entry(&list, subscription) })
            .collect();
        Ok(Answer::data(lists))
    }

    /// `POST /api/subscriber/ADDRESS/subscribe`
    pub(super) async fn subscribe(&self, address: ListAddress, sent: &Parameters) -> Result<Answer, Failure> {
        let subscription = Subscription::parse(sent.get("subscription"));
        // Here confirmation is the default, unlike in the call of one list.
        let confirm = sent.get("require_confirm") != Some("no");
        for list in parse_addresses(sent.get("lists").unwrap_or("")) {
            self.add_subscribers(&list, vec![address.clone()], subscription, confirm).await?;
        }
        Ok(Answer::success())
    }

    async fn add_subscribers(
        &self,
        list: &ListAddress,
        addresses: Vec<ListAddress>,
        subscription: Subscription,
        confirm: bool,
    ) -> Result<(), Failure> {
        let _turn = self.turn(list).await;
        let list_address = list.clone();
        if confirm {
            return self.ask_to_confirm(list_address, &addresses, subscription).await;
        }
        self.files(move |spool| {
            let directory = spool.lock(&list_address)?.ok_or(SpoolError::NoSuchList)?;
            subscriber::add(&directory, &addresses, subscription).while_doing("adding subscribers")
        })
        .await
    }

    async fn remove_subscribers(
        &self,
        list: &ListAddress,
        addresses: Vec<ListAddress>,
    ) -> Result<(), Failure> {
        let _turn = self.turn(list).await;
        let list = list.clone();
        self.files(move |spool| match spool.lock(&list)? {
            Some(directory) => subscriber::remove(&directory, &addresses).while_doing("removing subscribers"),
            None => Ok(()),
        })
        .await
    }

    async fn remove_everybody(&self, list: &ListAddress) -> Result<(), Failure> {
        let _turn = self.turn(list).await;
        let list = list.clone();
        self.files(move |spool| {
            let directory = spool.lock(&list)?.ok_or(SpoolError::NoSuchList)?;
            subscriber::remove_all(&directory).while_doing("removing subscribers")
        })
        .await
    }
}

fn entry(address: &str, subscription: Subscription) -> Value {
    json!({"mail": address, "subscription": subscription.name()})
}
