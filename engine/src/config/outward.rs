//! `[delivery.tls]` and `[route.tls]`: what the relay demands of its peers' TLS; `[mta_sts]`: how it asks what they
//! demand; `[route.login]`: who it is to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::document::{At, Section};
use super::read::{certificate_pair, path};
use super::types::{Login, MtaSts, OutwardTls, PeerName, Route, Target, TlsReport, TlsRule, TlsVersion};
use super::value::{self, Wrong};
use crate::tls::files;

/// A longer one would not fit into a line of AUTH.
const PASSWORD_OCTETS_MAX: usize = 1_024;

/// What the section does not say is as in `general`. `mx`: the route looks its hosts up.
pub(super) fn tls(mut section: Section<'_>, general: &OutwardTls, mx: bool) -> OutwardTls {
    let rules = [
        ("none", TlsRule::None),
        ("may", TlsRule::May),
        ("encrypt", TlsRule::Encrypt),
        ("dane", TlsRule::Dane),
        ("dane-only", TlsRule::DaneOnly),
        ("verify", TlsRule::Verify),
        ("fingerprint", TlsRule::Fingerprint),
    ];
    let rule = section.choice("policy", &rules);
    let names = section.list("names", peer_name);
    let fingerprints = section.list("fingerprints", fingerprint);
    let implicit = section.flag("implicit");
    let dane = section.flag("dane").map(|at| at.value);
    let mta_sts = section.flag("mta_sts");
    let tls = OutwardTls {
        rule: rule.as_ref().map_or(general.rule, |at| at.value),
        authorities: authorities(&mut section, general.authorities.clone()),
        minimum: section
            .choice("minimum", &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)])
            .map_or(general.minimum, |at| at.value),
        implicit: implicit.as_ref().map_or(general.implicit, |at| at.value),
        certificate: certificate_pair(&mut section).or_else(|| general.certificate.clone()),
        names: values(names, &general.names),
        fingerprints: values(fingerprints, &general.fingerprints),
        dane: dane.unwrap_or(general.dane),
        mta_sts: mta_sts.as_ref().map_or(general.mta_sts, |at| at.value),
    };
    // [delivery.tls] may well say it for routes that can, beside others that cannot.
    if let Some(asked) = mta_sts.filter(|at| at.value)
        && section.key("mta_sts").starts_with("route.")
    {
        match tls.rule {
            _ if !mx => section.fault(
                asked.line,
                "mta_sts",
                "stands beside hosts, which no domain's policy is about; allowed: with mx = true",
            ),
            TlsRule::None | TlsRule::Fingerprint => section.fault(
                asked.line,
                "mta_sts",
                "stands beside policy = \"none\" or \"fingerprint\", which no domain's policy changes; allowed: with \"may\", \"encrypt\", \"dane\" or \"dane-only\"",
            ),
            _ => {}
        }
    }
    if let Some(implicit) = implicit.filter(|at| at.value)
        && tls.rule == TlsRule::None
    {
        section.fault(implicit.line, "implicit", "stands beside policy = \"none\"; allowed: another policy");
    }
    section.refuse_empty("names");
    section.refuse_empty("fingerprints");
    if let Some(rule) = rule {
        demands(&section, &rule, &tls, mx);
    }
    section.finish();
    tls
}

/// What a rule cannot do without.
fn demands(section: &Section<'_>, rule: &At<TlsRule>, tls: &OutwardTls, mx: bool) {
    match rule.value {
        TlsRule::Verify if mx && !section.has("names") => section.fault(
            rule.line,
            "names",
            "is missing: with mx = true a forged DNS answer could name any host; allowed: names of the peer's certificate, [\"mx.partner.example\"], \"@domain\" for the recipient's domain, or \"@host\" to trust the DNS",
        ),
        TlsRule::Verify if tls.authorities.is_none() => section.fault(
            rule.line,
            "authorities",
            "is missing, and this host has no authorities of its own; allowed: the PEM file of the authorities that issue the peers' certificates",
        ),
        TlsRule::Dane | TlsRule::DaneOnly if !tls.dane => {
            section.fault(rule.line, "dane", "is false beside policy = \"dane\" or \"dane-only\"; allowed: true")
        }
        TlsRule::Fingerprint if tls.fingerprints.is_empty() => section.fault(
            rule.line,
            "fingerprints",
            "is missing; allowed: a list of SHA-256 fingerprints, as openssl x509 -noout -fingerprint -sha256 prints them",
        ),
        _ => {}
    }
}

