//! The async rim of one SMTP client session: octets between the socket and the pure [`Client`], and
//! the content of messages on their way out.
//!
//! Lives on one delivery shard, in the task that opened it.

use super::client::{Asked, Client, ClientSettings, Event, Opening, SessionFailure, StartTls, Transaction};
use super::failure::{Failure, Scope};
use super::message::{Message, Pieces};
use super::settle::Tells;
use super::transport::Transport;
use super::verdict::{Fate, Peer, Status};
use crate::clock::{monotonic_millis, wall_micros};
use crate::config::Login;
use crate::smtp::content::Framing;
use crate::tls::demand::Demand;
use crate::tls::outward::{CertificateFault, Meant, PeerTls, RouteTls};
use futures_lite::FutureExt;
use glommio::net::TcpStream;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One read of replies brings at most this much.
const SCRATCH_BYTES: usize = 16 * 1024;

/// How long the answer to QUIT is waited for.
const QUIT_PATIENCE: Duration = Duration::from_secs(5);

/// The input buffer that all connections of a shard share: replies are used up right after the read.
#[derive(Clone)]
pub struct Scratch(Rc<RefCell<Box<[u8]>>>);

impl Default for Scratch {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into())))
    }
}

/// Octets that are gathered before they are written, while more is to be sent.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// What a connection is to be.
pub struct Wish<'a> {
    pub settings: Arc<ClientSettings>,
    pub handshake_timeout: Duration,
    pub starttls: StartTls,
    pub login: Option<Arc<Login>>,
    pub tls: &'a RouteTls,
    /// The recipients' domain, where the route looks up its MX.
    pub domain: Option<&'a str>,
    /// What the receiving side makes of the route's rule.
    pub demand: &'a Demand,
    /// DNSSEC vouches for the way to the host.
    pub way_is_authentic: bool,
}

impl Wish<'_> {
    /// The relay itself wants no TLS.
    pub fn declines_tls(&self) -> bool {
        self.starttls == StartTls::Never && !self.tls.implicit
    }
}

/// Why there is no connection.
pub enum Unopened {
    Failed(Failure),
    /// The peer was there, its TLS did not work.
    Tls(Failure, TlsFault),
}

/// What of TLS did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    Handshake,
    Certificate(CertificateFault),
    /// The peer hung up on the first words.
    FirstWords,
}

impl From<Unopened> for Failure {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Failed(failure) | Unopened::Tls(failure, _) => failure,
        }
    }
}

/// A connection to one host that has been greeted and may begin a transaction.
pub struct Connection {
    stream: Transport,
    client: Client,
    /// Where there is TLS.
    pub tls: Option<Rc<PeerTls>>,
    scratch: Scratch,
    out: Vec<u8>,
    /// Octets that came behind the reply that ended the last wait.
    carried: Vec<u8>,
    /// What its TLS had to be.
    pub demand: Demand,
    /// DNSSEC vouches for the way to the host.
    pub way_is_authentic: bool,
    /// The address that it goes out from.
    pub source: Option<IpAddr>,
    /// How long it took to get ready, for the first message's log line.
    pub setup_micros: u64,
    /// When connecting began.
    since: Instant,
}

impl Connection {
    /// Gets through greeting, EHLO and, where it is wished, TLS on a TCP connection for which connecting began
    /// at `start`.
    pub async fn open(
        wish: &Wish<'_>,
        peer: Peer,
        stream: TcpStream,
        start: Instant,
        scratch: Scratch,
    ) -> Result<Self, Unopened> {
        let source = stream.local_addr().ok().map(|address| address.ip());
        let mut stream = Transport::Plain(stream);
        let tls = match wish.tls.implicit {
            true => Some(handshake(&mut stream, wish, &peer).await.map_err(refused)?),
            false => None,
        };
        let opening = Opening { starttls: wish.starttls, in_tls: tls.is_some(), login: wish.login.clone() };
        let client = Client::new(wish.settings.clone(), peer, opening, monotonic_millis());
        let mut connection = Self {
            stream,
            client,
            tls,
            demand: wish.demand.clone(),
            way_is_authentic: wish.way_is_authentic,
            scratch,
            out: Vec::with_capacity(1024),
            carried: Vec::new(),
            source,
            setup_micros: 0,
            since: start,
        };
        let mut event = connection.next_event().await;
        if event == Event::StartTls {
            connection.start_tls(wish).await.map_err(refused)?;
            event = connection.next_event().await;
        }
        match event {
            Event::Ready => {
                connection.setup_micros = start.elapsed().as_micros() as u64;
                Ok(connection)
            }
            // A peer that hangs up on the first words within TLS would do so again.
            Event::Failed(failed) if connection.tls.is_some() => {
                Err(Unopened::Tls(failed.failure, TlsFault::FirstWords))
            }
            Event::Failed(failed) => Err(Unopened::Failed(failed.failure)),
            other => unreachable!("a session that was not begun cannot be at {other:?}"),
        }
    }

