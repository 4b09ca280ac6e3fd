//! A connection that has just come: whether it gets a session, and for whom.
//!
//! Lives on one ingest shard. A client that is over a limit is told so at once, with one system call, no task
//! and no handshake; over implicit TLS it is told nothing, for nobody would understand. A connection from a
//! load balancer that is believed (`listener.proxy`) says first whom it brings.

use super::{SessionTask, run};
use crate::clock;
use crate::config::TlsMode;
use crate::intake::IngestShard;
use crate::intake::limits::{Admitted, has_rates};
use crate::intake::transport::Transport;
use crate::listener::has_input;
use crate::load::Level;
use crate::observe::{line, log};
use crate::session::{self, Tally, TurnedAway};
use crate::shard::event::Place;
use crate::smtp::proxy::{self, Origin, Parsed};
use futures_lite::{AsyncWrite, FutureExt as _};
use glommio::net::TcpStream;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A peer that takes none of our replies for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);

/// Starts the session of a connection that was just accepted.
pub fn start(shard: &Rc<IngestShard>, listener: usize, stream: TcpStream) {
    shard.counters.connections_total.add(1);
    let Ok(peer) = stream.peer_addr() else { return };
    if shard.stop.is_stopped() {
        return say(shard, listener, stream, |reply| {
            session::shutting_down(&shard.contexts[listener], reply)
        });
    }
    if shard.sessions.get() >= shard.config.limits.sessions_max {
        shard.counters.connections_refused_total.add(1);
        return say(shard, listener, stream, |reply| {
            session::too_many_sessions(&shard.contexts[listener], reply);
        });
    }
    let is_proxied = shard.config.listeners[listener].proxy.iter().any(|network| network.contains(peer.ip()));
    let admitted = match is_proxied {
        true => None,
        false => match shard.admit(listener, peer.ip()) {
            Ok(admitted) => admitted,
            Err(why) => {
                shard.note_turned_away(listener, peer.ip(), why);
                return say(shard, listener, stream, |reply| {
                    session::turned_away(&shard.contexts[listener], why, reply);
                });
            }
        },
    };
    let _ = stream.set_nodelay(true);
    let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let shard = shard.clone();
    shard.sessions.set(shard.sessions.get() + 1);
    let mut stream = Transport::Plain(stream);
    glommio::spawn_local(async move {
        let running = async {
            match is_proxied {
                true => run_proxied(&shard, listener, &mut stream, peer).await,
                false => run(&shard, listener, &mut stream, peer, admitted).await,
            }
        };
        if AssertUnwindSafe(running).catch_unwind().await.is_err() {
            shard.counters.session_panics_total.add(1);
            log::note("ingest", &format!("error: a session with [{}] ended by an internal fault", peer.ip()));
            let mut reply = Vec::new();
            session::fault(&shard.contexts[listener], &mut reply);
            let _ = stream.write(&reply).await;
        }
        shard.sessions.set(shard.sessions.get() - 1);
        shard.session_ended.raise();
    })
    .detach();
}

/// An answer in place of a session, in one attempt: it fits into an empty socket buffer, and a peer that is
/// gone already needs none.
fn say(shard: &IngestShard, listener: usize, mut stream: TcpStream, put: impl FnOnce(&mut Vec<u8>)) {
    if shard.contexts[listener].tls == TlsMode::Implicit {
        return;
    }
    let mut reply = Vec::with_capacity(128);
    put(&mut reply);
    let _ = Pin::new(&mut stream).poll_write(&mut Context::from_waker(Waker::noop()), &reply);
}

/// Whom the balancer brings, and then that one's session.
async fn run_proxied(shard: &Rc<IngestShard>, listener: usize, stream: &mut Transport, peer: SocketAddr) {
    let place = shard.stop.place();
    let client = match header(shard, stream, &place).await {
        Ok(Origin::Client { client, .. }) => client,
        Ok(Origin::Balancer) => peer,
        Err(reason) => {
            shard.counters.proxy_headers_failed_total.add(1);
            let listener = &shard.contexts[listener].listener_name;
            let note = format!("CONNECT from unknown[{}]: {reason};", peer.ip());
            return log::write("ingest", |text| line::refused(text, &note, listener));
        }
    };
    drop(place);
    match shard.admit(listener, client.ip()) {
        Ok(admitted) => run(shard, listener, stream, client, admitted).await,
        Err(why) => {
            shard.note_turned_away(listener, client.ip(), why);
            let context = &shard.contexts[listener];
            if context.tls != TlsMode::Implicit {
                let mut reply = Vec::with_capacity(128);
                session::turned_away(context, why, &mut reply);
                let _ = stream.write(&reply).await;
            }
        }
    }
}

