//! What the access policies of mail aliases and mailing lists have in common: finding the list behind a recipient, and
//! telling whether a sender is of its domain.

use std::collections::HashSet;

use outrider_core::address;
use outrider_core::directory::ListKind;

use crate::context::{Context, RuleError};
use crate::request::PolicyRequest;

/// A list that a message is for.
#[derive(Debug)]
pub(super) struct List<'a> {
    request: &'a PolicyRequest,
    /// Its address in the tables: the recipient itself, or that under the domain its own is an alias of.
    pub(super) address: String,
    /// Who may write, lower case; empty for everybody.
    pub(super) policy: String,
    /// Whether the sender's domain is an alias of the list's.
    pub(super) sender_in_alias_domain: bool,
}

impl List<'_> {
    /// The list that the recipient is, if it is one.
    pub(super) async fn find<'a>(
        kind: ListKind,
        request: &'a PolicyRequest,
        context: &Context,
    ) -> Result<Option<List<'a>>, RuleError> {
        let directory = &context.directory;
        let mut address = request.recipient_without_ext.clone();
        if address.is_empty() {
            return Ok(None);
        }
        let mut policy = directory.list_policy(kind, &address).await?;
        if policy.is_none()
            && let Some(real) = context.under_alias_target(&address).await?
        {
            policy = directory.list_policy(kind, &real).await?;
            address = real;
        }
        let Some(policy) = policy else { return Ok(None) };
        let domain = address::split_first(&address).map_or("", |(_, domain)| domain);
        let sender_in_alias_domain = directory.alias_domain_of(&request.sender_domain, domain).await?;
        Ok(Some(List { request, address, policy, sender_in_alias_domain }))
    }

    fn domains(&self) -> [&str; 2] {
        [&self.request.recipient_domain, address::split_first(&self.address).map_or("", |(_, domain)| domain)]
    }

    /// Whether the sender is of the list's domain, under any name of that.
    pub(super) fn sender_is_of_domain(&self) -> bool {
        self.sender_in_alias_domain || self.domains().contains(&self.request.sender_domain.as_str())
    }

    /// Whether the sender is of the list's domain or one below it.
    pub(super) fn sender_is_of_subdomain(&self) -> bool {
        let below = |domain: &str| self.request.sender_domain.ends_with(&format!(".{domain}"));
        self.sender_is_of_domain() || self.domains().into_iter().any(below)
    }

    /// The moderator that stands for everybody in the sender's domain.
    pub(super) fn whole_domain_of_sender(&self) -> String {
        format!("*@{}", self.request.sender_domain)
    }

    /// All addresses under which something may be written down about the list, the one in the tables first: also that
    /// which the message is for, and that under the sender's domain if that is an alias of the list's.
    pub(super) fn addresses(&self) -> Vec<String> {
        let recipient = &self.request.recipient_without_ext;
        let mut addresses = vec![self.address.clone(), recipient.clone()];
        if let Some((local, _)) = address::split_first(recipient).filter(|_| self.sender_in_alias_domain) {
            addresses.push(format!("{local}@{}", self.request.sender_domain));
        }
        let mut known = HashSet::new();
        addresses.retain(|address| known.insert(address.clone()));
        addresses
    }

    /// The sender under all names by which it may be listed: its own, and in an alias domain of the list's domain
    /// also those under the list's domain.
    pub(super) fn names_of_sender(&self) -> Vec<String> {
        let sender = &self.request.sender_without_ext;
        let mut names = vec![sender.clone()];
        if let Some((local, _)) = address::split_first(sender).filter(|_| self.sender_in_alias_domain) {
            names.extend(self.domains().map(|domain| format!("{local}@{domain}")));
        }
        names
    }
}
