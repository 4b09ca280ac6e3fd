//! Certificates of clients. Where they are required, a bad one ends the handshake; where they are only
//! asked for it does not: mail servers show self-signed ones, and their mail must not fail for it. Then
//! the chain is looked at after the handshake, and the session learns what came of it.
//!
//! The proof that the client holds the key is demanded always.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

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
        Ok(Arc::new(Self { strict, required }))
    }

    pub fn verifier(self: &Arc<Self>) -> Arc<dyn ClientCertVerifier> {
        if self.required { self.strict.clone() } else { self.clone() }
    }

    pub fn verdict(&self, chain: Option<&[CertificateDer<'_>]>) -> Verdict {
        let Some([first, rest @ ..]) = chain else { return Verdict::None };
        match self.strict.verify_client_cert(first, rest, UnixTime::now()) {
            Ok(_) => Verdict::Verified,
            Err(_) => Verdict::NotVerified,
        }
    }
}

impl ClientCertVerifier for AskedClients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Some clients send nothing when none of the names is theirs.
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}
