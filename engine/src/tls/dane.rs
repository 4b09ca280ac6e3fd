//! DANE for SMTP (RFC 7672): whether the TLSA records of a host vouch for the certificates that it shows.
//!
//! Pure. Whoever asks must have seen that the records are authentic (DNSSEC): others say nothing.
//! Only DANE-TA(2) and DANE-EE(3) count between mail servers (section 3.1.3).

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, SHA512, digest};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

/// One TLSA record (RFC 6698 section 2.1), its numbers as they came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tlsa {
    pub usage: u8,
    pub selector: u8,
    pub matching: u8,
    pub data: Vec<u8>,
}

const DANE_TA: u8 = 2;
const DANE_EE: u8 = 3;
const WHOLE_CERTIFICATE: u8 = 0;
const PUBLIC_KEY: u8 = 1;

/// As in a zone file, `3 1 1 digest`.
impl fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl Tlsa {
    /// Whether the record can vouch for anything. Where no record of a host can, its mail goes by TLS with
    /// any certificate (RFC 7672 section 2.2).
    pub fn is_usable(&self) -> bool {
        let octets = match self.matching {
            0 => !self.data.is_empty(),
            1 => self.data.len() == 32,
            2 => self.data.len() == 64,
            _ => false,
        };
        octets
            && matches!(self.usage, DANE_TA | DANE_EE)
            && matches!(self.selector, WHOLE_CERTIFICATE | PUBLIC_KEY)
    }

    /// Whether an authority vouches, and the name of the certificate counts.
    pub fn is_of_authority(&self) -> bool {
        self.is_usable() && self.usage == DANE_TA
    }

    /// Whether the record means this certificate.
    fn means(&self, certificate: &CertificateDer<'_>) -> bool {
        let selected = match self.selector {
            WHOLE_CERTIFICATE => certificate.to_vec(),
            _ => match EndEntityCert::try_from(certificate) {
                Ok(parsed) => parsed.subject_public_key_info().to_vec(),
                Err(_) => return false,
            },
        };
        match self.matching {
            0 => selected == self.data,
            1 => digest(&SHA256, &selected).as_ref() == self.data,
            2 => digest(&SHA512, &selected).as_ref() == self.data,
            _ => false,
        }
    }
}

/// Whether one of the records vouches for the chain, the peer's own certificate first. DANE-EE is about the key
/// alone: neither name nor date count (RFC 7672 section 3.1.1). With DANE-TA the chain must lead to the
/// authority that the record means, and the certificate must be for one of `names` (section 3.2.2).
pub fn vouches(
    records: &[Tlsa],
    chain: &[CertificateDer<'_>],
    names: &[&str],
    provider: &Arc<CryptoProvider>,
    now: UnixTime,
) -> bool {
    let Some((first, rest)) = chain.split_first() else { return false };
    let means = |record: &Tlsa, usage, certificate: &CertificateDer<'_>| {
        record.usage == usage && record.is_usable() && record.means(certificate)
    };
    if records.iter().any(|record| means(record, DANE_EE, first)) {
        return true;
    }
    let authorities =
        chain.iter().filter(|certificate| records.iter().any(|record| means(record, DANE_TA, certificate)));
    leads_to(authorities, (first, rest), names, provider, now)
}

