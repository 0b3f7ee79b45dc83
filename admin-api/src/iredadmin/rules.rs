//! The calls about limits, greylisting, black and white lists and content policies.

use outrider_core::directory::write::{
    Colour, Direction, DomainSettings, ListedAddress, PolicyColumn, Scope, Throttle, ThrottleKind,
};
use outrider_core::network::parse_strict;
use outrider_core::sql::Value as SqlValue;
use serde_json::{Map, Value};

use super::actor::{Actor, Level};
use super::failure::Failure;
use super::route::Verb;
use super::value::{self, is_domain, is_foreign, number};
use super::{AccountApi, view};
use crate::http::{Answer, Parameters};

/// What is put before the subject of spam.
const SUBJECT_TAG: &str = "[SPAM] ";

impl AccountApi {
    /// `/api/throttle/{global|DOMAIN|USER}/{inbound|outbound}`
    pub(super) async fn throttle(
        &self,
        actor: &Actor,
        verb: Verb,
        scope: &Scope,
        kind: ThrottleKind,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        self.check_scope(actor, scope, "throttle").await?;
        match verb {
            Verb::Read => {
                let row = self.rules.throttle(scope, kind).await?;
                return Ok(Answer::data(row.map_or_else(Map::new, |row| view::object(&row, &[]))));
            }
            Verb::Delete => drop(self.rules.remove_throttle(scope, kind).await?),
            _ => {
                let period = number(sent, "period", 0).ok_or(Failure::new("INVALID_ACTION"))?;
                let limit = |name| number(sent, name, -1).unwrap_or(-1);
                let throttle = Throttle {
                    period,
                    msg_size: limit("msg_size"),
                    max_msgs: limit("max_msgs"),
                    max_quota: limit("max_quota"),
                    max_rcpts: limit("max_rcpts"),
                };
                self.rules.set_throttle(scope, kind, &throttle).await?;
            }
        }
        Ok(Answer::success())
    }

    /// `/api/greylisting/{global|DOMAIN|USER}`
    pub(super) async fn greylisting(
        &self,
        actor: &Actor,
        verb: Verb,
        scope: &Scope,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        self.check_scope(actor, scope, "greylisting").await?;
        match verb {
            Verb::Read => {
                let row = self.rules.greylisting(scope).await?;
                return Ok(Answer::data(row.map_or_else(Map::new, |row| view::object(&row, &[]))));
            }
            Verb::Delete => self.rules.set_greylisting(scope, None).await?,
            _ => {
                let active = match sent.get("status") {
                    Some("enable") => true,
                    Some("disable") => false,
                    _ => return Err(Failure::new("INVALID_ACTION")),
                };
                self.rules.set_greylisting(scope, Some(active)).await?;
            }
        }
        Ok(Answer::success())
    }

    /// `GET /api/greylisting/all`
    pub(super) async fn all_greylisting(&self, actor: &Actor) -> Result<Answer, Failure> {
        if !actor.is_global() {
            return Err(Failure::PERMISSION_DENIED);
        }
        let rows = self.rules.all_greylisting().await?;
        Ok(Answer::data(rows.iter().map(|row| view::object(row, &[]).into()).collect::<Vec<Value>>()))
    }

    /// `/api/greylisting/{global|DOMAIN|USER}/whitelists`
    pub(super) async fn greylisting_senders(
        &self,
        actor: &Actor,
        verb: Verb,
        scope: &Scope,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        self.check_scope(actor, scope, "greylisting").await?;
        if verb == Verb::Read {
            return Ok(Answer::data(self.rules.greylisting_senders(scope).await?));
        }
        let valid = |sender: &str| priority(sender).is_some() && sender != "@.";
        if let Some(edit) = value::edit(sent, ["senders", "addSenders", "removeSenders"], valid) {
            self.rules.edit_greylisting_senders(scope, &edit).await?;
        }
        Ok(Answer::success())
    }

    /// `POST /api/greylisting/whitelist_spf_domains`
    pub(super) async fn greylisting_domains(
        &self,
        actor: &Actor,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        if !actor.is_global() {
            return Err(Failure::PERMISSION_DENIED);
        }
        if let Some(edit) = value::edit(sent, ["domains", "addDomains", "removeDomains"], is_domain) {
            self.rules.edit_greylisting_domains(&edit).await?;
        }
        Ok(Answer::success())
    }

