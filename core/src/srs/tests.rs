use super::*;
use proptest::prelude::*;

const NOW: i64 = 1_742_040_000;

fn engine(change: impl FnOnce(&mut Options)) -> Srs {
    let mut options = Options { domain: "srs.example.net".into(), ..Options::default() };
    change(&mut options);
    Srs::new(options, Secrets::new(["secretOne", "secretOld"]))
}

fn forward(srs: &Srs, address: &str) -> String {
    let sender = Sender::parse(address, AddressCheck::Rfc5321).expect(address);
    srs.forward(&sender, NOW).expect(address)
}

/// Addresses as Mail::SRS, libsrs2 and iRedAPD make them with these secrets at this time.
#[test]
fn first_and_later_hops() {
    let srs = engine(|_| ());
    let table = [
        ("user@gmail.com", "SRS0=lnpB=WC=gmail.com=user"),
        ("User.Name@Gmail.COM", "SRS0=RyXf=WC=Gmail.COM=User.Name"),
        ("prvs=2345abcdef=user@example.org", "SRS0=HBZx=WC=example.org=prvs=2345abcdef=user"),
        ("user@example.org.", "SRS0=2Vtx=WC=example.org.=user"),
        ("\u{fc}ser@example.org", "SRS0=TCmz=WC=example.org=\u{fc}ser"),
        ("SRS0foo@first.example", "SRS0=Q9dC=WC=first.example=SRS0foo"),
        ("SRS2=foo@first.example", "SRS0=Lyns=WC=first.example=SRS2=foo"),
        ("xSRS0=foo@first.example", "SRS0=tRoh=WC=first.example=xSRS0=foo"),
        (
            "SRS0=abcd=WC=orig.example=alice@first.example",
            "SRS1=s7zl=first.example==abcd=WC=orig.example=alice",
        ),
        (
            "SRS0+abcd=WC=orig.example=alice@first.example",
            "SRS1=l9J1=first.example=+abcd=WC=orig.example=alice",
        ),
        (
            "srs0=abcd=wc=orig.example=alice@first.example",
            "SRS1=s7zl=first.example==abcd=wc=orig.example=alice",
        ),
        ("SRS0=@first.example", "SRS1=VGCl=first.example=="),
        (
            "SRS1=wxyz=first.example==abcd=WC=orig.example=alice@second.example",
            "SRS1=s7zl=first.example==abcd=WC=orig.example=alice",
        ),
        (
            "SRS1+wxyz=first.example=+abcd=WC=orig.example=alice@second.example",
            "SRS1=l9J1=first.example=+abcd=WC=orig.example=alice",
        ),
        // Malformed SRS1 addresses are wrapped like any other, as iRedAPD does.
        ("SRS1=xx=first.example@second.example", "SRS0=Nkvt=WC=second.example=SRS1=xx=first.example"),
        (
            "SRS1=wxyz=first.example=noseparator@second.example",
            "SRS0=uIgo=WC=second.example=SRS1=wxyz=first.example=noseparator",
        ),
        ("SRS1=@second.example", "SRS0=NGW1=WC=second.example=SRS1="),
    ];
    for (address, local) in table {
        assert_eq!(forward(&srs, address), format!("{local}@srs.example.net"));
    }
}

#[test]
fn separators_lengths_and_alphabets() {
    let plus = engine(|o| (o.separator, o.hash_length) = (Separator::Plus, 8));
    assert_eq!(forward(&plus, "user@gmail.com"), "SRS0+lnpBdt1I=WC=gmail.com=user@srs.example.net");
    let dash = engine(|o| o.separator = Separator::Dash);
    assert_eq!(
        forward(&dash, "SRS0=abcd=WC=orig.example=alice@first.example"),
        "SRS1-s7zl=first.example==abcd=WC=orig.example=alice@srs.example.net"
    );
    let url = engine(|o| o.alphabet = Alphabet::UrlSafe);
    assert_eq!(forward(&url, "u10@example.org"), "SRS0=aZ-0=WC=example.org=u10@srs.example.net");
    assert_eq!(forward(&engine(|_| ()), "u10@example.org"), "SRS0=aZ+0=WC=example.org=u10@srs.example.net");
}

