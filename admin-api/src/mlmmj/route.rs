//! The paths of the list API and the methods of each.

use hyper::Method;

use super::address::{ListAddress, is_address};

/// A call, with the addresses its path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// `GET /api/LIST`
    Read(ListAddress),
    /// `POST /api/LIST`
    Create(ListAddress),
    /// `PUT /api/LIST`
    Update(ListAddress),
    /// `DELETE /api/LIST`
    Delete(ListAddress),
    /// `GET /api/LIST/owners` or `/moderators`
    People(ListAddress, Role),
    /// `PUT /api/LIST/owners` or `/moderators`
    ChangePeople(ListAddress, Role),
    /// `GET /api/LIST/subscribers`
    Subscribers(ListAddress),
    /// `POST /api/LIST/subscribers`
    ChangeSubscribers(ListAddress),
    /// `GET /api/LIST/has_subscriber/ADDRESS`
    HasSubscriber(ListAddress, ListAddress),
    /// `GET /api/subscriber/ADDRESS/subscribed`
    Subscribed(ListAddress),
    /// `POST /api/subscriber/ADDRESS/subscribe`
    Subscribe(ListAddress),
}

/// People with a say in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Owners, in `control/owner`.
    Owner,
    /// Moderators, in `control/moderators`.
    Moderator,
}

impl Role {
    /// The control file and the parameter that replaces everybody.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Moderator => "moderators",
        }
    }

    /// The names of the parameters: all, add, remove.
    pub(crate) fn parameters(self) -> [&'static str; 3] {
        match self {
            Self::Owner => ["owners", "add_owners", "remove_owners"],
            Self::Moderator => ["moderators", "add_moderators", "remove_moderators"],
        }
    }
}

/// Why a request is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoCall {
    /// No such path: 404.
    NotFound,
    /// The path exists, but not for this method: 405.
    MethodNotAllowed,
}

/// Finds the call for a decoded path and a method.
pub(crate) fn find(method: &Method, path: &str) -> Result<Call, NoCall> {
    let rest = path.strip_prefix("/api/").ok_or(NoCall::NotFound)?;
    if let Some(address) = rest.strip_prefix("subscriber/").and_then(|rest| rest.strip_suffix("/subscribed"))
        && is_address(address)
    {
        return allowed(method, &Method::GET, address, Call::Subscribed);
    }
    if let Some(address) = rest.strip_prefix("subscriber/").and_then(|rest| rest.strip_suffix("/subscribe"))
        && is_address(address)
    {
        return allowed(method, &Method::POST, address, Call::Subscribe);
    }
    for (suffix, role) in [("/owners", Role::Owner), ("/moderators", Role::Moderator)] {
        if let Some(list) = rest.strip_suffix(suffix).filter(|list| is_address(list)) {
            return match *method {
                Method::GET => parsed(list).map(|list| Call::People(list, role)),
                Method::PUT => parsed(list).map(|list| Call::ChangePeople(list, role)),
                _ => Err(NoCall::MethodNotAllowed),
            };
        }
    }
    if let Some(list) = rest.strip_suffix("/subscribers").filter(|list| is_address(list)) {
        return match *method {
            Method::GET => parsed(list).map(Call::Subscribers),
            Method::POST => parsed(list).map(Call::ChangeSubscribers),
            _ => Err(NoCall::MethodNotAllowed),
        };
    }
    if let Some((list, address)) = rest.split_once("/has_subscriber/")
        && is_address(list)
        && is_address(address)
    {
        let subscriber = parsed(address)?;
        return allowed(method, &Method::GET, list, |list| Call::HasSubscriber(list, subscriber));
    }
    if !is_address(rest) {
        return Err(NoCall::NotFound);
    }
    match *method {
        Method::GET => parsed(rest).map(Call::Read),
        Method::POST => parsed(rest).map(Call::Create),
        Method::PUT => parsed(rest).map(Call::Update),
        Method::DELETE => parsed(rest).map(Call::Delete),
        _ => Err(NoCall::MethodNotAllowed),
    }
}

fn parsed(address: &str) -> Result<ListAddress, NoCall> {
    ListAddress::parse(address).ok_or(NoCall::NotFound)
}

fn allowed(
    method: &Method,
    only: &Method,
    address: &str,
    call: impl FnOnce(ListAddress) -> Call,
) -> Result<Call, NoCall> {
    if method == only { parsed(address).map(call) } else { Err(NoCall::MethodNotAllowed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods() {
        let address = |text: &str| ListAddress::parse(text).unwrap();
        let list = || address("list@example.com");
        for (method, path, expected) in [
            ("GET", "/api/list@example.com", Ok(Call::Read(list()))),
            ("POST", "/api/LIST@Example.com", Ok(Call::Create(list()))),
            ("PUT", "/api/list@example.com/owners", Ok(Call::ChangePeople(list(), Role::Owner))),
            ("GET", "/api/list@example.com/moderators", Ok(Call::People(list(), Role::Moderator))),
            ("POST", "/api/list@example.com/subscribers", Ok(Call::ChangeSubscribers(list()))),
            (
                "GET",
                "/api/list@example.com/has_subscriber/U@x.example",
                Ok(Call::HasSubscriber(list(), address("u@x.example"))),
            ),
            ("GET", "/api/subscriber/u@x.example/subscribed", Ok(Call::Subscribed(address("u@x.example")))),
            ("POST", "/api/subscriber/u@x.example/subscribe", Ok(Call::Subscribe(address("u@x.example")))),
            ("GET", "/api/subscriber/u@x.example/subscribe", Err(NoCall::MethodNotAllowed)),
            ("PATCH", "/api/list@example.com", Err(NoCall::MethodNotAllowed)),
            ("POST", "/api/list@example.com/owners", Err(NoCall::MethodNotAllowed)),
            ("PUT", "/api/list@example.com/subscribers", Err(NoCall::MethodNotAllowed)),
            ("GET", "/", Err(NoCall::NotFound)),
            ("GET", "/api", Err(NoCall::NotFound)),
            ("GET", "/api/", Err(NoCall::NotFound)),
            ("GET", "/api/list", Err(NoCall::NotFound)),
            ("GET", "/api/list@example.com/", Err(NoCall::NotFound)),
            ("GET", "//api/list@example.com", Err(NoCall::NotFound)),
            ("GET", "/api/list@example.com/unknown", Err(NoCall::NotFound)),
            ("GET", "/api/../etc@example.com", Err(NoCall::NotFound)),
        ] {
            let method: Method = method.parse().unwrap();
            assert_eq!(find(&method, path), expected, "{method} {path}");
        }
    }
}
