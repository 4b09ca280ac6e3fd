//! The async rim of one SMTP server session: octets from the socket into the pure session, its
//! replies back, its content into the spool.
//!
//! One task per connection. A fault in it ends this session with 421 and no other.

use super::IngestShard;
use super::shares::{Share, bound};
use super::transport::Transport;
use crate::clock;
use crate::config::TlsMode;
use crate::observe::{line, log};
use crate::session::{self, Refusal, Session, Step};
use crate::shard::event::Place;
use crate::space::Level;
use crate::tls::TlsFacts;
use futures_lite::future::poll_once;
use futures_lite::{AsyncWriteExt, FutureExt as _};
use glommio::net::TcpStream;
use sluice_queue::{CommitError, ContentFlags, Draft, Reservation};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// A peer that takes none of our replies for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// Octets of reply buffer that an idle session keeps.
const OUT_OCTETS_KEPT: usize = 1024;
/// Reserved for a message without SIZE while there is plenty of room: most of them are smaller.
const UNDECLARED_BYTES: u64 = 256 * 1024;
/// More than the Received field that comes before the content.
const TRACE_BYTES: u64 = 2 * 1024;
/// How long a client whose message outgrew its reservation waits for room; below the three minutes that
/// clients wait for a block of content to be taken (RFC 5321 section 4.5.3.2.5).
const ROOM_WAIT: Duration = Duration::from_secs(60);
const ROOM_LOOK: Duration = Duration::from_millis(250);
/// How long, and for how many reads, a client may go on sending after its session was closed.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_READS_MAX: usize = 16;

/// Starts the session of a connection that was just accepted.
pub fn start(shard: &Rc<IngestShard>, listener: usize, stream: TcpStream) {
    shard.counters.connections_total.add(1);
    let Ok(client) = stream.peer_addr() else { return };
    let _ = stream.set_nodelay(true);
    let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let shard = shard.clone();
    if shard.stop.is_stopped() {
        return turn_away(stream, |reply| session::shutting_down(&shard.contexts[listener], reply));
    }
    if shard.sessions.get() >= shard.config.limits.sessions_max {
        shard.counters.connections_refused_total.add(1);
        return turn_away(stream, |reply| session::too_many_sessions(&shard.contexts[listener], reply));
    }
    shard.sessions.set(shard.sessions.get() + 1);
    let mut stream = Transport::Plain(stream);
    glommio::spawn_local(async move {
        let session = AssertUnwindSafe(run(&shard, listener, &mut stream, client)).catch_unwind().await;
        if session.is_err() {
            shard.counters.session_panics_total.add(1);
            log::note(
                "ingest",
                &format!("error: a session with [{}] ended by an internal fault", client.ip()),
            );
            let mut reply = Vec::new();
            session::fault(&shard.contexts[listener], &mut reply);
            let _ = stream.write(&reply).await;
        }
        shard.sessions.set(shard.sessions.get() - 1);
        shard.session_ended.raise();
    })
    .detach();
}

/// An answer in place of a session. It fits into an empty socket buffer, and a peer that is gone already
/// needs none.
fn turn_away(mut stream: TcpStream, put: impl FnOnce(&mut Vec<u8>)) {
    let mut reply = Vec::new();
    put(&mut reply);
    glommio::spawn_local(async move { drop(stream.write_all(&reply).await) }).detach();
}

async fn run(shard: &Rc<IngestShard>, listener: usize, stream: &mut Transport, client: SocketAddr) {
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
    };
    // A connection that breaks is the end of its session, and worth a line only within a transaction.
    let ended = task.converse().await;
    task.log_loss();
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
}

enum Input {
    Octets(Box<[u8]>, usize),
    Stopped,
    TimedOut,
}

