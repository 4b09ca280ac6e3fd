//! Certificate and key: read once, so that a wrong pair is found by `sluice check` and not by a peer.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error as TlsError, InconsistentKeys, ServerConfig};

use super::types::Tls;

/// Which of the two files is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    Certificate,
    Key,
}

/// The file, and what is wrong with it and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFault {
    pub file: TlsFile,
    pub sentence: String,
}

impl Tls {
    /// Reads both files and builds the server's side of TLS from them.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsFault> {
        let chain = self.chain().map_err(|sentence| TlsFault { file: TlsFile::Certificate, sentence })?;
        let key = private_key(&self.key).map_err(|sentence| TlsFault { file: TlsFile::Key, sentence })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        config.map(Arc::new).map_err(|error| self.refusal(&error))
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let file = self.certificate.display();
        let wrong = |error| pem_fault(&self.certificate, "certificate", error);
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(|items| items.collect::<Result<Vec<_>, _>>())
            .map_err(wrong)?;
        if chain.is_empty() {
            return Err(format!(
                "{file} holds no certificate; allowed: a PEM file, the server's certificate first"
            ));
        }
        Ok(chain)
    }

    fn refusal(&self, error: &TlsError) -> TlsFault {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        match error {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsFault {
                file: TlsFile::Key,
                sentence: format!(
                    "{key} does not belong to the first certificate in {certificate}; allowed: the key that it was issued for"
                ),
            },
            TlsError::InvalidCertificate(_) => TlsFault {
                file: TlsFile::Certificate,
                sentence: format!(
                    "{certificate} holds no usable certificate ({error}); allowed: X.509 version 3 in PEM"
                ),
            },
            other => TlsFault {
                file: TlsFile::Key,
                sentence: format!(
                    "{key} is not usable ({other}); allowed: an ECDSA P-256 or P-384, Ed25519 or RSA key"
                ),
            },
        }
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| pem_fault(path, "private key", error))
}

fn pem_fault(path: &Path, what: &str, error: PemError) -> String {
    let file = path.display();
    match error {
        PemError::Io(error) => {
            format!("{file} cannot be read ({error}); allowed: a PEM file that the relay's user may read")
        }
        PemError::NoItemsFound => format!("{file} holds no {what}; allowed: a PEM file with a {what}"),
        other => format!("{file} is damaged ({other}); allowed: a PEM file with a {what}"),
    }
}