/// `[mta_sts]`.
pub(super) fn mta_sts(mut section: Section<'_>) -> MtaSts {
    let absent = MtaSts::default();
    let port = section.count("port", 1..=65_535).and_then(|at| u16::try_from(at.value).ok());
    let sts = MtaSts {
        port: port.unwrap_or(absent.port),
        authorities: authorities(&mut section, absent.authorities),
        timeout: section
            .duration("timeout", Duration::from_secs(1)..=Duration::from_secs(300))
            .map_or(absent.timeout, |at| at.value),
    };
    section.finish();
    sts
}

/// `[tls_report]`; without the section nobody reports. Defaults that depend on other sections stay empty.
pub(super) fn tls_report(mut section: Section<'_>) -> Option<TlsReport> {
    let second = Duration::from_secs(1);
    let present = section.is_present();
    let words = |text: &str| match text.is_empty() || text.len() > 200 || text.contains(char::is_control) {
        true => Err("is not a name; allowed: up to 200 printable characters".to_owned()),
        false => Ok(text.to_owned()),
    };
    let organization = section.text("organization", words);
    let contact = section.text("contact", words);
    let from = section.text("from", value::mailbox);
    let period = section.duration("period", second..=86_400 * second);
    let spread = section.duration("spread", Duration::ZERO..=86_400 * second);
    let authorities = authorities(&mut section, MtaSts::default().authorities);
    section.finish();
    let or_empty = |at: Option<At<String>>| at.map_or_else(String::new, |at| at.value);
    present.then(|| TlsReport {
        organization: or_empty(organization),
        contact: or_empty(contact),
        from: or_empty(from),
        period: period.map_or(86_400 * second, |at| at.value),
        spread: spread.map_or(4 * 3_600 * second, |at| at.value),
        authorities,
        routes: Vec::new(),
    })
}

/// Fills in what depends on other sections, and adds the routes that take reports: what DANE or MTA-STS makes of a
/// host must not hold up the report that tells of it (RFC 8460 section 3).
pub(super) fn complete(
    draft: TlsReport,
    hostname: &str,
    postmaster: &str,
    routes: &mut Vec<Route>,
) -> TlsReport {
    let or = |text: String, absent: &str| if text.is_empty() { absent.to_owned() } else { text };
    // Not the postmaster: whoever the author is, the mail of that address is sent more leniently.
    let domain = postmaster.rsplit_once('@').map_or(hostname, |(_, domain)| domain);
    let own = format!("tls-reports@{domain}");
    let mut report = TlsReport {
        organization: or(draft.organization, hostname),
        contact: or(draft.contact, postmaster),
        from: or(draft.from, &own),
        ..draft
    };
    for index in 0..routes.len() {
        let of = &routes[index].tls;
        let by_mx = matches!(routes[index].target, Target::Mx { .. });
        if !by_mx || !of.rule.can_be_raised() || !(of.dane || of.mta_sts) {
            continue;
        }
        let rule = if of.rule == TlsRule::Encrypt { TlsRule::Encrypt } else { TlsRule::May };
        let tls = OutwardTls { rule, dane: false, mta_sts: false, ..of.clone() };
        report.routes.push((index, routes.len()));
        routes.push(Route { domains: Vec::new(), tls, ..routes[index].clone() });
    }
    report
}

/// The password stands in a file of its own, so that the configuration can be shown around.
pub(super) fn login(mut section: Section<'_>) -> Option<Arc<Login>> {
    let user = section.text("user", |text| match text.is_empty() || text.contains(char::is_control) {
        true => Err("is not a user name; allowed: printable characters".to_owned()),
        false => Ok(text.to_owned()),
    });
    let file = section.text("password_file", path);
    let in_clear_text = section.flag("in_clear_text");
    for (one, other) in [("user", "password_file"), ("password_file", "user"), ("in_clear_text", "user")] {
        if section.has(one) && !section.has(other) {
            section.fault(section.line, other, format!("is missing; allowed: what belongs to {one}"));
        }
    }
    if section.reads_files()
        && let Some(file) = &file
        && let Err(sentence) = password(&file.value)
    {
        section.fault(file.line, "password_file", sentence);
    }
    let reads_files = section.reads_files();
    section.finish();
    let (user, file) = user.zip(file)?;
    let password = if reads_files { password(&file.value).ok()? } else { String::new() };
    let in_clear_text = in_clear_text.is_some_and(|at| at.value);
    Some(Arc::new(Login { user: user.value, password, in_clear_text }))
}