impl SessionTask<'_> {
    async fn converse(&mut self) -> io::Result<()> {
        loop {
            self.flush().await?;
            match self.read().await? {
                Input::Octets(_, 0) => return Ok(()),
                Input::Octets(buffer, len) => {
                    let goes_on = self.use_input(&buffer[..len]).await;
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

    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write(&self.out).await?;
            self.out.clear();
            self.out.shrink_to(OUT_OCTETS_KEPT);
        }
        Ok(())
    }

    /// The next octets, with those carried over from the last read in front.
    async fn read(&mut self) -> io::Result<Input> {
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
        match read.await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(Input::TimedOut),
            other => other,
        }
    }

    /// Lets the session work through `input`. False when the session is over.
    async fn use_input(&mut self, input: &[u8]) -> io::Result<bool> {
        let mut used = 0;
        loop {
            let now = clock::monotonic_millis();
            self.session.refuse_mail(self.shard.refuses());
            let (consumed, step) = self.session.advance(now, &input[used..], &mut self.out);
            self.log_refusals();
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
                }
                Step::Open => self.open().await,
                Step::Content(range) => self.append(&input[start + range.start..start + range.end]).await,
                Step::Abandon => (self.draft, self.share) = (None, None),
                Step::Commit => self.commit().await?,
                Step::StartTls => {
                    self.flush().await?;
                    return Ok(self.start_tls(input.len() - used).await);
                }
                Step::Close => return Ok(false),
            }
        }
    }

    fn log_refusals(&mut self) {
        for note in self.session.take_notes() {
            self.shard.counters.refusals_total.add(1);
            let listener = &self.session.context().listener_name;
            log::write("ingest", |text| line::refused(text, &note, listener));
        }
    }

    fn log_loss(&self) {
        let within_content = self.session.is_in_message();
        if within_content || self.session.sender().is_some() {
            let (client, listener) = (self.session.client(), &self.session.context().listener_name);
            log::write("ingest", |text| line::lost(text, within_content, client, listener));
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

    async fn open(&mut self) {
        match self.reserve().await {
            Ok((room, share)) => {
                self.share = Some(share);
                let now = clock::wall_micros();
                let draft = self.shard.spool.begin_reserved(now, room);
                let trace = self.session.opened(draft.id(), &clock::mail_date_cached(now), &mut self.out);
                self.draft = Some(draft);
                self.append(&trace).await;
            }
            Err(why) => self.session.open_failed(why, &mut self.out),
        }
    }

    /// Room for the whole message before it is let in: what SIZE says; without it a first part while there
    /// is plenty, and as much as a message may have while there is not.
    async fn reserve(&self) -> Result<(Reservation, Share), Refusal> {
        let shard = self.shard;
        let level = shard.space.level();
        if level > Level::Open {
            glommio::timer::sleep(shard.space.delay()).await;
        }
        if level == Level::Full {
            return Err(Refusal::NoSpace);
        }
        let limit = self.session.context().limits.message_bytes_max;
        let content = match self.session.declared_size() {
            Some(size) => size,
            None if level == Level::Open => UNDECLARED_BYTES,
            None => limit,
        };
        let content = content.min(limit) + TRACE_BYTES;
        let share = shard.shares.take(self.session.client(), content, self.share_bound());
        let share = share.ok_or(Refusal::NoSpace)?;
        let mut reserving = pin!(shard.spool.reserve(content, self.session.envelope_octets()));
        let reserved = match poll_once(&mut reserving).await {
            Some(reserved) => reserved,
            // A segment is being created.
            None => {
                let bound = async {
                    glommio::timer::sleep(shard.config.spool.write_wait).await;
                    None
                };
                match async { Some(reserving.await) }.or(bound).await {
                    Some(reserved) => reserved,
                    None => return Err(Refusal::Storage),
                }
            }
        };
        let reserved = reserved.map_err(|error| self.storage_failed(&error))?;
        Ok((reserved, share))
    }

    /// What this client may hold of the room on this shard.
    fn share_bound(&self) -> u64 {
        bound(self.shard.space.room(), self.shard.links.ingest.len())
    }

    async fn append(&mut self, octets: &[u8]) {
        let Some(mut draft) = self.draft.take() else { return };
        let needed = draft.bytes() + octets.len() as u64;
        if needed > draft.promised()
            && let Err(why) = self.extend(&mut draft, needed).await
        {
            // The session swallows the rest.
            self.lost = why;
            return;
        }
        if draft.append_now(octets) {
            self.draft = Some(draft);
            return;
        }
        match self.unless_it_hangs(self.shard.spool.append(&mut draft, octets)).await {
            Ok(Ok(())) => self.draft = Some(draft),
            Ok(Err(error)) => self.lost = self.storage_failed(&error),
            Err(why) => self.lost = why,
        }
    }

    /// More than was reserved arrives: reserves ahead of it. Where there is no room the client waits, as
    /// nothing is read from it meanwhile; deliveries may make some.
    async fn extend(&mut self, draft: &mut Draft, needed: u64) -> Result<(), Refusal> {
        let shard = self.shard;
        let limit = self.session.context().limits.message_bytes_max + TRACE_BYTES;
        let ahead = if shard.space.level() == Level::Open { (2 * needed).min(limit) } else { limit };
        let deadline = clock::monotonic_millis() + ROOM_WAIT.as_millis() as u64;
        loop {
            let mut extended = self.extend_within_share(draft, ahead.max(needed)).await;
            if extended == Err(CommitError::Full) {
                extended = self.extend_within_share(draft, needed).await;
            }
            match extended {
                Ok(()) => return Ok(()),
                Err(CommitError::Full)
                    if clock::monotonic_millis() < deadline && !shard.stop.is_stopped() =>
                {
                    glommio::timer::sleep(ROOM_LOOK).await;
                }
                Err(error) => return Err(self.storage_failed(&error)),
            }
        }
    }

    async fn extend_within_share(&mut self, draft: &mut Draft, octets: u64) -> Result<(), CommitError> {
        let bound = self.share_bound();
        if !self.share.as_mut().is_none_or(|share| share.grow(octets, bound)) {
            return Err(CommitError::Full);
        }
        self.shard.spool.extend(draft, octets).await
    }

    /// What the spool's answer is, or that the device hangs.
    async fn unless_it_hangs<T>(&self, work: impl Future<Output = T>) -> Result<T, Refusal> {
        let hang = self.shard.hang.borrow().clone();
        let place = hang.place();
        let mut work = pin!(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if place.poll_stopped(context) => Poll::Ready(Err(Refusal::Storage)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    async fn commit(&mut self) -> io::Result<()> {
        // Replies to commands that came before must not wait for the disk.
        self.flush().await?;
        let envelope = self.session.take_envelope(clock::wall_micros());
        let findings = self.session.findings();
        let flags = ContentFlags { eight_bit: findings.eight_bit, dot_lines: findings.dot_lines };
        // Until it is durable: so long the room is promised.
        let _share = self.share.take();
        let Some(draft) = self.draft.take() else {
            self.session.committed(Err(self.lost), &mut self.out);
            return Ok(());
        };
        let envelope = Arc::new(envelope);
        let id = draft.id();
        self.shard.steering.arrives(id);
        let committing = self.shard.spool.commit(draft, envelope.clone(), flags);
        match self.unless_it_hangs(committing).await {
            Ok(Ok(stored)) => {
                let shard = self.shard;
                shard.counters.messages_accepted_total.add(1);
                shard.counters.message_bytes_accepted_total.add(stored.content_bytes);
                let tls = self.session.tls();
                log::write("ingest", |text| {
                    line::accepted(text, stored.id, &envelope, stored.content_bytes);
                    line::tls(text, tls);
                });
                shard.hand_over_fresh(stored.id, &envelope, stored.content, flags);
                self.session.committed(Ok(()), &mut self.out);
            }
            Ok(Err(error)) => {
                self.shard.steering.has_arrived(id);
                let refusal = self.storage_failed(&error);
                self.session.committed(Err(refusal), &mut self.out);
            }
            // Should it become durable yet it is delivered, and no change of the queue sees it before that
            // (`IngestShard::claim`): the client may send it once more.
            Err(why) => {
                self.shard.counters.messages_failed_total.add(1);
                self.session.committed(Err(why), &mut self.out);
            }
        }
        Ok(())
    }

    fn storage_failed(&self, error: &CommitError) -> Refusal {
        self.shard.counters.messages_failed_total.add(1);
        log::note("ingest", &format!("error: a message was not stored: {error}"));
        refusal(error)
    }
}

/// The last of some lines that all end in CRLF.
fn last_line(lines: &[u8]) -> &[u8] {
    let end = lines.len().saturating_sub(2);
    &lines[memchr::memrchr(b'\n', &lines[..end]).map_or(0, |lf| lf + 1)..]
}

fn refusal(error: &CommitError) -> Refusal {
    match error {
        CommitError::Full => Refusal::NoSpace,
        CommitError::Closed => Refusal::ShuttingDown,
        CommitError::Poisoned(_) | CommitError::TooLarge | CommitError::Broken => Refusal::Storage,
    }
}