#[test]
fn forward_refusals() {
    let sender = Sender::parse("user@gmail.com", AddressCheck::Rfc5321).unwrap();
    let none = Srs::new(Options::default(), Secrets::default());
    assert_eq!(none.forward(&sender, NOW), Err(ForwardError::NoSecret));
    // SRS0=lnpB=WC=gmail.com=user has 27 characters.
    assert_eq!(engine(|o| o.max_local_part = 26).forward(&sender, NOW), Err(ForwardError::TooLong));
    assert!(engine(|o| o.max_local_part = 27).forward(&sender, NOW).is_ok());
}

#[test]
fn reversing() {
    use ReverseError::*;
    let ok = |address: &str| Ok(address.to_owned());
    let table = [
        ("SRS0=lnpB=WC=gmail.com=user", ok("user@gmail.com")),
        ("SRS0+lnpB=WC=gmail.com=user", ok("user@gmail.com")),
        ("SRS0-lnpB=WC=gmail.com=user", ok("user@gmail.com")),
        ("SRS0=LNPB=WC=GMAIL.COM=USER", ok("USER@GMAIL.COM")),
        ("srs0=lnpb=wc=gmail.com=user", ok("user@gmail.com")),
        ("SRS0=O7sc=WC=gmail.com=user", ok("user@gmail.com")),
        ("SRS0=HBZx=WC=example.org=prvs=2345abcdef=user", ok("prvs=2345abcdef=user@example.org")),
        ("SRS0=lnpBdt1IyqjtySs37H8rsEyPgs8=WC=gmail.com=user", ok("user@gmail.com")),
        ("SRS0=/xq7=WB=gmail.com=user", ok("user@gmail.com")),
        ("SRS0=syqs=VN=gmail.com=user", ok("user@gmail.com")),
        ("SRS0=V+ml=VM=gmail.com=user", Err(Expired)),
        ("SRS0=VZo/=WD=gmail.com=user", Err(Expired)),
        ("SRS0=e9pN=AWC=gmail.com=user", Err(Expired)),
        ("SRS0=WefC=W=gmail.com=user", Err(Expired)),
        ("SRS0=lnpB==gmail.com=user", Err(Expired)),
        ("SRS0=fjVh=W8=gmail.com=user", Err(BadTimestamp)),
        ("SRS0=lnpC=WC=gmail.com=user", Err(HashInvalid)),
        ("SRS0=lnpBzzzz=WC=gmail.com=user", Err(HashInvalid)),
        ("SRS0=lnpB=WC=gmail.org=user", Err(HashInvalid)),
        ("SRS0=lnpB=WC=gmail.com=root", Err(HashInvalid)),
        ("SRS0=lnpB=WC==user", Err(HashInvalid)),
        ("SRS0=lnp=WC=gmail.com=user", Err(HashTooShort)),
        ("SRS0==WC=gmail.com=user", Err(HashTooShort)),
        ("SRS0=lnpB=WC=gmail.com", Err(NoUser(0))),
        ("SRS0=lnpB=WC", Err(NoHost(0))),
        ("SRS0=lnpB", Err(NoTimestamp)),
        ("SRS0=", Err(NoHash(0))),
        ("SRS0", Err(NotSrs)),
        ("user", Err(NotSrs)),
        (
            "SRS1=s7zl=first.example==abcd=WC=orig.example=alice",
            ok("SRS0=abcd=WC=orig.example=alice@first.example"),
        ),
        (
            "SRS1++O4j=first.example=-abcd=WC=orig.example=alice",
            ok("SRS0-abcd=WC=orig.example=alice@first.example"),
        ),
        (
            "SRS1=R9Mo=first.example==abcd=AA=orig.example=alice",
            ok("SRS0=abcd=AA=orig.example=alice@first.example"),
        ),
        ("SRS1=s7zl=evil.example==abcd=WC=orig.example=alice", Err(HashInvalid)),
        ("SRS1=s7z=first.example==abcd=WC=orig.example=alice", Err(HashTooShort)),
        ("SRS1=Sc62=first.example=noseparator", Err(NotSrs)),
        ("SRS1=abcd=first.example", Err(NoUser(1))),
        ("SRS1=abcd", Err(NoHost(1))),
        ("SRS1=", Err(NoHash(1))),
    ];
    let srs = engine(|_| ());
    for (local, expected) in table {
        for domain in ["srs.example.net", "foreign.example"] {
            let got = srs.reverse(&format!("{local}@{domain}"), NOW).map(|r| r.address);
            assert_eq!(got, expected, "{local}");
        }
    }
    assert!(srs.reverse("SRS1=s7zl=first.example==abcd=WC=orig.example=alice@x", NOW).unwrap().srs1);
    assert_eq!(srs.reverse("", NOW), Err(NotSrs));
    assert_eq!(srs.reverse("@", NOW), Err(NotSrs));
}

