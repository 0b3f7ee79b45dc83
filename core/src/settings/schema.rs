//! Which keys a settings type has, found by asking its `Deserialize` implementation.
//!
//! A structure tells a deserializer its name and the names of its fields, and then asks for their values. The prober
//! here walks that conversation key by key and never gives a value, so it sees keys whose default is "not set" too,
//! and it cannot get out of step with the type.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor,
};

use super::types::SECRET_NAME;

/// One key of a settings type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The sections and the name: `["log", "level"]`.
    pub path: Vec<String>,
    /// Whether it is a section with a fixed set of keys rather than a value.
    pub section: bool,
    /// Whether its value is a [`Secret`](super::Secret), which may be given as `<name>_file` too.
    pub secret: bool,
}

impl Key {
    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// The path joined by dots.
    pub fn dotted(&self) -> String {
        self.path.join(".")
    }
}

/// Deeper than any settings file; protects against a type that contains itself.
const DEEPEST: usize = 8;

/// All keys of `T` in the order of the structures, a section before its keys.
pub fn keys<T: DeserializeOwned>() -> Vec<Key> {
    let mut found = Vec::new();
    walk::<T>(&mut Vec::new(), &mut found);
    found
}

fn walk<T: DeserializeOwned>(path: &mut Vec<String>, found: &mut Vec<Key>) {
    for field in probe::<T>(path).fields.unwrap_or_default() {
        path.push((*field).to_owned());
        let seen = probe::<T>(path);
        let section = seen.fields.is_some() && path.len() < DEEPEST;
        found.push(Key { path: path.clone(), section, secret: seen.secret });
        if section {
            walk::<T>(path, found);
        }
        path.pop();
    }
}

fn probe<T: DeserializeOwned>(path: &[String]) -> Seen {
    let mut seen = Seen::default();
    // The answer is always an error: no value is ever given.
    let _ = T::deserialize(Prober { path, seen: &mut seen });
    seen
}

/// What stands at the end of a path.
#[derive(Default)]
struct Seen {
    fields: Option<&'static [&'static str]>,
    secret: bool,
}

#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("probe")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Stop {
        Stop
    }
}

/// Leads the conversation to `path` and notes the fields of the structure found there.
struct Prober<'a> {
    path: &'a [String],
    seen: &'a mut Seen,
}

impl<'de> Deserializer<'de> for Prober<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.path.split_first() {
            None => {
                self.seen.fields = Some(fields);
                Err(Stop)
            }
            Some((first, rest)) => {
                let value = Prober { path: rest, seen: self.seen };
                visitor.visit_map(OneKey { key: Some(first), value: Some(value), lifetime: PhantomData })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if name == SECRET_NAME && self.path.is_empty() {
            self.seen.secret = true;
            return Err(Stop);
        }
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A map with one key, whose value is probed.
struct OneKey<'a, 'p> {
    key: Option<&'a str>,
    value: Option<Prober<'p>>,
    lifetime: PhantomData<&'a ()>,
}

impl<'de> MapAccess<'de> for OneKey<'_, '_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        match self.key.take() {
            None => Ok(None),
            Some(key) => {
                let key: StrDeserializer<'_, Stop> = key.into_deserializer();
                seed.deserialize(key).map(Some)
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(self.value.take().ok_or(Stop)?)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::settings::{Interval, ListenAddress, Secret};

    #[derive(Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        listen: Vec<ListenAddress>,
        password: Option<Secret>,
        inner: Inner,
        maybe: Option<Inner>,
    }

    #[derive(Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        pause: Interval,
    }

    impl Default for Inner {
        fn default() -> Inner {
            Inner { pause: Interval::seconds(1) }
        }
    }

    #[test]
    fn finds_every_key_even_without_a_default() {
        let found: Vec<String> = keys::<Outer>()
            .iter()
            .map(|key| format!("{}{}", key.dotted(), if key.section { "/" } else { "" }))
            .collect();
        assert_eq!(found, ["listen", "password", "inner/", "inner.pause", "maybe/", "maybe.pause"]);
        let secrets: Vec<String> = keys::<Outer>().iter().filter(|key| key.secret).map(Key::dotted).collect();
        assert_eq!(secrets, ["password"]);
    }
}