    async fn start_tls(&mut self, wish: &Wish<'_>) -> Result<(), (Failure, TlsFault)> {
        self.tls = Some(handshake(&mut self.stream, wish, self.client.peer()).await?);
        self.client.tls_started(monotonic_millis(), &mut self.out);
        Ok(())
    }

    pub fn peer(&self) -> &Peer {
        self.client.peer()
    }

    /// What the peer tells senders of, so that the relay need not.
    pub fn tells(&self) -> Tells {
        let extensions = self.client.extensions();
        Tells { success: extensions.dsn, delay: extensions.deliver_by.is_some() }
    }

    /// The last message that came to its end was put off at MAIL.
    pub fn is_put_off_at_mail(&self) -> bool {
        self.client.is_put_off_at_mail()
    }

    /// Another transaction may begin, though others may be under way.
    pub fn can_begin(&self) -> bool {
        self.client.can_begin()
    }

    /// How long ago it began.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Of the recipients that are left of a message those for one transaction, at most `most`, as the peer's LIMITS
    /// demand (RFC 9422).
    pub fn take_share(&self, message: &Message, recipients: &mut Vec<u32>, most: usize) -> Vec<u32> {
        let of = &message.envelope.recipients;
        let limits = &self.client.extensions().limits;
        limits.take_share(recipients, most, |index| of.get(index as usize).map_or("", |one| &one.address))
    }

    /// Nothing more can be said on it.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Begins to send a message to some of its recipients. Call [`Connection::event_at_hand`] next.
    pub fn begin(&mut self, message: &Message, recipients: &[u32]) {
        let envelope = &message.envelope;
        let transaction = Transaction {
            sender: message.sender(),
            recipients: recipients.iter().map(|&index| message.rcpt(index)),
            content_bytes: message.content_bytes,
            eight_bit: message.is_eight_bit(),
            binary: message.is_binary(),
            asked: Asked {
                parameters: envelope.parameters.as_deref(),
                header_utf8: envelope.is_utf8() && message.header_is_utf8(),
                now_micros: wall_micros(),
            },
            secure: self.tls.as_ref().is_some_and(|tls| tls.certain),
        };
        self.client.begin(monotonic_millis(), transaction, &mut self.out);
    }

    /// Sends one message alone. The fates are in the order of `recipients`; those of a session that has failed
    /// are failures.
    ///
    /// # Errors
    /// The spool could not give the content; nothing was delivered.
    pub async fn transact(&mut self, message: &Message, recipients: &[u32]) -> Result<Vec<Fate>, String> {
        self.begin(message, recipients);
        let mut event = self.next_event().await;
        loop {
            event = match event {
                Event::Send(framing) => match self.send(message, framing).await? {
                    Some(event) => event,
                    None => self.next_event().await,
                },
                Event::Finished(fates) => return Ok(fates),
                Event::Failed(failed) => return Ok(failed.fates),
                other => unreachable!("{other:?} within a transaction"),
            }
        }
    }

    /// Asks whether the peer takes a recipient, with the null reverse-path and without a message.
    ///
    /// # Errors
    /// The session has failed.
    pub async fn ask(&mut self, recipient: &str) -> Result<Fate, SessionFailure> {
        self.client.ask(monotonic_millis(), recipient, &mut self.out);
        match self.next_event().await {
            Event::Finished(mut fates) => Ok(fates.remove(0)),
            Event::Failed(failed) => Err(failed),
            other => unreachable!("{other:?} while a recipient is asked about"),
        }
    }

    /// Says QUIT and waits for the answer, so that the peer sees a proper end; but nobody waits for that.
    pub fn quit(mut self) {
        glommio::spawn_local(async move {
            self.client.quit(monotonic_millis(), &mut self.out);
            let answered = async { drop(self.next_event().await) };
            answered.or(async { glommio::timer::sleep(QUIT_PATIENCE).await }).await;
            self.stream.finish().or(async { glommio::timer::sleep(QUIT_PATIENCE).await }).await;
        })
        .detach();
    }

