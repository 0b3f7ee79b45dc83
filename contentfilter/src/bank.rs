//! Policy banks: what differs between the ports and between clients.
//!
//! The bank of the listener comes first, then that of the client's address (contentfilter sections 1 and 2.3). The
//! names joined with `/` are the path that logs show.

use crate::hop::NextHop;
use crate::settings::{BankSettings, Settings};
use std::net::IpAddr;

/// Role of the listener for mail from outside.
pub const INBOUND: &str = "inbound";
/// Role of the listener for mail of own users.
pub const ORIGINATING: &str = "originating";
/// Role of the listener for posts of mailing lists.
pub const LISTS: &str = "lists";

/// The settings in force for a connection or a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bank {
    /// Names of the banks loaded, joined with `/`; empty for none.
    pub path: String,
    /// Mail comes from own users or machines.
    pub originating: bool,
    /// Sign with DKIM.
    pub sign: bool,
    /// Verify DKIM.
    pub verify: bool,
    /// Next hop.
    pub forward: NextHop,
    /// EHLO keywords that are not announced, upper case.
    pub discard: Vec<String>,
    /// The mail counts as scanned for viruses.
    pub virus_checks: bool,
}

impl Bank {
    /// The bank of a listener.
    pub fn of_listener(settings: &Settings, role: &str) -> Bank {
        let mut bank = Bank {
            path: String::new(),
            originating: false,
            sign: false,
            verify: true,
            forward: settings.forward_method.clone(),
            discard: Vec::new(),
            virus_checks: true,
        };
        match role {
            ORIGINATING => bank.load(settings, "ORIGINATING"),
            LISTS => bank.load(settings, "MLMMJ"),
            _ => {}
        }
        bank
    }

    /// Adds the bank of the first client's address. Without an address none is loaded.
    pub fn for_client(mut self, settings: &Settings, address: Option<IpAddr>) -> Bank {
        let Some(address) = address.map(|address| address.to_canonical()) else { return self };
        if settings.client_ipaddr_policy.is_empty() {
            if settings.mynetworks.iter().any(|network| network.contains(&address)) {
                self.load(settings, "MYNETS");
            }
            return self;
        }
        let holds = |networks: &[ipnet::IpNet]| networks.iter().any(|network| network.contains(&address));
        if let Some(entry) = settings.client_ipaddr_policy.iter().find(|entry| holds(&entry.networks)) {
            self.load(settings, &entry.bank);
        }
        self
    }

    fn load(&mut self, settings: &Settings, name: &str) {
        if !self.path.is_empty() {
            self.path.push('/');
        }
        self.path.push_str(name);
        if let Some(built_in) = built_in(name) {
            self.apply(&built_in);
        }
        if let Some(own) = settings.policy_bank.get(name) {
            self.apply(own);
        }
    }

    fn apply(&mut self, changes: &BankSettings) {
        let set = |value: &mut bool, change: Option<bool>| *value = change.unwrap_or(*value);
        set(&mut self.originating, changes.originating);
        set(&mut self.sign, changes.enable_dkim_signing);
        set(&mut self.verify, changes.enable_dkim_verification);
        if let Some(bypass) = changes.bypass_virus_checks {
            self.virus_checks = !bypass;
        }
        if let Some(hop) = &changes.forward_method {
            self.forward = hop.clone();
        }
        if let Some(keywords) = &changes.smtpd_discard_ehlo_keywords {
            self.discard = keywords.iter().map(|keyword| keyword.to_ascii_uppercase()).collect();
        }
    }

    /// Whether an EHLO keyword is announced. Without 8BITMIME there is no SMTPUTF8 either.
    pub fn announces(&self, keyword: &str) -> bool {
        let dropped = |keyword: &str| self.discard.iter().any(|discarded| discarded == keyword);
        !(dropped(keyword) || keyword == "SMTPUTF8" && dropped("8BITMIME"))
    }
}

/// The banks of iRedMail.
fn built_in(name: &str) -> Option<BankSettings> {
    let own_mail = BankSettings {
        originating: Some(true),
        enable_dkim_signing: Some(true),
        enable_dkim_verification: Some(false),
        ..BankSettings::default()
    };
    // Postfix converts to 7-bit when 8BITMIME is missing, so that nothing has to be converted after we signed.
    let seven_bit = Some(vec!["8BITMIME".to_owned()]);
    match name {
        "MYNETS" => Some(own_mail),
        "ORIGINATING" => Some(BankSettings { smtpd_discard_ehlo_keywords: seven_bit, ..own_mail }),
        "MLMMJ" => Some(BankSettings {
            smtpd_discard_ehlo_keywords: seven_bit,
            forward_method: Some(NextHop::local(10028)),
            bypass_virus_checks: Some(true),
            ..own_mail
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ClientBank;

    #[test]
    fn paths_and_effects() {
        let settings = Settings::default();
        let local: IpAddr = "127.0.0.1".parse().expect("an address");
        let outside: IpAddr = "192.0.2.1".parse().expect("an address");
        let table = [
            (INBOUND, Some(outside), "", false, false, true, "smtp:[127.0.0.1]:10025"),
            (INBOUND, Some(local), "MYNETS", true, true, false, "smtp:[127.0.0.1]:10025"),
            (INBOUND, None, "", false, false, true, "smtp:[127.0.0.1]:10025"),
            (ORIGINATING, Some(outside), "ORIGINATING", true, true, false, "smtp:[127.0.0.1]:10025"),
            (ORIGINATING, Some(local), "ORIGINATING/MYNETS", true, true, false, "smtp:[127.0.0.1]:10025"),
            (LISTS, Some(local), "MLMMJ/MYNETS", true, true, false, "smtp:[127.0.0.1]:10028"),
        ];
        for (role, client, path, originating, sign, verify, hop) in table {
            let bank = Bank::of_listener(&settings, role).for_client(&settings, client);
            let got =
                (bank.path.as_str(), bank.originating, bank.sign, bank.verify, bank.forward.to_string());
            assert_eq!(got, (path, originating, sign, verify, hop.to_owned()), "{role} {client:?}");
        }
    }

    #[test]
    fn own_banks_change_built_in_ones() {
        let mut settings = Settings::default();
        let no_signing = BankSettings { enable_dkim_signing: Some(false), ..BankSettings::default() };
        settings.policy_bank.insert("ORIGINATING".to_owned(), no_signing);
        let networks = vec!["198.51.100.0/24".parse().expect("a network")];
        settings.client_ipaddr_policy.push(ClientBank { networks, bank: "PARTNER".to_owned() });
        let bank = Bank::of_listener(&settings, ORIGINATING);
        assert!(bank.originating && !bank.sign && !bank.announces("8BITMIME") && !bank.announces("SMTPUTF8"));
        let partner = "198.51.100.200".parse().ok();
        assert_eq!(Bank::of_listener(&settings, INBOUND).for_client(&settings, partner).path, "PARTNER");
        // The default entry for mynetworks is gone once there are own ones, as in Amavisd.
        let local = "127.0.0.1".parse().ok();
        assert_eq!(Bank::of_listener(&settings, INBOUND).for_client(&settings, local).path, "");
    }
}