    /// `/api/wblist/{inbound|outbound}/{whitelist|blacklist}/{global|DOMAIN|USER}`
    pub(super) async fn listed(
        &self,
        actor: &Actor,
        verb: Verb,
        scope: &Scope,
        (direction, colour): (Direction, Colour),
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        self.check_scope(actor, scope, "wblist").await?;
        let addresses = || value::list(sent.get("addresses").unwrap_or(""), |text| priority(text).is_some());
        match verb {
            Verb::Read => return Ok(Answer::data(self.rules.listed(scope, direction, colour).await?)),
            Verb::Create => {
                let listed: Vec<ListedAddress> = addresses()
                    .into_iter()
                    .filter_map(|address| {
                        priority(&address).map(|priority| ListedAddress { address, priority })
                    })
                    .collect();
                drop(self.rules.list(scope, direction, colour, &listed).await?);
            }
            Verb::Update => drop(self.rules.unlist(scope, direction, colour, &addresses()).await?),
            Verb::Delete => drop(self.rules.empty_list(scope, direction, colour).await?),
        }
        Ok(Answer::success())
    }

    /// `/api/spampolicy/global`, `/domain/DOMAIN` and `/user/USER`
    pub(super) async fn spam_policy(
        &self,
        actor: &Actor,
        verb: Verb,
        scope: &Scope,
        sent: &Parameters,
    ) -> Result<Answer, Failure> {
        self.check_scope(actor, scope, "spampolicy").await?;
        match verb {
            Verb::Read => {
                let row = self.rules.spam_policy(scope).await?;
                return Ok(Answer::data(row.map_or_else(Map::new, |row| view::object(&row, &[]))));
            }
            Verb::Delete => self.rules.remove_spam_policy(scope).await?,
            _ => self.rules.set_spam_policy(scope, &columns(sent)).await?,
        }
        Ok(Answer::success())
    }

    /// Whether the actor may change rules of this scope: the page has to be open to domain administrators, and users
    /// with self-service reach some pages of their own.
    async fn check_scope(&self, actor: &Actor, scope: &Scope, page: &str) -> Result<(), Failure> {
        let (domain, key) = match scope {
            Scope::Global if actor.is_global() => return Ok(()),
            Scope::Global => return Err(Failure::PERMISSION_DENIED),
            Scope::Domain(domain) => (domain.as_str(), "disabled_domain_profiles"),
            Scope::User(user) => {
                (user.rsplit_once('@').map_or("", |(_, domain)| domain), "disabled_user_profiles")
            }
        };
        let own = actor.level == Level::OwnMailbox
            && matches!(scope, Scope::User(user) if *user == actor.username)
            && ["wblist", "spampolicy"].contains(&page);
        if !own && !actor.manages(domain) {
            return Err(Failure::PERMISSION_DENIED);
        }
        match scope {
            Scope::Domain(domain) if !is_domain(domain) => return Err(Failure::INVALID_DOMAIN_NAME),
            Scope::User(user) if !is_foreign(user) => return Err(Failure::INVALID_MAIL),
            _ => {}
        }
        let row = self.accounts.domain(domain).await?.ok_or(Failure::NO_SUCH_ACCOUNT)?;
        let settings = DomainSettings::parse(row.text("settings").unwrap_or(""));
        let key = if own { "disabled_user_preferences" } else { key };
        if !actor.is_global() && settings.list(key).iter().any(|closed| closed == page) {
            return Err(Failure::PERMISSION_DENIED);
        }
        Ok(())
    }
}

/// The priority of a listed address by its form; `None` if it has none of the forms.
fn priority(text: &str) -> Option<i64> {
    if text == "@." {
        return Some(0);
    }
    if let Some(domain) = text.strip_prefix("@.") {
        // A top-level domain alone reaches further than any other.
        let top = !domain.is_empty() && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        return if is_domain(domain) { Some(3) } else { top.then_some(2) };
    }
    if let Some(domain) = text.strip_prefix('@') {
        return is_domain(domain).then_some(5);
    }
    if let Some(local) = text.strip_suffix("@*") {
        return is_foreign(&format!("{local}@a.example")).then_some(7);
    }
    if text.contains('/') && parse_strict(text).is_some() {
        return Some(7);
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Some(9);
    }
    if outrider_core::lookup::is_wildcard_ip(text) {
        return Some(8);
    }
    is_foreign(text).then_some(10)
}

