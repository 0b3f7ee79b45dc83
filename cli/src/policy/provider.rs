//! Lists that are offered to a new installation: domains of large mail providers, and reverse names of dial-up lines
//! and hosting customers.

/// Providers that send from many addresses and come again from another one, so that greylisting holds their mail up
/// for hours. Chosen by us; a server has its own correspondents beside them.
pub(crate) const DOMAINS: &[&str] = &[
    "aliyun.com",
    "amazon.com",
    "amazonses.com",
    "aol.com",
    "apple.com",
    "att.net",
    "booking.com",
    "comcast.net",
    "ebay.com",
    "facebook.com",
    "facebookmail.com",
    "fastmail.com",
    "free.fr",
    "github.com",
    "gmail.com",
    "gmx.net",
    "google.com",
    "hotmail.com",
    "icloud.com",
    "instagram.com",
    "linkedin.com",
    "live.com",
    "mail.ru",
    "mailchimp.com",
    "mailgun.org",
    "mandrillapp.com",
    "microsoft.com",
    "naver.com",
    "netflix.com",
    "orange.fr",
    "outlook.com",
    "paypal.com",
    "pinterest.com",
    "proton.me",
    "qq.com",
    "salesforce.com",
    "sendgrid.net",
    "t-online.de",
    "uber.com",
    "web.de",
    "x.com",
    "yahoo.com",
    "yandex.ru",
    "zendesk.com",
    "zoho.com",
];

/// Suffixes that iRedMail blacklists on a new server.
pub(crate) const REVERSE_NAMES: &[&str] = &[
    ".dynamic.163data.com.cn",
    ".cable.dyn.cableonline.com.mx",
    ".dyn.user.ono.com",
    ".static.skysever.com.br",
    ".castelecom.com.br",
    ".clients.your-server.de",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_domain_is_one_and_stands_once() {
        for pair in DOMAINS.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
        for domain in DOMAINS {
            assert_eq!(super::super::input::domain(domain).as_deref(), Some(*domain));
        }
    }
}
