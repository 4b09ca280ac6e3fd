//! The async rim of one SMTP server session: octets from the socket into the pure session, its
//! replies back, its content into the spool.
//!
//! One task per connection. A fault in it ends this session with 421 and no other.

mod arrival;
mod cut_through;
mod login;
mod message;
mod watching;

pub use arrival::start;

use super::IngestShard;
use super::limits::Admitted;
use super::shares::Share;
use super::transport::Transport;
use crate::clock;
use crate::config::TlsMode;
use crate::load::Level;
use crate::observe::{line, log};
use crate::session::{Note, Refusal, Session, Step};
use crate::shard::event::Place;
use crate::tls::TlsFacts;
use crate::trace::Trace;
use futures_lite::FutureExt as _;
use sluice_queue::Draft;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Octets of reply buffer that an idle session keeps.
const OUT_OCTETS_KEPT: usize = 1024;
/// How long, and for how many reads, a client may go on sending after its session was closed.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_READS_MAX: usize = 16;

async fn run(
    shard: &Rc<IngestShard>,
    listener: usize,
    stream: &mut Transport,
    client: SocketAddr,
    admitted: Option<Admitted>,
) {
    let mut out = Vec::with_capacity(256);
    let context = shard.contexts[listener].clone();
    let tls = match context.tls {
        TlsMode::Implicit => {
            let place = shard.stop.place();
            match handshake(shard, listener, stream, client, &place).await {
                Some(facts) => Some(facts),
                None => return,
            }
        }
        _ => None,
    };
    let session = Session::new(context, client, tls, clock::monotonic_millis(), &mut out);
    let mut task = SessionTask {
        shard,
        listener,
        place: shard.stop.place(),
        stream,
        session,
        out,
        carried: Vec::new(),
        draft: None,
        share: None,
        lost: Refusal::Storage,
        unread: false,
        admitted,
        paused: None,
        number: shard.counters.connections_total.get(),
        watched: 0,
        watchers: Vec::new(),
    };
    if task.talks_early().await {
        task.session.talked_early(&mut task.out);
        task.log_refusals();
    }
    // A connection that breaks is the end of its session, and worth a line only within a transaction.
    let ended = task.converse().await;
    task.log_loss();
    task.settle_tally();
    task.tell_end();
    if ended.is_ok() && task.session.is_closed() {
        task.linger().await;
    }
}

/// Makes TLS of a connection. A failure has been logged and counted when there is nothing to give.
async fn handshake(
    shard: &Rc<IngestShard>,
    listener: usize,
    stream: &mut Transport,
    client: SocketAddr,
    place: &Place<'_>,
) -> Option<TlsFacts> {
    let tls = shard.tls.borrow()[listener].clone();
    let made = match tls {
        Some(tls) => stream.handshake(&tls, shard.config.timeouts.handshake, place).await,
        None => Err("the listener has no certificate".into()),
    };
    match made {
        Ok(facts) => {
            shard.counters.tls_handshakes_total.add(1);
            shard.counters.tls_resumed_total.add(u64::from(facts.resumed));
            Some(facts)
        }
        Err(reason) => {
            shard.counters.tls_failed_total.add(1);
            let listener = &shard.contexts[listener].listener_name;
            log::write("ingest", |text| line::tls_failed(text, client.ip(), &reason, listener));
            None
        }
    }
}

struct SessionTask<'a> {
    shard: &'a Rc<IngestShard>,
    listener: usize,
    place: Place<'a>,
    stream: &'a mut Transport,
    session: Session,
    out: Vec<u8>,
    /// Octets that were read and not yet used: a command line whose end is still to come.
    carried: Vec<u8>,
    draft: Option<Draft>,
    /// What the open message has of its client's share of the room.
    share: Option<Share>,
    /// Why the open message has no draft any more: the answer to its end-of-data.
    lost: Refusal,
    /// The client may have sent more than was read.
    unread: bool,
    /// The client's place within its limits.
    admitted: Option<Admitted>,
    /// Milliseconds for which the next replies are held back; what was read meanwhile is carried.
    paused: Option<u64>,
    /// For those who watch: the number of its connection on this shard.
    number: u64,
    watched: u64,
    watchers: Vec<Arc<Trace>>,
}

enum Input {
    Octets(Box<[u8]>, usize),
    Stopped,
    TimedOut,
    /// Nothing has come; the load has changed.
    Stirred,
}

