//! The paths of the account API and the methods of each.
//!
//! Addresses and domains are taken as they stand in the path and lower-cased; whether they are valid is decided
//! by the call, after the caller has been authenticated.

use hyper::Method;
use outrider_core::directory::write::{Colour, Direction, Scope, ThrottleKind};

/// A call, with what its path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Login,
    Logout,
    Domains,
    Domain(Verb, String),
    DeleteDomain(String, Keep),
    DomainAdmins(String),
    Users(String),
    ChangeUsers(String),
    User(Verb, String),
    DeleteUser(String, Keep),
    RenameUser(String, String),
    Aliases(String),
    Alias(Verb, String),
    RenameAlias(String, String),
    Admin(Verb, String),
    VerifyUser(String),
    VerifyAdmin(String),
    /// A limit on mail in one direction.
    Throttle(Verb, Scope, ThrottleKind),
    /// Whether somebody is greylisted.
    Greylisting(Verb, Scope),
    AllGreylisting,
    /// Senders that are never greylisted.
    GreylistingSenders(Verb, Scope),
    /// Domains whose mail servers are never greylisted.
    GreylistingDomains,
    /// A black or white list.
    Listed(Verb, Scope, Direction, Colour),
    SpamPolicy(Verb, Scope),
}

/// What to do with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Create,
    Update,
    Delete,
}

/// How long the files of a removed mailbox are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing was said.
    Unsaid,
    /// So many days; 0 is for ever.
    Days(u32),
}

/// Why a request is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoCall {
    /// No such path: 404.
    NotFound,
    /// The path exists, but not for this method: 405.
    MethodNotAllowed,
}

/// Finds the call for a decoded path and a method. `base` is the prefix under which a proxy shows the application;
/// both forms of a path are served.
pub(crate) fn find(method: &Method, path: &str, base: &str) -> Result<Call, NoCall> {
    let rest = path.strip_prefix(base).filter(|rest| rest.starts_with('/')).unwrap_or(path);
    let rest = rest.strip_prefix("/api/").ok_or(NoCall::NotFound)?;
    let lowered = rest.to_lowercase();
    // The words of the path are matched as they are, the names in it in lower case.
    let words: Vec<&str> = rest.split('/').collect();
    let names: Vec<&str> = lowered.split('/').collect();
    if words.len() != names.len() || words.iter().any(|word| word.is_empty()) {
        return Err(NoCall::NotFound);
    }
    let name = |at: usize| names[at].to_owned();
    match words[..] {
        ["login"] => one(method, &[(Method::POST, Call::Login)]),
        ["logout"] => one(method, &[(Method::POST, Call::Logout)]),
        ["domains"] => one(method, &[(Method::GET, Call::Domains)]),
        ["domain", "admins", _] => one(method, &[(Method::PUT, Call::DomainAdmins(name(2)))]),
        ["domain", _] => match verb(method)? {
            Verb::Delete => Ok(Call::DeleteDomain(name(1), Keep::Unsaid)),
            verb => Ok(Call::Domain(verb, name(1))),
        },
        ["domain", _, "keep_mailbox_days", days] => {
            one(method, &[(Method::DELETE, Call::DeleteDomain(name(1), keep(days)?))])
        }
        ["users", _] => {
            one(method, &[(Method::GET, Call::Users(name(1))), (Method::PUT, Call::ChangeUsers(name(1)))])
        }
        ["user", _] => match verb(method)? {
            Verb::Delete => Ok(Call::DeleteUser(name(1), Keep::Unsaid)),
            verb => Ok(Call::User(verb, name(1))),
        },
        ["user", _, "keep_mailbox_days", days] => {
            one(method, &[(Method::DELETE, Call::DeleteUser(name(1), keep(days)?))])
        }
        ["user", _, "change_email", _] => one(method, &[(Method::POST, Call::RenameUser(name(1), name(3)))]),
        ["aliases", _] => one(method, &[(Method::GET, Call::Aliases(name(1)))]),
        ["alias", _] => verb(method).map(|verb| Call::Alias(verb, name(1))),
        ["alias", _, "change_email", _] => {
            one(method, &[(Method::POST, Call::RenameAlias(name(1), name(3)))])
        }
        ["admin", _] => verb(method).map(|verb| Call::Admin(verb, name(1))),
        ["verify_password", "user", _] => one(method, &[(Method::POST, Call::VerifyUser(name(2)))]),
        ["verify_password", "admin", _] => one(method, &[(Method::POST, Call::VerifyAdmin(name(2)))]),
        ["greylisting", "all"] => one(method, &[(Method::GET, Call::AllGreylisting)]),
        ["greylisting", "whitelist_spf_domains"] => one(method, &[(Method::POST, Call::GreylistingDomains)]),
        ["greylisting", _] => match verb(method)? {
            Verb::Update => Err(NoCall::MethodNotAllowed),
            verb => Ok(Call::Greylisting(verb, scope(names[1]))),
        },
        ["greylisting", _, "whitelists"] => match verb(method)? {
            verb @ (Verb::Read | Verb::Create) => Ok(Call::GreylistingSenders(verb, scope(names[1]))),
            _ => Err(NoCall::MethodNotAllowed),
        },
        ["throttle", _, kind] => {
            let kind = match kind {
                "inbound" => ThrottleKind::Inbound,
                "outbound" => ThrottleKind::Outbound,
                _ => return Err(NoCall::NotFound),
            };
            match verb(method)? {
                Verb::Update => Err(NoCall::MethodNotAllowed),
                verb => Ok(Call::Throttle(verb, scope(names[1]), kind)),
            }
        }
        ["wblist", direction, colour, _] => {
            let direction = match direction {
                "inbound" => Direction::Inbound,
                "outbound" => Direction::Outbound,
                _ => return Err(NoCall::NotFound),
            };
            let colour = match colour {
                "whitelist" => Colour::White,
                "blacklist" => Colour::Black,
                _ => return Err(NoCall::NotFound),
            };
            verb(method).map(|verb| Call::Listed(verb, scope(names[3]), direction, colour))
        }
        ["spampolicy", "global"] => policy(method, Scope::Global),
        ["spampolicy", "domain", _] => policy(method, Scope::Domain(name(2))),
        ["spampolicy", "user", _] => policy(method, Scope::User(name(2))),
        _ => Err(NoCall::NotFound),
    }
}

