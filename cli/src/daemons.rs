//! The five daemons by name, for the verbs that work on several of them.

use clap::ValueEnum;
use outrider_admin_api::AdminApi;
use outrider_contentfilter::ContentFilter;
use outrider_core::daemon::Daemon;
use outrider_policyd::Policyd;
use outrider_quota_status::QuotaStatus;
use outrider_srsd::Srsd;

/// A daemon, as it is called on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Policy service for Postfix (port 7777).
    Policyd,
    /// Sender rewriting (ports 7778 and 7779).
    Srsd,
    /// Content filter (ports 10024, 10026 and 10027).
    Contentfilter,
    /// Quota check at RCPT (port 12340).
    QuotaStatus,
    /// Lists and accounts over HTTP (ports 7790 and 7791).
    AdminApi,
}

/// Something to do with a daemon, whichever it is.
pub(crate) trait Visitor {
    /// What comes of it.
    type Output;

    /// Does it.
    fn visit<D: Daemon>(self) -> Self::Output;
}

impl Name {
    /// All of them, in the order of their ports.
    pub(crate) const ALL: [Name; 5] =
        [Name::Policyd, Name::Srsd, Name::Contentfilter, Name::QuotaStatus, Name::AdminApi];

    /// Does something with the daemon of this name.
    pub(crate) fn accept<V: Visitor>(self, visitor: V) -> V::Output {
        match self {
            Name::Policyd => visitor.visit::<Policyd>(),
            Name::Srsd => visitor.visit::<Srsd>(),
            Name::Contentfilter => visitor.visit::<ContentFilter>(),
            Name::QuotaStatus => visitor.visit::<QuotaStatus>(),
            Name::AdminApi => visitor.visit::<AdminApi>(),
        }
    }
}

/// `chosen`, or all daemons if none was chosen; each once, in the order of [`Name::ALL`].
pub(crate) fn selected(chosen: &[Name]) -> Vec<Name> {
    Name::ALL.into_iter().filter(|name| chosen.is_empty() || chosen.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_command_line_are_the_names_of_the_daemons() {
        struct TheirName;
        impl Visitor for TheirName {
            type Output = &'static str;
            fn visit<D: Daemon>(self) -> &'static str {
                D::NAME
            }
        }
        for name in Name::ALL {
            let spelled = name.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(spelled.as_deref(), Some(name.accept(TheirName)));
        }
    }

    #[test]
    fn nobody_chosen_means_everybody_and_each_counts_once() {
        assert_eq!(selected(&[]), Name::ALL);
        assert_eq!(selected(&[Name::Srsd, Name::Policyd, Name::Srsd]), [Name::Policyd, Name::Srsd]);
    }
}