#[test]
fn nobody_reverses_without_a_secret() {
    let none = Srs::new(Options::default(), Secrets::new([""]));
    let got = none.reverse("SRS0=lnpB=WC=gmail.com=user@srs.example.net", NOW);
    assert_eq!(got, Err(ReverseError::NoSecret));
}

#[test]
fn only_own_domain() {
    let srs = engine(|o| o.only_own_domain = true);
    assert!(srs.reverse("SRS0=lnpB=WC=gmail.com=user@SRS.example.net.", NOW).is_ok());
    let foreign = srs.reverse("SRS0=lnpB=WC=gmail.com=user@foreign.example", NOW);
    assert_eq!(foreign, Err(ReverseError::NotSrs));
}

#[test]
fn what_is_an_srs_address() {
    for address in ["SRS0=h=t=host=local@x", "srs1+h=host=-x@x", "SRS0=h=t=host=local"] {
        assert!(is_srs_address(address), "{address}");
    }
    for address in
        ["user@x", "SRS0==t=host=local@x", "SRS0=h=t==local@x", "SRS1=h=host=x@x", "SRS1=h=host=@x"]
    {
        assert!(!is_srs_address(address), "{address}");
    }
}

proptest! {
    #[test]
    fn reverse_undoes_forward(
        local in "[A-Za-z0-9.=+_'-]{1,30}",
        domain in "[A-Za-z0-9]{1,10}(\\.[A-Za-z0-9-]{1,10}){1,3}\\.?",
        days in 0i64..22,
        separator in prop_oneof![Just(Separator::Equals), Just(Separator::Plus), Just(Separator::Dash)],
        url in any::<bool>(),
        length in 4usize..28,
    ) {
        let srs = engine(|o| {
            (o.separator, o.hash_length) = (separator, length);
            o.alphabet = if url { Alphabet::UrlSafe } else { Alphabet::Standard };
        });
        let address = format!("{local}@{domain}");
        let rewritten = forward(&srs, &address);
        prop_assume!(!rewritten.starts_with("SRS1"));
        let reversed = srs.reverse(&rewritten, NOW + days * 86_400).unwrap();
        prop_assert_eq!(reversed.address, address);
        prop_assert!(srs.reverse(&rewritten, NOW + 22 * 86_400).is_err());
    }

    #[test]
    fn a_second_hop_leads_back_to_the_first(local in "[a-z0-9=+-]{1,20}", tag in "[Ss][Rr][Ss]0[=+-]") {
        let srs = engine(|_| ());
        let first = format!("{tag}{local}@first.example");
        let second = forward(&srs, &first);
        let third = forward(&srs, &second.replace("srs.example.net", "second.example"));
        prop_assert_eq!(&second, &third);
        let back = srs.reverse(&second, NOW + 5000 * 86_400).unwrap();
        prop_assert!(back.srs1);
        prop_assert!(back.address.eq_ignore_ascii_case(&first));
    }

    #[test]
    fn any_text_gets_an_answer(address in any::<String>(), now in any::<i64>()) {
        let srs = engine(|_| ());
        let _ = srs.reverse(&address, now);
        if let Ok(sender) = Sender::parse(&address, AddressCheck::Rfc5321) {
            prop_assert!(srs.forward(&sender, now).is_ok());
        }
        let forged = format!("SRS0={address}");
        prop_assert!(srs.reverse(&forged, now).is_err());
    }
}