/// To one of the authorities. Signatures are looked at once, whatever number of records, authorities and names the
/// receiving side brings: they take time, and the shard waits.
fn leads_to<'a>(
    authorities: impl Iterator<Item = &'a CertificateDer<'a>>,
    (first, rest): (&CertificateDer<'_>, &[CertificateDer<'_>]),
    names: &[&str],
    provider: &Arc<CryptoProvider>,
    now: UnixTime,
) -> bool {
    let Ok(parsed) = EndEntityCert::try_from(first) else { return false };
    let names = names.iter().filter_map(|&name| ServerName::try_from(name).ok());
    let fitting = names.into_iter().find(|name| parsed.verify_is_valid_for_subject_name(name).is_ok());
    let Some(name) = fitting else { return false };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        // One that cannot be read vouches for nothing.
        let _ = roots.add(authority.clone().into_owned());
    }
    // Fails without a root.
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build();
    verifier.is_ok_and(|verifier| verifier.verify_server_cert(first, rest, &name, &[], now).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;
    use std::time::Duration;

    /// The leaf (for `mx.peer.test`), what issued it, and the root.
    fn chain() -> Vec<CertificateDer<'static>> {
        let pem = include_bytes!("tests/chain.pem");
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().expect("three certificates")
    }

    fn other_root() -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(include_bytes!("tests/other_root.pem")).expect("a certificate")
    }

    fn hex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
        (0..text.len()).step_by(2).map(digit).collect()
    }

    /// What `openssl x509 -pubkey | openssl pkey -pubin -outform der | sha256sum` and the like print.
    const LEAF_KEY: &str = "68cb9e3ad80a197eb4b87400e096460b355b0a2bf10a67a31b79af915707cbfb";
    const LEAF: &str = "ab555a0635ea3c32386521b0841635168eb9d766e837f5cbde2808a8fc8c5302";
    const LEAF_KEY_512: &str = "24c60e2990dbd3299aa5958c196200149067ced7de2c4cfb39d94670a09992d2dd596777637774e07b501fc036a3db22e84b6c21ef668b8d83a0f9a646d98b16";
    const ISSUING_KEY: &str = "9145c69da23a656a3523facb4abdd20c7f87e8bfb8b207397ab392ecd0fcdda9";
    const ROOT: &str = "1721caf9b12342ce8864f6dbfc4d7a58b89e6bb4a73e42fa3fb1d4d864a2502a";
    const OTHER_KEY: &str = "4806c3d0638e410d0848c26968d45546ce44b42075bc12fd261bc346caba6073";

    fn tlsa(usage: u8, selector: u8, matching: u8, data: &str) -> Tlsa {
        Tlsa { usage, selector, matching, data: hex(data) }
    }

    /// In the year 2030, in which the certificates hold.
    fn now() -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000))
    }

    fn vouched(records: &[Tlsa], chain: &[CertificateDer<'_>], name: &str, now: UnixTime) -> bool {
        vouches(records, chain, &[name], &Arc::new(super::super::files::provider()), now)
    }

    #[test]
    fn a_record_vouches_for_the_chain_that_it_means() {
        let whole: String = chain()[0].iter().map(|octet| format!("{octet:02x}")).collect();
        let table = [
            (tlsa(3, 1, 1, LEAF_KEY), true),
            (tlsa(3, 1, 2, LEAF_KEY_512), true),
            (tlsa(3, 0, 1, LEAF), true),
            (tlsa(3, 0, 0, &whole), true),
            (tlsa(2, 1, 1, ISSUING_KEY), true),
            (tlsa(2, 0, 1, ROOT), true),
            // Another certificate, another part of it, another digest.
            (tlsa(3, 1, 1, ISSUING_KEY), false),
            (tlsa(3, 0, 1, LEAF_KEY), false),
            (tlsa(3, 1, 1, LEAF), false),
            (tlsa(2, 1, 1, OTHER_KEY), false),
            // A leaf is no authority.
            (tlsa(2, 1, 1, LEAF_KEY), false),
            // What does not count between mail servers, or has a number or a length that nobody defined.
            (tlsa(0, 0, 1, ROOT), false),
            (tlsa(1, 1, 1, LEAF_KEY), false),
            (tlsa(4, 1, 1, LEAF_KEY), false),
            (tlsa(3, 2, 1, LEAF_KEY), false),
            (tlsa(3, 1, 3, LEAF_KEY), false),
            (tlsa(3, 1, 1, &LEAF_KEY[..62]), false),
            (tlsa(3, 0, 0, ""), false),
        ];
        for (record, expected) in table {
            assert_eq!(
                vouched(std::slice::from_ref(&record), &chain(), "mx.peer.test", now()),
                expected,
                "{record:?}"
            );
        }
    }

    #[test]
    fn one_record_of_several_is_enough_and_none_is_not() {
        let records = [tlsa(3, 1, 1, OTHER_KEY), tlsa(1, 0, 0, "00"), tlsa(3, 1, 1, LEAF_KEY)];
        assert!(vouched(&records, &chain(), "mx.peer.test", now()));
        assert!(!vouched(&records[..2], &chain(), "mx.peer.test", now()));
        assert!(!vouched(&[], &chain(), "mx.peer.test", now()));
        assert!(!vouched(&records, &[], "mx.peer.test", now()));
    }

    #[test]
    fn name_and_date_count_for_an_authority_only() {
        let long_ago = UnixTime::since_unix_epoch(Duration::from_secs(1));
        let (key, authority) = ([tlsa(3, 1, 1, LEAF_KEY)], [tlsa(2, 0, 1, ROOT)]);
        assert!(vouched(&key, &chain(), "other.test", now()));
        assert!(vouched(&key, &chain(), "mx.peer.test", long_ago));
        assert!(!vouched(&authority, &chain(), "other.test", now()));
        assert!(!vouched(&authority, &chain(), "mx.peer.test", long_ago));
    }

    /// Who can put the authority of the record into the chain has not yet proved to be issued by it.
    #[test]
    fn an_authority_that_did_not_issue_the_leaf_vouches_for_nothing() {
        let mut forged = chain();
        forged.push(other_root());
        assert!(!vouched(&[tlsa(2, 1, 1, OTHER_KEY)], &forged, "mx.peer.test", now()));
        assert!(vouched(&[tlsa(2, 0, 1, ROOT)], &forged, "mx.peer.test", now()));
        // The chain is cut: what issued the leaf is missing.
        let cut = [chain()[0].clone(), chain()[2].clone()];
        assert!(!vouched(&[tlsa(2, 0, 1, ROOT)], &cut, "mx.peer.test", now()));
    }

    #[test]
    fn garbage_in_place_of_a_certificate_is_refused() {
        let garbage = [CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff])];
        assert!(!vouched(&[tlsa(3, 1, 1, LEAF_KEY)], &garbage, "mx.peer.test", now()));
        assert!(!vouched(&[tlsa(2, 1, 1, LEAF_KEY)], &garbage, "mx.peer.test", now()));
    }
}
