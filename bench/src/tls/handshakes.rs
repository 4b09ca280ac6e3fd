//! Sessions that only shake hands: connect, EHLO, STARTTLS, the handshake, QUIT; the next one.
//!
//! A few threads with blocking sockets and rustls. Whether a session was resumed is asked of rustls and
//! counted. Full handshakes are of TLS 1.3, resumed ones of TLS 1.2: rustls uses a ticket of TLS 1.3 once, and Postfix
//! hands out no new one when a session is resumed.

use crate::process;
use crate::servers::NAME;
use crate::wire::Replies;
use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a client must speak to resume as often as it likes.
pub const RESUMABLE: &[&SupportedProtocolVersion] = &[&TLS12];

const PATIENCE: Duration = Duration::from_secs(30);

/// What every session does after EHLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// QUIT: what a session costs without TLS.
    Clear,
    /// STARTTLS and a full handshake.
    Full,
    /// STARTTLS and a resumed one.
    Resumed,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Clear => "no TLS",
            Kind::Full => "full handshake, TLS 1.3",
            Kind::Resumed => "resumed handshake, TLS 1.2",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub sessions: u64,
    pub resumed: u64,
    /// Of the threads, which have ended.
    pub cpu: Duration,
}

/// A client that trusts the certificates in the file; with or without tickets.
pub fn client(
    trusted: &Path,
    versions: &[&'static SupportedProtocolVersion],
    resumes: bool,
) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(trusted).context("the certificate")? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !resumes {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// Sessions one after the other on each of `threads` until `length` has passed.
pub fn run(target: SocketAddr, kind: Kind, trusted: &Path, threads: usize, length: Duration) -> Result<Done> {
    let end = Instant::now() + length;
    let parts: Vec<Result<Done>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| one_after_the_other(target, kind, trusted, end))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that does not panic")).collect()
    });
    let mut all = Done::default();
    for part in parts {
        let part = part?;
        all.sessions += part.sessions;
        all.resumed += part.resumed;
        all.cpu += part.cpu;
    }
    Ok(all)
}

fn one_after_the_other(target: SocketAddr, kind: Kind, trusted: &Path, end: Instant) -> Result<Done> {
    let versions = if kind == Kind::Resumed { RESUMABLE } else { &[&TLS13] };
    let config = client(trusted, versions, kind == Kind::Resumed)?;
    if kind == Kind::Resumed {
        // The first handshake is a full one, and not counted.
        session(target, kind, &config, NAME)?;
    }
    let mut done = Done::default();
    while Instant::now() < end {
        let resumed = session(target, kind, &config, NAME)?;
        done.sessions += 1;
        done.resumed += u64::from(resumed);
    }
    done.cpu = process::thread_cpu();
    Ok(done)
}

/// One session with a server of this name; whether its handshake was resumed. Blocks.
pub fn session(target: SocketAddr, kind: Kind, config: &Arc<ClientConfig>, name: &str) -> Result<bool> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    expect(&mut stream, 220)?;
    say(&mut stream, "EHLO source.example\r\n", 250)?;
    if kind == Kind::Clear {
        say(&mut stream, "QUIT\r\n", 221)?;
        return Ok(false);
    }
    say(&mut stream, "STARTTLS\r\n", 220)?;
    let name = ServerName::try_from(name.to_owned()).context("the server's name")?;
    let mut connection = ClientConnection::new(config.clone(), name)?;
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    // Before its reply stand the tickets, which so come to be read.
    say(&mut tls, "QUIT\r\n", 221)?;
    Ok(connection.handshake_kind() == Some(HandshakeKind::Resumed))
}

fn say(stream: &mut (impl Read + Write), command: &str, code: u16) -> Result<()> {
    stream.write_all(command.as_bytes())?;
    expect(stream, code)
}

fn expect(stream: &mut impl Read, code: u16) -> Result<()> {
    let (mut replies, mut buffer) = (Replies::default(), [0; 4096]);
    loop {
        match replies.next_reply() {
            Ok(Some(reply)) => {
                ensure!(reply.code == code, "{code} expected: {}", replies.text(&reply));
                return Ok(());
            }
            Ok(None) => {
                let octets = stream.read(&mut buffer)?;
                ensure!(octets > 0, "the server closed");
                replies.push(&buffer[..octets]);
            }
            Err(_) => anyhow::bail!("the server sent what is no reply"),
        }
    }
}