fn password(file: &Path) -> Result<String, Wrong> {
    const ALLOWED: &str = "allowed: a file with one line, the password, that the relay's user may read";
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{name} cannot be read ({error}); {ALLOWED}"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.len() > PASSWORD_OCTETS_MAX || line.contains(char::is_control) {
        return Err(format!("{name} holds no password; {ALLOWED}"));
    }
    Ok(line.to_owned())
}

fn authorities(section: &mut Section<'_>, absent: Option<PathBuf>) -> Option<PathBuf> {
    let Some(given) = section.text("authorities", path) else { return absent };
    if section.reads_files()
        && let Err(sentence) = files::authorities(&given.value)
    {
        section.fault(given.line, "authorities", sentence);
    }
    Some(given.value)
}

fn values<T: Clone>(given: Option<Vec<At<T>>>, general: &[T]) -> Vec<T> {
    given.map_or_else(|| general.to_vec(), |given| given.into_iter().map(|at| at.value).collect())
}

fn peer_name(text: &str) -> Result<PeerName, Wrong> {
    match text {
        "@host" => Ok(PeerName::Host),
        "@domain" => Ok(PeerName::Domain),
        name => value::hostname(name)
            .map(PeerName::Name)
            .map_err(|_| format!("\"{name}\" is not a name; allowed: mx.partner.example, @host, @domain")),
    }
}

