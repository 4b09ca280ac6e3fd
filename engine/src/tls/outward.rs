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

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
};

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
    pub certain: bool,
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
        })
    }
}

/// Builds what all routes need, in their order. Reads files, so it is for `check` and the start.
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

    /// What the handshake came to. `host`: the name or address that was connected to; `domain`: the
    /// recipients' domain, where the route looks up its MX.
    pub fn judge(&self, connection: &ClientConnection, host: &str, domain: Option<&str>) -> PeerTls {
        let cipher = connection.negotiated_cipher_suite().map(|suite| suite.suite());
        let chain = connection.peer_certificates().unwrap_or_default();
        let (verdict, why) = self.verdict(chain, host, domain);
        PeerTls {
            version: super::version(connection.protocol_version()),
            cipher: super::cipher_name(cipher),
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            verdict,
            why,
        }
    }

    fn verdict(
        &self,
        chain: &[CertificateDer<'_>],
        host: &str,
        domain: Option<&str>,
    ) -> (PeerVerdict, String) {
        let [first, rest @ ..] = chain else { return (PeerVerdict::Untrusted, "it shows none".into()) };
        if self.rule == TlsRule::Fingerprint {
            return match self.fingerprints.contains(&fingerprint(first)) {
                true => (PeerVerdict::Verified, String::new()),
                false => (PeerVerdict::Untrusted, "its fingerprint is another".into()),
            };
        }
        let Some(roots) = &self.roots else {
            return (PeerVerdict::Untrusted, "no authorities are known".into());
        };
        let judged = |name: &str| {
            let Ok(name) = ServerName::try_from(name) else {
                return (PeerVerdict::Untrusted, format!("{name} is no name"));
            };
            match roots.verify_server_cert(first, rest, &name, &[], UnixTime::now()) {
                Ok(_) => (PeerVerdict::Verified, String::new()),
                Err(Error::InvalidCertificate(
                    error @ (CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. }),
                )) => (PeerVerdict::Trusted, error.to_string()),
                Err(Error::InvalidCertificate(error)) => (PeerVerdict::Untrusted, error.to_string()),
                Err(error) => (PeerVerdict::Untrusted, error.to_string()),
            }
        };
        let names = self.names.iter().filter_map(|name| match name {
            PeerName::Host => Some(host),
            PeerName::Domain => domain,
            PeerName::Name(name) => Some(name),
        });
        let none = || (PeerVerdict::Untrusted, "no name is wanted".into());
        names.map(judged).max_by_key(|(verdict, _)| *verdict).unwrap_or_else(none)
    }

    /// Whether mail may go over a connection with this verdict.
    pub fn admits(&self, verdict: PeerVerdict) -> bool {
        match self.rule {
            TlsRule::None | TlsRule::May | TlsRule::Encrypt => true,
            TlsRule::Verify | TlsRule::Fingerprint => verdict == PeerVerdict::Verified,
        }
    }
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

/// Takes every certificate whose key the peer proves to hold.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
