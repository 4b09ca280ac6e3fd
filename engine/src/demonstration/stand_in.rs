//! The stand-in for the internal server: takes any mail on a loopback address and files it.
//!
//! A thread of its own with a tokio runtime. It uses the same pure [`Session`] as the ingest shards,
//! with other hands.

use super::maildir;
use crate::clock;
use crate::config::{
    ClientLimits, Config, CutThroughMode, Extensions, LineEndings, Listener, Network, Relay, TlsMode,
};
use crate::session::{self, Refusal, Session, Step};
use sluice_queue::{QueueId, SpoolNumber};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A message that the stand-in is willing to hold in memory.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// One read brings about this much.
const INPUT_BYTES: usize = 16 * 1024;

/// Serves until the process ends.
pub fn start(listener: std::net::TcpListener, config: &Config, root: &Path) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let context = context(config, listener.local_addr()?);
    let root = root.to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("stand-in".into()).spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("the listener is non-blocking");
            loop {
                // A connection that went away before it was taken is nobody's loss.
                let Ok((stream, client)) = listener.accept().await else { continue };
                tokio::spawn(serve(stream, client, context.clone(), root.clone()));
            }
        })
    })?;
    Ok(())
}

/// A listener of its own, for any domain; the relay's own listeners and policy are not concerned.
fn context(config: &Config, address: SocketAddr) -> Arc<session::Context> {
    let mut config = config.clone();
    config.hostname = "internal.inside.test".into();
    config.limits.message_bytes_max = MESSAGE_BYTES_MAX;
    config.listeners = vec![Listener {
        name: "stand-in".into(),
        bind: vec![address],
        clients: vec![Network { address: address.ip(), prefix: 8 }],
        relay: Relay::Any,
        tls: TlsMode::Off,
        extensions: Extensions::of(Relay::Any),
        auth: false,
        line_endings: LineEndings::Strict,
        binarymime: false,
        certificates: None,
        limits: ClientLimits::default().none(),
        proxy: Vec::new(),
        xclient: Vec::new(),
        cut_through: CutThroughMode::Off,
    }];
    Arc::new(session::Context::new(&config, 0))
}

async fn serve(mut stream: TcpStream, client: SocketAddr, context: Arc<session::Context>, root: PathBuf) {
    // The relay sees a broken connection as such and tries again.
    let _ = converse(&mut stream, client, context, &root).await;
}

async fn converse(
    stream: &mut TcpStream,
    client: SocketAddr,
    context: Arc<session::Context>,
    root: &Path,
) -> io::Result<()> {
    let mut out = Vec::new();
    let mut session = Session::new(context, client, None, clock::monotonic_millis(), &mut out);
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(INPUT_BYTES);
    let mut content = Vec::new();
    loop {
        stream.write_all(&out).await?;
        out.clear();
        let wait = Duration::from_millis(session.deadline().saturating_sub(clock::monotonic_millis()));
        match tokio::time::timeout(wait, stream.read_buf(&mut input)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(read) => drop(read?),
            Err(_) => session.timed_out(&mut out),
        }
        loop {
            match step(&mut session, &mut input, &mut content, root, &mut out) {
                Step::Flush | Step::Pause(_) => {
                    stream.write_all(&out).await?;
                    out.clear();
                }
                Step::Close => return stream.write_all(&out).await,
                _ => break,
            }
        }
    }
}

/// Lets the session work through `input` and takes what was used out of it, until it wants to read,
/// to flush or to close.
fn step(
    session: &mut Session,
    input: &mut Vec<u8>,
    content: &mut Vec<u8>,
    root: &Path,
    out: &mut Vec<u8>,
) -> Step {
    let mut used = 0;
    loop {
        let (consumed, step) = session.advance(clock::monotonic_millis(), &input[used..], out);
        match step {
            // It offers neither TLS nor AUTH, believes no proxy and asks nobody.
            Step::Read
            | Step::Flush
            | Step::Pause(_)
            | Step::StartTls
            | Step::Readmit
            | Step::Authenticate
            | Step::Check
            | Step::Close => {
                input.drain(..used + consumed);
                return step;
            }
            Step::Open => {
                let now = clock::wall_micros();
                let id = QueueId::new(now, SpoolNumber::new(0).expect("zero is a spool number"));
                *content = session.opened(id, &clock::mail_date(now), out);
            }
            Step::Content(range) => content.extend_from_slice(&input[used + range.start..used + range.end]),
            Step::Insert(octets) => content.extend_from_slice(octets),
            Step::Abandon => content.clear(),
            Step::Commit => {
                let envelope = session.take_envelope(clock::wall_micros());
                let mut filed = envelope.recipients.iter().map(|recipient| {
                    maildir::deliver(&maildir::directory(root, &recipient.address), &envelope.sender, content)
                });
                let filed = filed.try_for_each(|filed| filed);
                session.committed(filed.map_err(|_| Refusal::Storage), out);
            }
        }
        used += consumed;
    }
}
