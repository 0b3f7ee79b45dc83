//! Documentation of settings, written once as doc comments in [`settings!`](crate::settings!).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::marker::PhantomData;

use super::{DaemonSettings, keys};

/// What a section is for and what its keys mean.
#[derive(Clone, Debug, Default)]
pub struct SectionDoc {
    /// The doc comment of the structure, line by line.
    pub lines: &'static [&'static str],
    /// Its keys in the order of the structure.
    pub fields: Vec<FieldDoc>,
}

/// What one key means.
#[derive(Clone, Debug)]
pub struct FieldDoc {
    /// The key within its section.
    pub key: &'static str,
    /// The doc comment of the field, line by line.
    pub lines: &'static [&'static str],
    /// The keys below it if it is a section.
    pub section: Option<SectionDoc>,
}

/// A settings structure that knows the meaning of its keys.
pub trait Documented {
    /// The documentation of the section.
    fn document() -> SectionDoc;
}

impl<T: Documented> Documented for Option<T> {
    fn document() -> SectionDoc {
        T::document()
    }
}

impl<T: Documented> Documented for Vec<T> {
    fn document() -> SectionDoc {
        T::document()
    }
}

impl<K, T: Documented> Documented for BTreeMap<K, T> {
    fn document() -> SectionDoc {
        T::document()
    }
}

/// Asks a type whether it is [`Documented`], which the macro cannot know: method look-up finds [`ViaSection`] first
/// where it applies and [`ViaLeaf`] everywhere else.
#[derive(Debug)]
pub struct Probe<T>(PhantomData<T>);

impl<T> Probe<T> {
    /// A probe of the type.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Probe<T> {
        Probe(PhantomData)
    }
}

/// The answer for a type that is [`Documented`].
pub trait ViaSection {
    /// The documentation of the section.
    fn section(&self) -> Option<SectionDoc>;
}

impl<T: Documented> ViaSection for Probe<T> {
    fn section(&self) -> Option<SectionDoc> {
        Some(T::document())
    }
}

/// The answer for a plain value.
pub trait ViaLeaf {
    /// Nothing.
    fn section(&self) -> Option<SectionDoc> {
        None
    }
}

impl<T> ViaLeaf for &Probe<T> {}

