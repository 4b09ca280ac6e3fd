//! Certificates, keys and authorities from PEM files. Blocks; for `sluice check`, the start and a reload.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys, RootCertStore};

use crate::config::CertificatePair;

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

/// Reads both files and sees that they belong to each other.
pub fn certified_key(pair: &CertificatePair) -> Result<Arc<CertifiedKey>, TlsFault> {
    let chain = certificates(&pair.certificate, "certificate, the server's certificate first")
        .map_err(|sentence| TlsFault { file: TlsFile::Certificate, sentence })?;
    let key = private_key(&pair.key).map_err(|sentence| TlsFault { file: TlsFile::Key, sentence })?;
    let certified = CertifiedKey::from_der(chain, key, &provider());
    certified.map(Arc::new).map_err(|error| refusal(pair, &error))
}

/// The authorities that may have issued a client's certificate.
pub fn authorities(path: &Path) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "certificate of an authority")? {
        roots.add(certificate).map_err(|error| {
            format!("{} holds no usable authority ({error}); allowed: X.509 version 3 in PEM", path.display())
        })?;
    }
    Ok(Arc::new(roots))
}

pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(|items| items.collect::<Result<Vec<_>, _>>())
        .map_err(|error| pem_fault(path, "certificate", error))?;
    if chain.is_empty() {
        return Err(format!("{} holds no certificate; allowed: a PEM file with a {what}", path.display()));
    }
    Ok(chain)
}

fn refusal(pair: &CertificatePair, error: &TlsError) -> TlsFault {
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
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