    /// The content; by DATA dot-stuffed and with end-of-data. Its last piece may stay in `out` for what comes
    /// next. An event when the peer ended the transaction before.
    ///
    /// # Errors
    /// The spool could not give the content, and the connection is of no use any more.
    pub async fn send(&mut self, message: &Message, framing: Framing) -> Result<Option<Event>, String> {
        let mut pieces = Pieces::new(message, framing);
        loop {
            let more = match pieces.next(&mut self.out).await {
                Ok(more) => more,
                // Without the rest of the content the only honest end is to break the connection.
                Err(error) => {
                    self.client.disconnected();
                    return Err(error);
                }
            };
            if !more {
                self.client.content_sent(monotonic_millis());
            }
            if (more || self.out.len() >= GATHERED_BYTES_MAX)
                && let Some(event) = self.flush().await
            {
                return Ok(Some(event));
            }
            if !more {
                return Ok(None);
            }
            self.client.progress(monotonic_millis());
        }
    }

    /// What is to be done now, without waiting for the peer: [`Event::Read`] when nothing is.
    pub fn event_at_hand(&mut self) -> Event {
        let carried = std::mem::take(&mut self.carried);
        let (consumed, event) = self.client.advance(monotonic_millis(), &carried, &mut self.out);
        self.carried.extend_from_slice(&carried[consumed..]);
        event
    }

    /// Drives the session until something is to be done.
    pub async fn next_event(&mut self) -> Event {
        let mut event = self.event_at_hand();
        while event == Event::Read {
            if let Some(event) = self.flush().await {
                return event;
            }
            event = match self.read().await {
                Ok(0) => Event::Failed(self.client.disconnected()),
                Ok(len) => self.advance_with(len),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    Event::Failed(self.client.timed_out())
                }
                Err(_) => Event::Failed(self.client.disconnected()),
            };
        }
        event
    }

    fn advance_with(&mut self, len: usize) -> Event {
        let scratch = self.scratch.0.borrow();
        let (consumed, event) = self.client.advance(monotonic_millis(), &scratch[..len], &mut self.out);
        self.carried.extend_from_slice(&scratch[consumed..len]);
        event
    }

    fn left(&self) -> Option<Duration> {
        let left = self.client.deadline().saturating_sub(monotonic_millis());
        (left > 0).then(|| Duration::from_millis(left.min(u64::from(u32::MAX))))
    }

    async fn read(&mut self) -> io::Result<usize> {
        let left = self.left().ok_or(io::ErrorKind::TimedOut)?;
        self.stream.set_read_timeout(left)?;
        let Self { stream, scratch, .. } = self;
        poll_fn(|context| stream.poll_read(context, &mut scratch.0.borrow_mut())).await
    }

    /// Writes `out`. When that fails, what the peer may have said before it closed is still read.
    async fn flush(&mut self) -> Option<Event> {
        if self.out.is_empty() {
            return None;
        }
        let left = self.left();
        let written = match left {
            None => Err(io::ErrorKind::TimedOut.into()),
            Some(left) => self.stream.write(&self.out, left).await,
        };
        self.out.clear();
        match written {
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Some(Event::Failed(self.client.timed_out()))
            }
            Err(_) => Some(self.last_words().await),
        }
    }

    /// What a peer said that takes nothing more.
    async fn last_words(&mut self) -> Event {
        if let Ok(len) = self.read().await
            && len > 0
            && let event @ (Event::Failed(_) | Event::Finished(_)) = self.advance_with(len)
        {
            return event;
        }
        Event::Failed(self.client.disconnected())
    }
}

fn refused((failure, fault): (Failure, TlsFault)) -> Unopened {
    Unopened::Tls(failure, fault)
}

/// Makes the handshake and judges the peer by its certificate, before a word is said within TLS.
async fn handshake(
    stream: &mut Transport,
    wish: &Wish<'_>,
    peer: &Peer,
) -> Result<Rc<PeerTls>, (Failure, TlsFault)> {
    let host = peer.host();
    let failed = |text| Failure::local(Scope::Session, Status::TLS_FAILED, text).cut();
    let meant = Meant {
        host: &peer.name,
        domain: wish.domain,
        demand: wish.demand,
        way_is_authentic: wish.way_is_authentic,
    };
    let made = stream.handshake(wish.tls, &meant, wish.handshake_timeout).await;
    let facts = made
        .map_err(|error| (failed(format!("cannot start TLS with {host}: {error}")), TlsFault::Handshake))?;
    if !facts.admitted {
        stream.finish().await;
        let PeerTls { verdict, why, .. } = &facts;
        let who = match wish.demand {
            Demand::Dane(_) => "its TLSA records demand",
            Demand::Sts(_) => "the MTA-STS policy of the domain demands",
            _ => "the route demands",
        };
        let text = format!("the certificate of {host} is {verdict}, not verified as {who}: {why}");
        let fault = facts.fault.unwrap_or(CertificateFault::Other);
        return Err((failed(text), TlsFault::Certificate(fault)));
    }
    Ok(Rc::new(facts))
}