/// Declares a settings structure: fields, types, defaults and documentation in one place.
///
/// ```
/// outrider_core::settings! {
///     /// How answers are throttled.
///     pub struct ThrottleSettings {
///         /// Messages a sender may send within `period`.
///         pub messages: u32 = 100,
///         /// The window in which messages are counted.
///         pub period: outrider_core::settings::Interval = outrider_core::settings::Interval::seconds(60),
///     }
/// }
/// assert_eq!(ThrottleSettings::default().messages, 100);
/// ```
///
/// It derives `Clone`, `Debug`, `Serialize` and `Deserialize` (the crate needs `serde`), writes
/// `#[serde(default, deny_unknown_fields)]`, `Default` and [`Documented`]. A field may carry `#[serde(...)]`, for
/// example `#[serde(skip_serializing_if = "Option::is_none")]`. Sections nest: a field of another such type becomes
/// a section. The first doc line of a field should say everything that an administrator needs to choose a value.
#[macro_export]
macro_rules! settings {
    (
        $(#[$($about:tt)*])*
        $visible:vis struct $name:ident {
            $($(#[$($attribute:tt)*])* $field_visible:vis $field:ident : $type:ty = $default:expr),* $(,)?
        }
    ) => {
        $(#[$($about)*])*
        // A section needs no words of its own: its structure has them.
        #[allow(missing_docs)]
        #[derive(Clone, Debug, ::serde::Serialize, ::serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        $visible struct $name {
            $($(#[$($attribute)*])* $field_visible $field: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }

        impl $crate::settings::Documented for $name {
            fn document() -> $crate::settings::SectionDoc {
                #[allow(unused_imports)]
                use $crate::settings::{ViaLeaf as _, ViaSection as _};
                $crate::settings::SectionDoc {
                    lines: &[$($crate::settings_doc_line!($($about)*)),*],
                    fields: vec![$($crate::settings::FieldDoc {
                        key: stringify!($field),
                        lines: &[$($crate::settings_doc_line!($($attribute)*)),*],
                        section: (&$crate::settings::Probe::<$type>::new()).section(),
                    }),*],
                }
            }
        }
    };
}

/// The text of a doc attribute; nothing for another attribute. Part of [`settings!`](crate::settings!).
#[doc(hidden)]
#[macro_export]
macro_rules! settings_doc_line {
    (doc = $text:literal) => {
        $text
    };
    ($($other:tt)*) => {
        ""
    };
}

/// The reference of all settings as a TOML file in which everything is commented out: what `--config-docs` prints
/// and what packages install.
pub fn reference<T: DaemonSettings>(name: &str) -> String {
    let defaults = toml::Table::try_from(T::default()).unwrap_or_default();
    let mut out = format!(
        "# Settings of {name}. Every value shown is the default; an empty file is valid.\n\
         # A value below a [section] needs the line of the section uncommented as well.\n\
         # Later files in {name}.d/*.toml beside this one and variables such as\n\
         # {}LOG_LEVEL in the environment replace what stands here.\n",
        super::load::environment_prefix(name)
    );
    let tree = keys::<T>();
    let docs = T::describe();
    write_section(&mut out, &tree, &[], &defaults, &docs);
    out
}

/// Writes the plain keys of a section, then its sub-sections: TOML wants them in this order.
fn write_section(
    out: &mut String,
    all: &[super::Key],
    path: &[String],
    defaults: &toml::Table,
    docs: &SectionDoc,
) {
    let here = || all.iter().filter(|key| key.path.len() == path.len() + 1 && key.path.starts_with(path));
    for key in here().filter(|key| !key.section) {
        let name = key.name();
        out.push('\n');
        let doc = docs.fields.iter().find(|field| field.key == name);
        write_comment(out, doc.map_or(&[], |doc| doc.lines));
        match defaults.get(name) {
            Some(value) => {
                let _ = writeln!(out, "#{name} = {value}");
            }
            None => {
                let _ = writeln!(out, "#{name} =    # not set");
            }
        }
    }
    for key in here().filter(|key| key.section) {
        let name = key.name();
        let doc = docs.fields.iter().find(|field| field.key == name);
        let below = doc.and_then(|doc| doc.section.clone()).unwrap_or_default();
        out.push('\n');
        write_comment(
            out,
            doc.map_or(below.lines, |doc| if doc.lines.is_empty() { below.lines } else { doc.lines }),
        );
        let _ = writeln!(out, "#[{}]", key.path.join("."));
        let empty = toml::Table::new();
        let values = defaults.get(name).and_then(toml::Value::as_table).unwrap_or(&empty);
        write_section(out, all, &key.path, values, &below);
    }
}

fn write_comment(out: &mut String, lines: &[&str]) {
    // Attributes other than doc comments leave empty lines behind.
    let written = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    let lines = &lines[..written];
    for line in lines {
        let line = line.trim();
        if line.is_empty() {
            out.push_str("#\n");
        } else {
            let _ = writeln!(out, "# {line}");
        }
    }
}

/// The dotted keys that have no documentation. A daemon's test wants this list empty.
pub fn undocumented<T: DaemonSettings>() -> Vec<String> {
    let docs = T::describe();
    keys::<T>()
        .into_iter()
        .filter(|key| {
            let mut section = Some(&docs);
            let mut found = None;
            for part in &key.path {
                found = section.and_then(|section| section.fields.iter().find(|field| field.key == part));
                section = found.and_then(|field| field.section.as_ref());
            }
            found.is_none_or(|field| {
                field.lines.iter().all(|line| line.trim().is_empty())
                    && field.section.as_ref().is_none_or(|section| section.lines.is_empty())
            })
        })
        .map(|key| key.dotted())
        .collect()
}
