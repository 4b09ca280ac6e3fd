//! `[delivery.tls]` and `[route.tls]`: what the relay demands of its peers' TLS.

use std::path::PathBuf;

use super::document::{At, Section};
use super::read::{certificate_pair, path};
use super::types::{OutwardTls, PeerName, TlsRule, TlsVersion};
use super::value::{self, Wrong};
use crate::tls::files;

/// What the section does not say is as in `general`. `mx`: the route looks its hosts up.
pub(super) fn tls(mut section: Section<'_>, general: &OutwardTls, mx: bool) -> OutwardTls {
    let rules = [
        ("none", TlsRule::None),
        ("may", TlsRule::May),
        ("encrypt", TlsRule::Encrypt),
        ("verify", TlsRule::Verify),
        ("fingerprint", TlsRule::Fingerprint),
    ];
    let rule = section.choice("policy", &rules);
    let names = section.list("names", peer_name);
    let fingerprints = section.list("fingerprints", fingerprint);
    let tls = OutwardTls {
        rule: rule.as_ref().map_or(general.rule, |at| at.value),
        authorities: authorities(&mut section, general),
        minimum: section
            .choice("minimum", &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)])
            .map_or(general.minimum, |at| at.value),
        certificate: certificate_pair(&mut section).or_else(|| general.certificate.clone()),
        names: values(names, &general.names),
        fingerprints: values(fingerprints, &general.fingerprints),
    };
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
        TlsRule::Fingerprint if tls.fingerprints.is_empty() => section.fault(
            rule.line,
            "fingerprints",
            "is missing; allowed: a list of SHA-256 fingerprints, as openssl x509 -noout -fingerprint -sha256 prints them",
        ),
        _ => {}
    }
}

fn authorities(section: &mut Section<'_>, general: &OutwardTls) -> Option<PathBuf> {
    let Some(given) = section.text("authorities", path) else { return general.authorities.clone() };
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

    #[test]
    fn names_of_peers_are_host_names_or_stand_for_one() {
        assert_eq!(peer_name("@host"), Ok(PeerName::Host));
        assert_eq!(peer_name("@domain"), Ok(PeerName::Domain));
        assert_eq!(peer_name("MX.Partner.Example"), Ok(PeerName::Name("mx.partner.example".into())));
        assert!(peer_name("@mx").is_err() && peer_name("a b").is_err());
    }
}
