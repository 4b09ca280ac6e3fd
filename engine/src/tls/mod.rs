//! TLS by rustls: from the configuration's files to what a listener needs, and what a session learns.
//!
//! Built at the start and at each reload, then immutable and shared by all shards behind an `Arc`. The
//! handshake itself runs on the shard of its connection (`intake::transport`).
//!
//! Tickets are encrypted with a key of this process, which all shards share and a reload keeps, so a client
//! may come back to another shard. With `tickets = false` no session can be resumed at all.

mod any_certificate;
mod client_certificates;
pub mod dane;
pub mod demand;
mod end_point;
pub mod files;
mod names;
pub mod outward;

use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::{ServerConfig, ServerConnection};

use crate::config::{ClientCertificates, Config, Tls, TlsMode, TlsVersion};
use crate::smtp::sasl::Bindings;
use client_certificates::AskedClients;
pub use client_certificates::Verdict;
use end_point::end_point;
use names::Names;

/// What a listener needs to speak TLS.
#[derive(Clone)]
pub struct ListenerTls {
    pub server: Arc<ServerConfig>,
    asked: Option<Arc<AskedClients>>,
    names: Arc<Names>,
}

/// By listener; `None` where TLS is off.
pub type Listeners = Vec<Option<ListenerTls>>;

/// Builds what all listeners need; with the ticket keys of the start.
///
/// # Errors
/// One sentence that names the file and what is wrong with it.
pub fn listeners(config: &Config, tickets: &Arc<dyn ProducesTickets>) -> Result<Listeners, String> {
    let of = |listener: &crate::config::Listener| match (&listener.certificates, listener.tls) {
        (_, TlsMode::Off) | (None, _) => Ok(None),
        (Some(tls), _) => server(tls, tickets).map(Some),
    };
    config.listeners.iter().map(of).collect()
}

/// For the relay as a client that demands a certificate by one of these authorities.
///
/// # Errors
/// One sentence that names the file and what is wrong with it.
pub fn client(authorities: &std::path::Path) -> Result<Arc<rustls::ClientConfig>, String> {
    let roots = files::authorities(authorities)?;
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(files::provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| format!("TLS: {error}"))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Fresh keys for tickets.
///
/// # Errors
/// The kernel gives no random octets.
pub fn tickets() -> Result<Arc<dyn ProducesTickets>, String> {
    rustls::crypto::ring::Ticketer::new().map_err(|error| format!("no key for TLS tickets: {error}"))
}

fn server(tls: &Tls, tickets: &Arc<dyn ProducesTickets>) -> Result<ListenerTls, String> {
    let versions: &[_] = match tls.minimum {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(files::provider());
    let (asked, verifier) = match &tls.clients {
        ClientCertificates::Off => (None, WebPkiClientVerifier::no_client_auth()),
        ClientCertificates::Ask(path) => {
            let asked = AskedClients::new(files::authorities(path)?, &provider, false)?;
            (Some(asked.clone()), asked.verifier())
        }
        ClientCertificates::Require(path) => {
            let asked = AskedClients::new(files::authorities(path)?, &provider, true)?;
            (Some(asked.clone()), asked.verifier())
        }
    };
    let names = Arc::new(Names::load(tls)?);
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let mut server = builder
        .map_err(|error| format!("TLS: {error}"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(names.clone());
    if tls.tickets {
        server.ticketer = tickets.clone();
    } else {
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }
    Ok(ListenerTls { server: Arc::new(server), asked, names })
}

/// What a session knows of its TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// As IANA names it, `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
    pub resumed: bool,
    /// The name that the client asked for.
    pub name: Option<String>,
    /// Where certificates of clients are asked for: what came of it.
    pub client: Option<Verdict>,
    /// What ties an AUTH exchange to this connection.
    pub bindings: Bindings,
}

impl ListenerTls {
    /// The exporter is unique to a connection from TLS 1.3 on (RFC 9266 section 2).
    fn bindings(&self, connection: &ServerConnection) -> Bindings {
        let new = connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
        let export =
            || connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[])).ok();
        let end_point = self.names.certificate(connection.server_name()).and_then(|shown| end_point(&shown));
        Bindings { exporter: new.then(export).flatten(), end_point }
    }

    /// After the handshake.
    pub fn facts(&self, connection: &ServerConnection) -> TlsFacts {
        let cipher = connection.negotiated_cipher_suite().map(|suite| suite.suite());
        TlsFacts {
            version: version(connection.protocol_version()),
            cipher: cipher_name(cipher),
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            name: connection.server_name().map(str::to_owned),
            client: self.asked.as_ref().map(|asked| asked.verdict(connection.peer_certificates())),
            bindings: self.bindings(connection),
        }
    }
}

fn version(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    }
}

/// As IANA names it.
fn cipher_name(suite: Option<rustls::CipherSuite>) -> String {
    suite
        .and_then(|suite| suite.as_str().map(|name| name.replace("TLS13_", "TLS_")))
        .unwrap_or("unknown".into())
}
