//! TLS of the relay as a client: what a route demands of its peers, and what a peer turned out to be.
//!
//! Built once at the start for every route, then immutable. The handshake runs on the delivery shard of its
//! connection (`delivery::transport`). It takes any certificate whose key the peer proves to hold; after it, and
//! before a word of SMTP, [`RouteTls::judge`] says what the certificate is worth, and [`RouteTls::admits`]
//! whether that is enough. So one handshake serves every rule, and the log knows the verdict of each.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, ClientConnection, Error};

use super::any_certificate::AnyCertificate;
use super::dane;
use super::demand::Demand;
use super::files;
use crate::config::{Config, OutwardTls, PeerName, TlsRule, TlsVersion};

/// Peers of one route and shard whose sessions can be resumed.
const SESSIONS_MAX: usize = 1_024;

/// What one route demands, ready for use.
#[derive(Clone)]
pub struct RouteTls {
    pub rule: TlsRule,
    pub client: Arc<ClientConfig>,
    /// From the first octet.
    pub implicit: bool,
    /// Whoever it admits is for certain the peer that was meant.
    certain: bool,
    names: Vec<PeerName>,
    fingerprints: Vec<[u8; 32]>,
    roots: Option<Arc<WebPkiServerVerifier>>,
}

/// What a certificate is worth, from nothing to the peer that was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerVerdict {
    /// Nobody who counts vouches for it.
    Untrusted,
    /// Issued by an authority, for another name.
    Trusted,
    /// For one of the names, by an authority; or one of the fingerprints.
    Verified,
    /// For the host's name, by an authority, as the domain's policy demands (RFC 8461).
    Sts,
    /// The host's TLSA records vouch for it (RFC 7672).
    Dane,
}

/// What is wrong with a certificate, as reports tell it (RFC 8460 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateFault {
    OtherName,
    Expired,
    Untrusted,
    /// TLSA records that do not mean it, or what has no name of its own.
    Other,
}

/// Who was to be reached.
#[derive(Clone, Copy)]
pub struct Meant<'a> {
    /// The name or address that was connected to.
    pub host: &'a str,
    /// The recipients' domain, where the route looks up its MX.
    pub domain: Option<&'a str>,
    pub demand: &'a Demand,
    /// DNSSEC vouches for the way from the domain to the host.
    pub way_is_authentic: bool,
}

impl Meant<'_> {
    /// What the peer is asked for by SNI.
    pub fn server_name(&self) -> &str {
        match self.demand {
            Demand::Dane(dane) => &dane.base,
            _ => self.host,
        }
    }
}

/// What is known of the TLS of a connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// `TLSv1.3`.
    pub version: &'static str,
    pub cipher: String,
    pub resumed: bool,
    pub verdict: PeerVerdict,
    /// Why the verdict is no better; empty where it is the best.
    pub why: String,
    /// The same for machines.
    pub fault: Option<CertificateFault>,
    /// Whether mail may go over the connection.
    pub admitted: bool,
    /// It is for certain the peer that was meant (RFC 8689 section 4.2.1).
    pub certain: bool,
    /// Where the domain tests its policy: what would be wrong if it enforced it.
    pub testing: Option<(CertificateFault, String)>,
}

/// `TLSv1.3/TLS_AES_256_GCM_SHA384/verified`, as the log names it.
impl fmt::Display for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.version, self.cipher, self.verdict)
    }
}

impl fmt::Display for PeerVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untrusted => "untrusted",
            Self::Trusted => "trusted",
            Self::Verified => "verified",
            Self::Sts => "sts",
            Self::Dane => "dane",
        })
    }
}