/// Reads the header of the PROXY protocol, and not an octet more.
async fn header(shard: &IngestShard, stream: &mut Transport, place: &Place<'_>) -> Result<Origin, String> {
    let within = shard.config.timeouts.proxy_header;
    let reading = async {
        let mut header = Vec::new();
        loop {
            match proxy::parse(&header).map_err(|fault| fault.to_string())? {
                Parsed::Header(_, origin) => return Ok(origin),
                Parsed::Needs(more) => {
                    let start = header.len();
                    header.resize(start + more, 0);
                    let read = stream.read(&mut header[start..]).await.map_err(|error| error.to_string())?;
                    if read == 0 {
                        return Err("connection closed within the PROXY header".to_owned());
                    }
                    header.truncate(start + read);
                }
            }
        }
    };
    let too_late = async {
        glommio::timer::sleep(within).await;
        Err(format!("no PROXY header within {} seconds", within.as_secs_f32()))
    };
    let stopped = poll_fn(|context| match place.poll_stopped(context) {
        true => Poll::Ready(Err("the relay stops".to_owned())),
        false => Poll::Pending,
    });
    reading.or(too_late).or(stopped).await
}

impl IngestShard {
    /// Counts a client's connection; nothing is counted of clients that are exempt.
    pub(super) fn admit(&self, listener: usize, client: IpAddr) -> Result<Option<Admitted>, TurnedAway> {
        let context = &self.contexts[listener];
        if context.guard.exempts(client) {
            return Ok(None);
        }
        let level = self.load.level();
        if context.strangers && level == Level::Overloaded {
            return Err(TurnedAway::Overloaded);
        }
        let now = clock::monotonic_micros();
        self.limiter.admit((listener, &context.guard), client, level, now).map(Some)
    }

    /// One line a second at most: a flood of connections must not become one of lines.
    pub(super) fn note_turned_away(&self, listener: usize, client: IpAddr, why: TurnedAway) {
        let counter = match why {
            TurnedAway::Overloaded => &self.counters.connections_refused_overloaded_total,
            TurnedAway::AddressConnections | TurnedAway::NetworkConnections => {
                &self.counters.connections_refused_concurrent_total
            }
            TurnedAway::AddressRate | TurnedAway::NetworkRate => {
                &self.counters.connections_refused_rate_total
            }
        };
        counter.add(1);
        let second = clock::monotonic_millis() / 1000 + 1;
        let (last, silent) = self.turned_away.get();
        if second == last {
            return self.turned_away.set((last, silent + 1));
        }
        self.turned_away.set((second, 0));
        let context = &self.contexts[listener];
        let mut reply = Vec::new();
        session::turned_away(context, why, &mut reply);
        let reply = String::from_utf8_lossy(reply.trim_ascii_end()).into_owned();
        let before = if silent > 0 { format!(" ({silent} more before)") } else { String::new() };
        let note = format!("CONNECT from unknown[{client}]: {reply}{before};");
        log::write("ingest", |text| line::refused(text, &note, &context.listener_name));
    }
}

impl SessionTask<'_> {
    /// Whether octets have come before the greeting was sent.
    pub(super) async fn talks_early(&mut self) -> bool {
        let limits = &self.session.context().guard;
        let Transport::Plain(stream) = &*self.stream else { return false };
        if !self.session.is_limited() || self.session.is_closed() {
            return false;
        }
        if !limits.greet_delay.is_zero() {
            let stopped = poll_fn(|context| match self.place.poll_stopped(context) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
            let slept = async {
                glommio::timer::sleep(limits.greet_delay).await;
            };
            slept.or(stopped).await;
        }
        limits.refuse_early_talkers && has_input(stream)
    }

    /// Tells the session what its client may send now.
    pub(super) fn grant(&mut self) {
        self.session.set_load(self.shard.load.level());
        let context = self.session.context();
        if !has_rates(&context.guard) || !self.session.is_limited() || self.session.is_in_message() {
            return;
        }
        let of = (self.listener, &context.guard);
        let (client, level) = (self.session.client(), self.shard.load.level());
        let allowance = self.shard.limiter.allowance(of, client, level, clock::monotonic_micros());
        self.session.allow(allowance);
    }

    /// Counts what the session has done.
    pub(super) fn settle_tally(&mut self) {
        let tally = self.session.take_tally();
        if tally == Tally::default() {
            return;
        }
        let counters = &self.shard.counters;
        counters.commands_limited_total.add(tally.limited.into());
        counters.replies_held_back_total.add(tally.pauses.into());
        counters.junk_commands_total.add(tally.junk_commands.into());
        counters.invalid_recipients_total.add(tally.invalid_recipients.into());
        counters.sessions_abusive_total.add(tally.abusive.into());
        counters.sessions_slow_total.add(tally.slow.into());
        counters.sessions_overlong_total.add(tally.overlong.into());
        counters.early_talkers_total.add(tally.early_talkers.into());
        let context = self.session.context();
        if (tally.messages > 0 || tally.recipients > 0)
            && self.session.is_limited()
            && has_rates(&context.guard)
        {
            let used = session::Allowance { messages: tally.messages, recipients: tally.recipients };
            let of = (self.listener, &context.guard);
            self.shard.limiter.charge(of, self.session.client(), used, clock::monotonic_micros());
        }
    }

    /// XCLIENT has named another client: it is counted in place of the one before.
    pub(super) fn readmit(&mut self) {
        self.shard.counters.xclients_total.add(1);
        self.admitted = None;
        let client = self.session.client();
        let admitted = self.shard.admit(self.listener, client);
        if let Err(why) = &admitted {
            self.shard.note_turned_away(self.listener, client, *why);
        }
        let admitted = admitted.map(|admitted| self.admitted = admitted);
        self.session.readmitted(admitted, &mut self.out);
        self.watch();
    }
}