fn policy(method: &Method, scope: Scope) -> Result<Call, NoCall> {
    match verb(method)? {
        Verb::Create => Err(NoCall::MethodNotAllowed),
        verb => Ok(Call::SpamPolicy(verb, scope)),
    }
}

/// `global`, a domain or an address.
fn scope(name: &str) -> Scope {
    match name {
        "global" => Scope::Global,
        user if user.contains('@') => Scope::User(user.to_owned()),
        domain => Scope::Domain(domain.to_owned()),
    }
}

fn one(method: &Method, calls: &[(Method, Call)]) -> Result<Call, NoCall> {
    let found = calls.iter().find(|(allowed, _)| allowed == method);
    found.map(|(_, call)| call.clone()).ok_or(NoCall::MethodNotAllowed)
}

fn verb(method: &Method) -> Result<Verb, NoCall> {
    match *method {
        Method::GET => Ok(Verb::Read),
        Method::POST => Ok(Verb::Create),
        Method::PUT => Ok(Verb::Update),
        Method::DELETE => Ok(Verb::Delete),
        _ => Err(NoCall::MethodNotAllowed),
    }
}

fn keep(days: &str) -> Result<Keep, NoCall> {
    if days.len() > 6 || !days.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NoCall::NotFound);
    }
    days.parse().map(Keep::Days).map_err(|_| NoCall::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods() {
        let text = str::to_owned;
        for (method, path, expected) in [
            ("POST", "/api/login", Ok(Call::Login)),
            ("POST", "/iredadmin/api/login", Ok(Call::Login)),
            ("GET", "/api/login", Err(NoCall::MethodNotAllowed)),
            ("GET", "/api/domain/A.EXAMPLE", Ok(Call::Domain(Verb::Read, text("a.example")))),
            ("DELETE", "/api/domain/a.example", Ok(Call::DeleteDomain(text("a.example"), Keep::Unsaid))),
            (
                "DELETE",
                "/api/user/u@a.example/keep_mailbox_days/7",
                Ok(Call::DeleteUser(text("u@a.example"), Keep::Days(7))),
            ),
            ("DELETE", "/api/user/u@a.example/keep_mailbox_days/x", Err(NoCall::NotFound)),
            ("DELETE", "/api/user/u@a.example/keep_mailbox_days/-1", Err(NoCall::NotFound)),
            ("PUT", "/api/domain/admins/a.example", Ok(Call::DomainAdmins(text("a.example")))),
            (
                "POST",
                "/api/user/u@a.example/change_email/W@a.example",
                Ok(Call::RenameUser(text("u@a.example"), text("w@a.example"))),
            ),
            (
                "POST",
                "/api/throttle/U@a.example/inbound",
                Ok(Call::Throttle(Verb::Create, Scope::User(text("u@a.example")), ThrottleKind::Inbound)),
            ),
            ("GET", "/api/greylisting/global", Ok(Call::Greylisting(Verb::Read, Scope::Global))),
            ("GET", "/api/greylisting/all", Ok(Call::AllGreylisting)),
            (
                "DELETE",
                "/api/wblist/outbound/blacklist/a.example",
                Ok(Call::Listed(
                    Verb::Delete,
                    Scope::Domain(text("a.example")),
                    Direction::Outbound,
                    Colour::Black,
                )),
            ),
            ("GET", "/api/wblist/sideways/blacklist/a.example", Err(NoCall::NotFound)),
            ("POST", "/api/spampolicy/global", Err(NoCall::MethodNotAllowed)),
            ("PATCH", "/api/user/u@a.example", Err(NoCall::MethodNotAllowed)),
            ("GET", "/api/user/", Err(NoCall::NotFound)),
            ("GET", "/api//user/u@a.example", Err(NoCall::NotFound)),
            ("GET", "/api/unknown", Err(NoCall::NotFound)),
            ("GET", "/iredadminapi/login", Err(NoCall::NotFound)),
            ("GET", "/", Err(NoCall::NotFound)),
        ] {
            let method: Method = method.parse().unwrap();
            assert_eq!(find(&method, path, "/iredadmin"), expected, "{method} {path}");
        }
    }
}