/// What the parameters of a content policy mean for its columns.
fn columns(sent: &Parameters) -> Vec<(PolicyColumn, SqlValue)> {
    use PolicyColumn as Column;
    let mut columns = Vec::new();
    for (name, column) in [
        ("bypass_spam_checks", Column::BypassSpam),
        ("bypass_virus_checks", Column::BypassVirus),
        ("bypass_banned_checks", Column::BypassBanned),
        ("bypass_header_checks", Column::BypassHeader),
    ] {
        if let Some(flag) = sent.flag(name) {
            columns.push((column, if flag { "Y" } else { "N" }.into()));
        }
    }
    for (name, place, quarantine, lover) in [
        ("quarantine_spam", "spam-quarantine", Column::SpamQuarantine, Column::SpamLover),
        ("quarantine_virus", "virus-quarantine", Column::VirusQuarantine, Column::VirusLover),
        ("quarantine_banned", "banned-quarantine", Column::BannedQuarantine, Column::BannedLover),
        (
            "quarantine_bad_header",
            "bad-header-quarantine",
            Column::BadHeaderQuarantine,
            Column::BadHeaderLover,
        ),
    ] {
        match sent.flag(name) {
            Some(true) => {
                columns.push((quarantine, place.into()));
                columns.push((lover, "N".into()));
            }
            Some(false) => columns.push((quarantine, "".into())),
            None => {}
        }
    }
    match sent.flag("prefix_spam_in_subject") {
        Some(true) => columns.push((Column::SubjectTag2, SUBJECT_TAG.into())),
        Some(false) => columns.push((Column::SubjectTag2, SqlValue::Null)),
        None => {}
    }
    match sent.flag("always_insert_x_spam_headers") {
        Some(true) => columns.push((Column::TagLevel, SqlValue::Real(-100.0))),
        Some(false) => columns.push((Column::TagLevel, SqlValue::Null)),
        None => {}
    }
    if let Some(score) = sent.get("spam_score") {
        let score = score.trim().parse::<f64>().ok().filter(|score| score.is_finite());
        let value = score.map_or(SqlValue::Null, SqlValue::Real);
        columns.push((Column::Tag2Level, value.clone()));
        columns.push((Column::KillLevel, value));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_listed_addresses() {
        for (text, expected) in [
            ("user@x.example", Some(10)),
            ("192.0.2.10", Some(9)),
            ("2001:db8::1", Some(9)),
            ("192.0.2.*", Some(8)),
            ("192.0.2.0/24", Some(7)),
            ("user@*", Some(7)),
            ("@x.example", Some(5)),
            ("@.x.example", Some(3)),
            ("@.com", Some(2)),
            ("@.", Some(0)),
            ("junk", None),
            ("192.0.2.1/24", None),
            ("@", None),
            ("a b@x.example", None),
        ] {
            assert_eq!(priority(text), expected, "{text}");
        }
    }

    #[test]
    fn columns_of_a_content_policy() {
        use PolicyColumn as Column;
        for (sent, expected) in [
            (
                Parameters::from([("bypass_spam_checks", "yes")]),
                vec![(Column::BypassSpam, SqlValue::from("Y"))],
            ),
            ([("bypass_spam_checks", "maybe")].into(), vec![]),
            (
                [("quarantine_virus", "yes")].into(),
                vec![(Column::VirusQuarantine, "virus-quarantine".into()), (Column::VirusLover, "N".into())],
            ),
            ([("quarantine_virus", "no")].into(), vec![(Column::VirusQuarantine, "".into())]),
            (
                [("spam_score", "4.5")].into(),
                vec![(Column::Tag2Level, SqlValue::Real(4.5)), (Column::KillLevel, SqlValue::Real(4.5))],
            ),
            (
                [("spam_score", "NaN")].into(),
                vec![(Column::Tag2Level, SqlValue::Null), (Column::KillLevel, SqlValue::Null)],
            ),
        ] {
            assert_eq!(columns(&sent), expected, "{sent:?}");
        }
    }
}
