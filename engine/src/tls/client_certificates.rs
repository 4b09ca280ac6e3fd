//! Certificates of clients. Where they are required, a bad one ends the handshake; where they are only
//! asked for it does not: mail servers show self-signed ones, and their mail must not fail for it. Then
//! the chain is looked at after the handshake, and the session learns what came of it.
//!
//! The proof that the client holds the key is demanded always.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::any_certificate::AnyCertificate;

/// What came of asking for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client showed none.
    None,
    /// It shows a key, but nobody who counts vouches for it.
    NotVerified,
    Verified,
}

#[derive(Debug)]
pub(super) struct AskedClients {
    strict: Arc<dyn ClientCertVerifier>,
    lenient: Arc<AnyCertificate>,
    required: bool,
}

impl AskedClients {
    pub fn new(
        authorities: Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        required: bool,
    ) -> Result<Arc<Self>, String> {
        let strict = WebPkiClientVerifier::builder_with_provider(authorities, provider.clone()).build();
        let strict = strict.map_err(|error| format!("tls.client_authorities: {error}"))?;
        let lenient = Arc::new(AnyCertificate(provider.clone()));
        Ok(Arc::new(Self { strict, lenient, required }))
    }

    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        if self.required { self.strict.clone() } else { self.lenient.clone() }
    }

    pub fn verdict(&self, chain: Option<&[CertificateDer<'_>]>) -> Verdict {
        let Some([first, rest @ ..]) = chain else { return Verdict::None };
        match self.strict.verify_client_cert(first, rest, UnixTime::now()) {
            Ok(_) => Verdict::Verified,
            Err(_) => Verdict::NotVerified,
        }
    }
}