/// Builds what all routes need, in their order, and one more with the defaults. Reads files, so it is for `check` and the start.
///
/// # Errors
/// One sentence that names the file and what is wrong with it.
pub fn routes(config: &Config) -> Result<Vec<RouteTls>, String> {
    let mut read: HashMap<&Path, Arc<WebPkiServerVerifier>> = HashMap::new();
    let mut built = Vec::with_capacity(config.routes.len());
    for route in &config.routes {
        let roots = match route.tls.authorities.as_deref() {
            None => None,
            Some(path) => Some(match read.get(path) {
                Some(roots) => roots.clone(),
                None => read.entry(path).or_insert(roots(path)?).clone(),
            }),
        };
        built.push(RouteTls::new(&route.tls, roots, route.verifies_for_certain())?);
    }
    // For hosts that serve a domain which no route covers.
    built.push(RouteTls::new(&OutwardTls::default(), None, false)?);
    Ok(built)
}

impl RouteTls {
    fn new(
        tls: &OutwardTls,
        roots: Option<Arc<WebPkiServerVerifier>>,
        certain: bool,
    ) -> Result<Self, String> {
        let provider = Arc::new(files::provider());
        let versions: &[_] = match tls.minimum {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| format!("TLS: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
        let client = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let certified = files::certified_key(pair).map_err(|fault| fault.sentence)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        Ok(Self {
            rule: tls.rule,
            implicit: tls.implicit,
            certain,
            client: Arc::new(client),
            names: tls.names.clone(),
            fingerprints: tls.fingerprints.clone(),
            roots,
        })
    }

    /// The same with sessions of its own to resume, which no other thread locks.
    pub fn for_another_shard(&self) -> Self {
        let mut client = ClientConfig::clone(&self.client);
        client.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Self { client: Arc::new(client), ..self.clone() }
    }

    /// What the handshake came to.
    pub fn judge(&self, connection: &ClientConnection, meant: &Meant<'_>) -> PeerTls {
        let cipher = connection.negotiated_cipher_suite().map(|suite| suite.suite());
        let chain = connection.peer_certificates().unwrap_or_default();
        let Judged { verdict, why, fault } = self.judge_chain(chain, meant);
        let admitted = self.admits(verdict, meant.demand);
        PeerTls {
            version: super::version(connection.protocol_version()),
            cipher: super::cipher_name(cipher),
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            verdict,
            why,
            fault,
            admitted,
            certain: admitted && self.is_certain(verdict, meant),
            testing: self.tested(chain, meant),
        }
    }

    fn judge_chain(&self, chain: &[CertificateDer<'_>], meant: &Meant<'_>) -> Judged {
        let Some(first) = chain.first() else { return untrusted(CertificateFault::Other, "it shows none") };
        match meant.demand {
            Demand::Dane(dane) => {
                let names: Vec<&str> = dane.names.iter().map(|name| &**name).collect();
                let provider = Arc::new(files::provider());
                match dane::vouches(&dane.records, chain, &names, &provider, UnixTime::now()) {
                    true => Judged::good(PeerVerdict::Dane),
                    false => untrusted(
                        CertificateFault::Other,
                        format!("no TLSA record of {} vouches for it", dane.base),
                    ),
                }
            }
            Demand::Sts(_) => match self.judge_name(chain, meant.host) {
                judged if judged.verdict == PeerVerdict::Verified => Judged::good(PeerVerdict::Sts),
                judged => judged,
            },
            Demand::Route | Demand::Encrypt(_) | Demand::StsTesting(_) => match self.rule {
                TlsRule::Fingerprint if self.fingerprints.contains(&fingerprint(first)) => {
                    Judged::good(PeerVerdict::Verified)
                }
                TlsRule::Fingerprint => untrusted(CertificateFault::Other, "its fingerprint is another"),
                _ => self.judge_names(chain, meant),
            },
        }
    }

    /// By the best of the route's names.
    fn judge_names(&self, chain: &[CertificateDer<'_>], meant: &Meant<'_>) -> Judged {
        let names = self.names.iter().filter_map(|name| match name {
            PeerName::Host => Some(meant.host),
            PeerName::Domain => meant.domain,
            PeerName::Name(name) => Some(name),
        });
        names
            .map(|name| self.judge_name(chain, name))
            .max_by_key(|judged| judged.verdict)
            .unwrap_or_else(|| untrusted(CertificateFault::Other, "no name is wanted"))
    }

    fn judge_name(&self, chain: &[CertificateDer<'_>], name: &str) -> Judged {
        let [first, rest @ ..] = chain else { return untrusted(CertificateFault::Other, "it shows none") };
        let Some(roots) = &self.roots else {
            return untrusted(CertificateFault::Untrusted, "no authorities are known");
        };
        let Ok(name) = ServerName::try_from(name) else {
            return untrusted(CertificateFault::OtherName, format!("{name} is no name"));
        };
        let error = match roots.verify_server_cert(first, rest, &name, &[], UnixTime::now()) {
            Ok(_) => return Judged::good(PeerVerdict::Verified),
            Err(Error::InvalidCertificate(error)) => error,
            Err(error) => return untrusted(CertificateFault::Other, error.to_string()),
        };
        let (verdict, fault) = match &error {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (PeerVerdict::Trusted, CertificateFault::OtherName)
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                (PeerVerdict::Untrusted, CertificateFault::Expired)
            }
            CertificateError::UnknownIssuer => (PeerVerdict::Untrusted, CertificateFault::Untrusted),
            _ => (PeerVerdict::Untrusted, CertificateFault::Other),
        };
        Judged { verdict, why: error.to_string(), fault: Some(fault) }
    }

    /// RFC 8461 section 5: `testing` changes nothing and is reported.
    fn tested(&self, chain: &[CertificateDer<'_>], meant: &Meant<'_>) -> Option<(CertificateFault, String)> {
        let Demand::StsTesting(policy) = meant.demand else { return None };
        if !policy.lists(meant.host) {
            return Some((CertificateFault::Other, "the policy does not list the host".into()));
        }
        let judged = self.judge_name(chain, meant.host);
        judged.fault.map(|fault| (fault, judged.why))
    }

    fn admits(&self, verdict: PeerVerdict, demand: &Demand) -> bool {
        match (demand, self.rule) {
            (Demand::Dane(_), _) => verdict == PeerVerdict::Dane,
            (Demand::Sts(_), _) => verdict == PeerVerdict::Sts,
            (Demand::Route | Demand::Encrypt(_) | Demand::StsTesting(_), rule) => match rule {
                TlsRule::None | TlsRule::May | TlsRule::Encrypt | TlsRule::Dane => true,
                TlsRule::Verify | TlsRule::Fingerprint => verdict == PeerVerdict::Verified,
                TlsRule::DaneOnly => false,
            },
        }
    }

    /// A verified name counts where nobody could forge it: it was configured, looked up with DNSSEC, or the
    /// domain's policy lists it.
    fn is_certain(&self, verdict: PeerVerdict, meant: &Meant<'_>) -> bool {
        let configured = meant.domain.is_none() || !self.names.contains(&PeerName::Host);
        match verdict {
            PeerVerdict::Dane | PeerVerdict::Sts => true,
            PeerVerdict::Verified => self.certain || configured || meant.way_is_authentic,
            PeerVerdict::Trusted | PeerVerdict::Untrusted => false,
        }
    }
}

/// What a chain is worth.
struct Judged {
    verdict: PeerVerdict,
    why: String,
    fault: Option<CertificateFault>,
}

impl Judged {
    fn good(verdict: PeerVerdict) -> Self {
        Self { verdict, why: String::new(), fault: None }
    }
}

fn untrusted(fault: CertificateFault, why: impl Into<String>) -> Judged {
    Judged { verdict: PeerVerdict::Untrusted, why: why.into(), fault: Some(fault) }
}

/// SHA-256 of the whole certificate, as `openssl x509 -fingerprint -sha256` prints it.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().try_into().expect("SHA-256 has 32 octets")
}

fn roots(path: &Path) -> Result<Arc<WebPkiServerVerifier>, String> {
    let authorities = files::authorities(path)?;
    WebPkiServerVerifier::builder_with_provider(authorities, Arc::new(files::provider()))
        .build()
        .map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