/// `sha256:`, or nothing, and 64 hexadecimal digits with or without colons.
fn fingerprint(text: &str) -> Result<[u8; 32], Wrong> {
    let wrong = || {
        format!(
            "\"{text}\" is not a fingerprint; allowed: the 64 hexadecimal digits of the certificate's SHA-256, with or without colons"
        )
    };
    let digits: Vec<u8> =
        text.strip_prefix("sha256:").unwrap_or(text).bytes().filter(|&b| b != b':').collect();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(wrong());
    }
    let mut octets = [0; 32];
    for (octet, pair) in octets.iter_mut().zip(digits.chunks(2)) {
        let pair = str::from_utf8(pair).map_err(|_| wrong())?;
        *octet = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it() {
        let hex = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        for text in [hex.clone(), colons.clone(), format!("sha256:{hex}"), format!("sha256:{colons}")] {
            assert_eq!(fingerprint(&text), Ok([0xab; 32]), "{text}");
        }
        for text in ["", "ab", "sha1:00", &"a".repeat(63), &"g".repeat(64), &"\u{e4}".repeat(32)] {
            assert!(fingerprint(text).is_err(), "{text}");
        }
    }

    /// A configuration with these keys of `[route.tls]`, of the resolver, and this section.
    fn configured(tls: &str, resolver: &str, section: &str) -> Result<Config, String> {
        let text = format!(
            "hostname = \"relay.test\"\n{section}\n[[listener]]\nname = \"inside\"\nbind = [\"127.0.0.1:25\"]\n\
             clients = [\"127.0.0.0/8\"]\nrelay = \"any\"\n[[route]]\ndomains = [\"near.test\"]\n\
             hosts = [\"127.0.0.2\"]\n[[route]]\ndomains = [\"*\"]\nmx = true\nresolver = \"external\"\n\
             [route.tls]\nauthorities = \"{AUTHORITY}\"\n{tls}\n[[resolver]]\nname = \"external\"\n\
             servers = [\"192.0.2.53\"]\n{resolver}"
        );
        Config::parse(&text, "f").map_err(|error| error.to_string())
    }

    const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/tls/certificate.pem");

    #[test]
    fn dane_is_there_only_where_dnssec_is() {
        for (tls, resolver, used) in [
            ("", "", Some(false)),
            ("", "dnssec = \"validate\"", Some(true)),
            ("", "dnssec = \"trust-ad\"", Some(true)),
            ("dane = false", "dnssec = \"validate\"", Some(false)),
            ("policy = \"dane\"", "dnssec = \"validate\"", Some(true)),
            ("policy = \"dane\"", "", None),
            ("policy = \"dane-only\"", "dnssec = \"off\"", None),
            ("policy = \"dane\"\ndane = false", "dnssec = \"validate\"", None),
        ] {
            let found = configured(tls, resolver, "");
            let dane = found.as_ref().ok().map(|config| config.routes[1].tls.dane);
            assert_eq!(dane, used, "{tls} {resolver}: {:?}", found.err());
        }
        let sentence = configured("policy = \"dane\"", "", "").expect_err("no DNSSEC");
        assert!(
            sentence.contains("route.tls.policy: asks for DANE") && sentence.contains("validate"),
            "{sentence}"
        );
        // A smart host by its address cannot have it, and does without.
        let general = "[delivery.tls]\npolicy = \"dane\"";
        assert!(configured("", "dnssec = \"validate\"", general).is_ok());
        let general = "[delivery.tls]\npolicy = \"dane-only\"";
        let sentence = configured("", "dnssec = \"validate\"", general).expect_err("no records");
        assert!(sentence.contains("route.tls.policy: asks for DANE"), "{sentence}");
    }

    #[test]
    fn reports_go_by_routes_without_what_they_complain_of() {
        let section =
            format!("[mta_sts]\nauthorities = \"{AUTHORITY}\"\n[tls_report]\nfrom = \"t@near.test\"");
        for (tls, rule) in [
            ("policy = \"dane-only\"\nmta_sts = true", Some(TlsRule::May)),
            ("policy = \"encrypt\"\nmta_sts = true", Some(TlsRule::Encrypt)),
            // The operator's own demand stays.
            ("policy = \"verify\"\nnames = [\"@host\"]", None),
        ] {
            let config = configured(tls, "dnssec = \"validate\"", &section).expect(tls);
            let report = config.tls_report.as_ref().expect("reports");
            assert_eq!(
                (report.contact.as_str(), report.organization.as_str()),
                ("postmaster@relay.test", "relay.test")
            );
            assert_eq!(config.route_of_sender(1, "other@near.test"), 1);
            let twin = config.route_of_sender(1, "t@near.test");
            assert_eq!((twin != 1).then(|| config.routes[usize::from(twin)].tls.rule), rule, "{tls}");
            assert_eq!(config.route_of_sender(0, "t@near.test"), 0, "to a smart host as ever");
            assert_eq!(config.route_for("a.test"), Some(1), "the twin takes no domain");
        }
        assert!(configured("", "", "").expect("a configuration").tls_report.is_none());
    }

    #[test]
    fn mta_sts_is_asked_for_only_where_it_can_count() {
        let section = format!("[mta_sts]\nauthorities = \"{AUTHORITY}\"");
        assert!(configured("mta_sts = true", "", &section).is_ok());
        assert!(configured("policy = \"none\"\nmta_sts = false", "", &section).is_ok());
        let wrong = configured("policy = \"none\"\nmta_sts = true", "", &section).expect_err("never any TLS");
        assert!(wrong.contains("route.tls.mta_sts: stands beside policy = \"none\""), "{wrong}");
        let to_hosts = |tls: &str| {
            let text = format!(
                "hostname = \"relay.test\"\n[delivery.tls]\nmta_sts = true\n[[listener]]\nname = \"inside\"\n\
                 bind = [\"127.0.0.1:25\"]\nclients = [\"127.0.0.0/8\"]\nrelay = \"any\"\n[[route]]\ndomains = [\"*\"]\n\
                 hosts = [\"127.0.0.2\"]\n[route.tls]\n{tls}"
            );
            Config::parse(&text, "f").map_err(|error| error.to_string())
        };
        assert!(to_hosts("").is_ok(), "what holds for other routes");
        let wrong = to_hosts("mta_sts = true").expect_err("no domain's hosts");
        assert!(wrong.contains("route.tls.mta_sts: stands beside hosts"), "{wrong}");
    }

    #[test]
    fn names_of_peers_are_host_names_or_stand_for_one() {
        assert_eq!(peer_name("@host"), Ok(PeerName::Host));
        assert_eq!(peer_name("@domain"), Ok(PeerName::Domain));
        assert_eq!(peer_name("MX.Partner.Example"), Ok(PeerName::Name("mx.partner.example".into())));
        assert!(peer_name("@mx").is_err() && peer_name("a b").is_err());
    }
}
