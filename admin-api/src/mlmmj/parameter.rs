//! The settings of a list: the name of each in the API and the control file that stands for it.

/// What a parameter is and how its control file is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The presence of the file means yes.
    Flag,
    /// The first line of the file.
    Line,
    /// A whole number of bytes on the first line.
    Size,
    /// One address a line, split at commas, sorted.
    Addresses,
    /// One address a line, split at commas, lower-cased, in the order given.
    Moderators,
    /// `submod`: its presence switches moderation on, its lines name who moderates.
    SubscriptionModerators,
    /// Header lines added to each post; the default ones are always among them.
    CustomHeaders,
    /// Names of header fields taken out of each post.
    RemoveHeaders,
    /// Further addresses of the list; the file also holds the primary one, first.
    ExtraAddresses,
    /// The whole file.
    Text,
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    /// Its name in requests and answers.
    pub(crate) name: &'static str,
    /// Its file below `control/`.
    pub(crate) file: &'static str,
    /// Its form.
    pub(crate) kind: Kind,
}

const fn parameter(name: &'static str, file: &'static str, kind: Kind) -> Parameter {
    Parameter { name, file, kind }
}

/// All parameters, in the order in which an update applies them.
pub(crate) const PARAMETERS: &[Parameter] = &[
    parameter("close_list", "closedlist", Kind::Flag),
    parameter("only_moderator_can_post", "modonlypost", Kind::Flag),
    parameter("only_subscriber_can_post", "subonlypost", Kind::Flag),
    parameter("disable_subscription", "closedlistsub", Kind::Flag),
    parameter("disable_subscription_confirm", "nosubconfirm", Kind::Flag),
    parameter("disable_digest_subscription", "nodigestsub", Kind::Flag),
    parameter("disable_digest_text", "nodigesttext", Kind::Flag),
    parameter("disable_nomail_subscription", "nonomailsub", Kind::Flag),
    parameter("if_mod_send_only_mod_moderate", "ifmodsendonlymodmoderate", Kind::Flag),
    parameter("moderated", "moderated", Kind::Flag),
    parameter("moderate_non_subscriber_post", "modnonsubposts", Kind::Flag),
    parameter("disable_retrieving_old_posts", "noget", Kind::Flag),
    parameter("only_subscriber_can_get_old_posts", "subonlyget", Kind::Flag),
    parameter("disable_retrieving_subscribers", "nolistsubsemail", Kind::Flag),
    parameter("notify_sender_when_moderated", "notifymod", Kind::Flag),
    parameter("notify_owner_when_sub_unsub", "notifysub", Kind::Flag),
    parameter("disable_send_copy_to_sender", "notmetoo", Kind::Flag),
    parameter("disable_notify_subscription_moderated", "nosubmodmails", Kind::Flag),
    parameter("disable_notify_when_missing_listaddress", "notoccdenymails", Kind::Flag),
    parameter("disable_notify_when_access_denied", "noaccessdenymails", Kind::Flag),
    parameter("disable_notify_when_subscriber_only", "nosubonlydenymails", Kind::Flag),
    parameter("disable_notify_when_moderator_only", "nomodonlydenymails", Kind::Flag),
    parameter("disable_notify_when_exceeding_max_mail_size", "nomaxmailsizedenymails", Kind::Flag),
    parameter("disable_archive", "noarchive", Kind::Flag),
    parameter("tocc", "tocc", Kind::Flag),
    parameter("reply_to_sender", "replyto", Kind::Flag),
    parameter("enable_newsletter_subscription", "enable_newsletter_subscription", Kind::Flag),
    parameter("max_message_size", "maxmailsize", Kind::Size),
    parameter("subject_prefix", "prefix", Kind::Line),
    parameter("relay_host", "relayhost", Kind::Line),
    parameter("smtp_helo", "smtphelo", Kind::Line),
    parameter("smtp_port", "smtpport", Kind::Line),
    parameter("name", "name", Kind::Line),
    parameter("owner", "owner", Kind::Addresses),
    parameter("owners", "owner", Kind::Addresses),
    parameter("moderators", "moderators", Kind::Moderators),
    parameter("moderate_subscription", "submod", Kind::Flag),
    parameter("subscription_moderators", "submod", Kind::SubscriptionModerators),
    parameter("custom_headers", "customheaders", Kind::CustomHeaders),
    parameter("remove_headers", "delheaders", Kind::RemoveHeaders),
    parameter("extra_addresses", "listaddress", Kind::ExtraAddresses),
    parameter("footer_text", "footer_text", Kind::Text),
    parameter("footer_html", "footer_html", Kind::Text),
];

/// The parameters that `names` selects: lower-cased, blanks ignored, unknown ones left out. If nothing is left,
/// all of them.
pub(crate) fn select(names: Option<&str>) -> Vec<Parameter> {
    let wanted: Vec<String> = names
        .unwrap_or("")
        .split(',')
        .map(|name| name.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase())
        .collect();
    let selected: Vec<Parameter> =
        PARAMETERS.iter().filter(|p| wanted.iter().any(|name| name == p.name)).copied().collect();
    if selected.is_empty() { PARAMETERS.to_vec() } else { selected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_ignores_case_blanks_and_unknown_names() {
        for (names, expected) in
            [(Some(" Name , bogus,close_list"), vec!["close_list", "name"]), (Some("owners"), vec!["owners"])]
        {
            let names: Vec<&str> = select(names).iter().map(|p| p.name).collect();
            assert_eq!(names, expected);
        }
        for names in [None, Some(""), Some("bogus")] {
            assert_eq!(select(names).len(), PARAMETERS.len(), "{names:?}");
        }
    }
}
