//! What becomes of the subscriptions of an account that is removed or gets another address.
//!
//! The account itself is changed already when these run, so a list that cannot be changed is logged and passed
//! over.

use super::ListApi;
use super::address::ListAddress;
use super::failure::Failure;
use super::spool::While;
use super::subscriber;

impl ListApi {
    /// Takes an account off all lists.
    pub(crate) async fn forget(&self, account: &str) {
        self.move_subscriptions(account, None).await;
    }

    /// Subscribes the new address of an account to every list in place of the old one.
    pub(crate) async fn rename(&self, account: &str, new: &str) {
        self.move_subscriptions(account, Some(new)).await;
    }

    async fn move_subscriptions(&self, account: &str, new: Option<&str>) {
        let Some(old) = ListAddress::parse(account) else { return };
        let new = new.and_then(ListAddress::parse);
        let lists = match self.files(|spool| spool.lists(None)).await {
            Ok(lists) => lists,
            Err(failure) => {
                tracing::warn!(event = "subscriptions stay", account, reason = failure.code());
                return;
            }
        };
        for list in lists {
            if let Err(failure) = self.move_subscription(&list, &old, new.as_ref()).await {
                tracing::warn!(event = "subscription stays", account, list = %list, reason = failure.code());
            }
        }
    }

    async fn move_subscription(
        &self,
        list: &ListAddress,
        old: &ListAddress,
        new: Option<&ListAddress>,
    ) -> Result<(), Failure> {
        const WHAT: &str = "moving a subscription";
        let (address, subscribed) = (list.clone(), old.clone());
        // Most lists do not have the subscriber; those are not even locked.
        let found = self.files(move |spool| match spool.open(&address)? {
            Some(directory) => Ok(subscriber::find(&directory, &subscribed).while_doing(WHAT)?.is_some()),
            None => Ok(false),
        });
        if !found.await? {
            return Ok(());
        }
        let _turn = self.turn(list).await;
        let (list, old, new) = (list.clone(), old.clone(), new.cloned());
        self.files(move |spool| {
            let Some(directory) = spool.lock(&list)? else { return Ok(()) };
            let kinds = subscriber::subscriptions(&directory, &old).while_doing(WHAT)?;
            if let Some(new) = new {
                for kind in kinds {
                    subscriber::add(&directory, std::slice::from_ref(&new), kind).while_doing(WHAT)?;
                }
            }
            // The new address first: a crash in between leaves two subscriptions rather than none.
            subscriber::remove(&directory, &[old]).while_doing(WHAT)
        })
        .await
    }
}