impl SessionTask<'_> {
    async fn converse(&mut self) -> io::Result<()> {
        loop {
            if let Some(millis) = self.paused {
                self.pause(millis).await;
            }
            self.flush().await?;
            if self.session.is_closed() {
                self.unread = true;
                return Ok(());
            }
            match self.next_input().await? {
                Input::Stirred => {}
                Input::Octets(_, 0) => return Ok(()),
                Input::Octets(mut buffer, len) => {
                    let goes_on = self.use_input(&buffer[..len]).await;
                    self.wipe(&mut buffer[..len]);
                    self.shard.buffers.give_back(buffer);
                    if !goes_on? {
                        // QUIT is the last thing that a client says; anything else may have more behind it.
                        self.unread = !last_line(&self.out).starts_with(b"221 ");
                        return self.flush().await;
                    }
                }
                Input::Stopped => {
                    self.session.shutting_down(&mut self.out);
                    return self.flush().await;
                }
                Input::TimedOut => {
                    self.session.timed_out(&mut self.out);
                    return self.flush().await;
                }
            }
        }
    }

    /// Closes so that the last reply arrives: input that nobody reads would make the kernel reset the
    /// connection and with it what the client has not read yet.
    async fn linger(&mut self) {
        if !self.unread {
            return;
        }
        if self.stream.finish().await.is_err() {
            return;
        }
        let _ = self.stream.set_read_timeout(LINGER);
        let mut buffer = self.shard.buffers.take();
        for _ in 0..LINGER_READS_MAX {
            match self.stream.read(&mut buffer).await {
                Ok(read) if read > 0 => {}
                _ => break,
            }
        }
        self.shard.buffers.give_back(buffer);
    }

    /// Holds replies back; a timer, and no buffer meanwhile.
    async fn pause(&self, millis: u64) {
        let stopped = poll_fn(|context| match self.place.poll_stopped(context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let slept = async {
            glommio::timer::sleep(Duration::from_millis(millis)).await;
        };
        slept.or(stopped).await;
    }

    /// After a pause what is carried, else what the client sends.
    async fn next_input(&mut self) -> io::Result<Input> {
        if self.paused.take().is_none() || self.carried.is_empty() {
            return self.read().await;
        }
        let mut buffer = self.shard.buffers.take();
        let len = self.carried.len();
        buffer[..len].copy_from_slice(&self.carried);
        self.carried.clear();
        Ok(Input::Octets(buffer, len))
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.look_who_watches();
        if !self.out.is_empty() {
            self.tell_dialogue();
            self.stream.write(&self.out).await?;
            self.out.clear();
            self.out.shrink_to(OUT_OCTETS_KEPT);
        }
        Ok(())
    }

    /// The next octets, with those carried over from the last read in front.
    async fn read(&mut self) -> io::Result<Input> {
        let level = self.shard.load.level();
        self.session.set_load(level);
        let remaining = self.session.deadline().saturating_sub(clock::monotonic_millis());
        if remaining == 0 {
            return Ok(Input::TimedOut);
        }
        self.stream.set_read_timeout(Duration::from_millis(remaining))?;
        let Self { shard, place, stream, session, carried, .. } = self;
        let read = poll_fn(|context| {
            // A message whose content is on its way may come to its end within the bound of the stop.
            if place.poll_stopped(context) && !session.is_in_message() {
                return Poll::Ready(Ok(Input::Stopped));
            }
            if shard.load.level() != level {
                return Poll::Ready(Ok(Input::Stirred));
            }
            let mut buffer = shard.buffers.take();
            buffer[..carried.len()].copy_from_slice(carried);
            match stream.poll_read(context, &mut buffer[carried.len()..]) {
                Poll::Ready(Ok(read)) => {
                    let len = if read == 0 { 0 } else { carried.len() + read };
                    carried.clear();
                    Poll::Ready(Ok(Input::Octets(buffer, len)))
                }
                Poll::Ready(Err(error)) => {
                    shard.buffers.give_back(buffer);
                    Poll::Ready(Err(error))
                }
                Poll::Pending => {
                    shard.buffers.give_back(buffer);
                    Poll::Pending
                }
            }
        });
        // A timeout of the connection that has begun cannot be shortened.
        let due = async {
            match level {
                Level::Normal => std::future::pending().await,
                _ => glommio::timer::sleep(Duration::from_millis(remaining)).await,
            };
            Ok(Input::TimedOut)
        };
        match read.or(due).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Input::TimedOut),
            other => other,
        }
    }

    /// Lets the session work through `input`. False when the session is over.
    async fn use_input(&mut self, input: &[u8]) -> io::Result<bool> {
        let mut used = 0;
        self.look_who_watches();
        self.grant();
        let mut now = clock::monotonic_millis();
        self.session.set_wall_clock(clock::wall_micros());
        loop {
            self.session.refuse_mail(self.shard.refuses());
            let (consumed, step) = self.session.advance(now, &input[used..], &mut self.out);
            self.log_refusals();
            self.settle_tally();
            let start = used;
            used += consumed;
            match step {
                Step::Read => {
                    self.carried.extend_from_slice(&input[used..]);
                    return Ok(true);
                }
                Step::Flush => {
                    self.flush().await?;
                    glommio::yield_if_needed().await;
                    now = self.after_a_wait();
                }
                Step::Pause(millis) => {
                    self.paused = Some(millis);
                    self.carried.extend_from_slice(&input[used..]);
                    return Ok(true);
                }
                Step::Readmit => self.readmit(),
                Step::Open => {
                    self.open().await;
                    now = self.after_a_wait();
                }
                Step::Content(range) => {
                    #[cfg(debug_assertions)]
                    fault_on_demand(&self.session);
                    self.append(&input[start + range.start..start + range.end]).await;
                    // The time that the spool took is not the client's.
                    let then = std::mem::replace(&mut now, clock::monotonic_millis());
                    self.session.excuse(now.saturating_sub(then));
                }
                Step::Insert(octets) => self.append(octets).await,
                Step::Abandon => (self.draft, self.share) = (None, None),
                Step::Commit => {
                    self.commit(used == input.len()).await?;
                    now = self.after_a_wait();
                }
                Step::Authenticate => {
                    self.flush().await?;
                    if let Some(millis) = self.authenticate().await {
                        self.paused = Some(millis);
                        self.carried.extend_from_slice(&input[used..]);
                        return Ok(true);
                    }
                }
                Step::Check => {
                    // Replies to commands that came before must not wait for another server.
                    self.flush().await?;
                    if let Some(millis) = self.check().await {
                        self.paused = Some(millis);
                        self.carried.extend_from_slice(&input[used..]);
                        return Ok(true);
                    }
                }
                Step::StartTls => {
                    self.flush().await?;
                    return Ok(self.start_tls(input.len() - used).await);
                }
                Step::Close => return Ok(false),
            }
        }
    }

    /// What time it is, told to the session too.
    fn after_a_wait(&mut self) -> u64 {
        self.session.set_wall_clock(clock::wall_micros());
        clock::monotonic_millis()
    }

    fn log_refusals(&mut self) {
        for note in self.session.take_notes() {
            self.shard.counters.refusals_total.add(1);
            let listener = &self.session.context().listener_name;
            log::write("ingest", |text| match &note {
                Note::Refused(note) => line::refused(text, note, listener),
                Note::AuthFailed(note) => line::auth_failed(text, note, listener),
            });
        }
    }

    fn log_loss(&self) {
        if self.session.is_in_message() || self.session.sender().is_some() {
            let (client, listener) = (self.session.client(), &self.session.context().listener_name);
            log::write("ingest", |text| line::lost(text, self.session.stage(), client, listener));
        }
    }

    /// Whatever came with STARTTLS was not protected and is dropped (RFC 3207 section 4.2).
    async fn start_tls(&mut self, dropped: usize) -> bool {
        let client = self.session.client();
        if dropped > 0 {
            let text = format!("warning: {dropped} octets after STARTTLS from [{client}] were dropped");
            log::note("ingest", &text);
        }
        let peer = SocketAddr::new(client, 0);
        match handshake(self.shard, self.listener, self.stream, peer, &self.place).await {
            Some(facts) => {
                self.session.tls_started(clock::monotonic_millis(), facts);
                true
            }
            None => false,
        }
    }
}

/// A fault of the program where a test wants one: in the content of a message from this sender. Not
/// compiled into a release, so nothing can switch it on there.
#[cfg(debug_assertions)]
fn fault_on_demand(session: &Session) {
    static SENDER: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let sender = SENDER.get_or_init(|| std::env::var("SLUICE_TEST_PANIC_SENDER").ok());
    assert!(
        sender.is_none() || sender.as_deref() != session.sender(),
        "SLUICE_TEST_PANIC_SENDER asks for it"
    );
}

/// The last of some lines that all end in CRLF.
fn last_line(lines: &[u8]) -> &[u8] {
    let end = lines.len().saturating_sub(2);
    &lines[memchr::memrchr(b'\n', &lines[..end]).map_or(0, |lf| lf + 1)..]
}
