//! STARTTLS of the sink (RFC 3207): one certificate, with or without tickets. Lives on the sink's executors.

use super::Options;
use crate::wire::Stream;
use anyhow::{Context as _, Result};
use futures_rustls::TlsAcceptor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{HandshakeKind, ServerConfig};
use std::io;
use std::sync::Arc;

/// `None` when no certificate is given.
pub fn acceptor(options: &Options) -> Result<Option<TlsAcceptor>> {
    let (Some(certificate), Some(key)) = (&options.tls_certificate, &options.tls_key) else {
        return Ok(None);
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read the certificate {}", certificate.display()))?;
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read the key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    match options.tls_tickets {
        true => config.ticketer = rustls::crypto::ring::Ticketer::new()?,
        false => {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
    }
    Ok(Some(Arc::new(config).into()))
}

/// The handshake; whether it resumed a session.
pub async fn secure(acceptor: &TlsAcceptor, stream: Box<dyn Stream>) -> io::Result<(Box<dyn Stream>, bool)> {
    let stream = acceptor.accept(stream).await?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    Ok((Box::new(stream), resumed))
}
