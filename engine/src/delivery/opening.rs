//! From candidates to a connection that may begin a transaction: the race to one of them, the greeting, TLS
//! as the route wishes, and what all that shows of the hosts.
//!
//! Lives on one delivery shard, in the task of the connection.

use super::client::StartTls;
use super::connect::{self, ConnectError, Race};
use super::connection::{Connection, Unopened, Wish};
use super::demands;
use super::failure::Failure;
use super::hop::Hop;
use super::lookup::Candidate;
use super::observed;
use super::shard::DeliveryShard;
use super::verdict::{Peer, Status};
use crate::clock::monotonic_millis;
use crate::config::{PeerName, TlsRule};
use crate::observe::log;
use crate::shard::links::NextHop;
use crate::tls::demand::Demand;
use glommio::net::TcpStream;
use std::time::Instant;

/// What became of the hosts that were tried in vain.
#[derive(Default)]
pub struct Tries {
    pub last: Option<(Failure, Peer)>,
    /// One of them did not do what this next hop demands of its TLS, which says nothing of it to others.
    pub by_demand: bool,
}

impl Tries {
    fn failed(&mut self, failure: Failure, peer: Peer) {
        self.by_demand |= failure.status == Status::TLS_FAILED;
        self.last = Some((failure, peer));
    }
}

/// Races the candidates of the first rank. Takes out of `left` what was used or has failed, which `tries` then
/// knows. At least one candidate goes each time.
pub async fn open_any(
    shard: &DeliveryShard,
    hop: &Hop,
    left: &mut Vec<Candidate>,
    tries: &mut Tries,
) -> Option<Connection> {
    let start = Instant::now();
    let demands = pass_over_unfit(shard, hop, left, tries).await;
    if demands.is_empty() {
        return None;
    }
    let addresses: Vec<_> = left.iter().take(demands.len()).map(|candidate| candidate.peer.address).collect();
    let patience = shard.timeouts_of(&hop.next_hop).connect;
    let race = match left[0].peer.socket() {
        Some(path) => Race::of_one(connect::local(path, patience).await),
        None => connect::race(&addresses, &shard.sources(&hop.next_hop), patience).await,
    };
    remember(shard, left, &race);
    for (index, error) in &race.failed {
        let peer = &left[*index].peer;
        let failure = Failure::connect(peer, &error.reason);
        note(hop, &failure);
        tries.failed(failure, peer.clone());
    }
    let won = race.won.map(|(index, stream)| (index, left[index].clone(), stream));
    let mut index = 0;
    left.retain(|_| {
        let is_used = won.as_ref().is_some_and(|(winner, ..)| *winner == index);
        let has_failed = race.failed.iter().any(|(failed, _)| *failed == index);
        index += 1;
        !is_used && !has_failed
    });
    let (index, candidate, stream) = won?;
    let peer = &candidate.peer;
    match greet(shard, &hop.next_hop, (&candidate, &demands[index]), stream, start).await {
        Ok(connection) => Some(connection),
        Err(failure) => {
            // A host that says why it does not want to talk works; silence is a failure.
            if failure.reply.is_none() {
                shard.memory.borrow_mut().failed(peer.address, monotonic_millis());
            }
            note(hop, &failure);
            tries.failed(failure, candidate.peer);
            None
        }
    }
}

/// Takes those of the first rank out of `left` to which nothing may be sent, and gives what the others demand.
async fn pass_over_unfit(
    shard: &DeliveryShard,
    hop: &Hop,
    left: &mut Vec<Candidate>,
    tries: &mut Tries,
) -> Vec<Demand> {
    let first = left[0].rank;
    let count = left.iter().take_while(|candidate| candidate.rank == first).count();
    let demanded = demands::of_candidates(shard, &hop.next_hop, &left[..count]).await;
    let mut demands = Vec::with_capacity(count);
    let mut unfit = Vec::new();
    for (index, demanded) in demanded.into_iter().enumerate() {
        match demanded {
            Ok(demand) => demands.push(demand),
            Err(found) => {
                note(hop, &found.failure);
                let peer = left[index].peer.clone();
                observed::passed_over(shard, &hop.next_hop, &peer, &found);
                tries.failed(found.failure, peer);
                unfit.push(index);
            }
        }
    }
    let mut index = 0;
    left.retain(|_| {
        index += 1;
        !unfit.contains(&(index - 1))
    });
    demands
}

/// While the hop is down each probe fails; the log has said so.
fn note(hop: &Hop, failure: &Failure) {
    if !hop.is_down() {
        log::note("delivery", &failure.text);
    }
}

impl DeliveryShard {
    /// Whether a connection may serve other next hops of the route with the same hosts, as far as the route's own
    /// rule goes; [`Self::taken_over`] says whether it does what the receiving side of one demands.
    pub fn may_be_shared(&self, next_hop: &NextHop) -> bool {
        let Some(route) = self.config.routes.get(usize::from(next_hop.route)) else { return false };
        next_hop.via.is_none()
            && (route.tls.rule != TlsRule::Verify || !route.tls.names.contains(&PeerName::Domain))
    }

    /// Where a connection that was opened for another next hop of the same hosts is just what would be opened for
    /// this one (one of the hosts that are tried first, the way to it as authentic, the same demanded of its TLS):
    /// this next hop's other hosts, in order.
    pub async fn taken_over(&self, connection: &Connection, next_hop: &NextHop) -> Option<Vec<Candidate>> {
        let mut candidates = self.candidates(next_hop).await.ok()?;
        let index = candidates.iter().position(|candidate| candidate.peer == *connection.peer())?;
        if demands::is_raised(self, next_hop) {
            let candidate = &candidates[index];
            let demanded = demands::of_candidate(self, next_hop, candidate).await.ok()?;
            let is_same = candidate.rank == candidates[0].rank
                && candidate.secure == connection.way_is_authentic
                && demanded == connection.demand;
            if !is_same {
                return None;
            }
        }
        candidates.remove(index);
        Some(candidates)
    }
}

/// A connection to this host and no other.
pub async fn open_one(
    shard: &DeliveryShard,
    next_hop: &NextHop,
    candidate: &Candidate,
) -> Result<Connection, Failure> {
    let start = Instant::now();
    let demand = match demands::of_candidate(shard, next_hop, candidate).await {
        Ok(demand) => demand,
        Err(unfit) => {
            observed::passed_over(shard, next_hop, &candidate.peer, &unfit);
            return Err(unfit.failure);
        }
    };
    let stream = connect_to(shard, next_hop, &candidate.peer).await?;
    greet(shard, next_hop, (candidate, &demand), stream, start).await
}

async fn connect_to(shard: &DeliveryShard, next_hop: &NextHop, peer: &Peer) -> Result<TcpStream, Failure> {
    shard.counters.connections_out_total.add(1);
    let source = shard.sources(next_hop).next_for(peer.address.ip());
    let patience = shard.timeouts_of(next_hop).connect;
    let connected = match peer.socket() {
        Some(path) => connect::local(path, patience).await,
        None => connect::connect(peer.address, source, patience).await,
    };
    connected.map_err(|error| Failure::connect(peer, error.reason))
}

/// What a race has shown of its addresses, for the attempts of the next minute.
fn remember(shard: &DeliveryShard, candidates: &[Candidate], race: &Race) {
    let now = monotonic_millis();
    let mut memory = shard.memory.borrow_mut();
    let tried = race.failed.len() + race.overtaken.len() + usize::from(race.won.is_some());
    shard.counters.connections_out_total.add(tried as u64);
    for (index, ConnectError { host_at_fault, .. }) in &race.failed {
        if *host_at_fault {
            memory.failed(candidates[*index].peer.address, now);
        }
    }
    race.overtaken.iter().for_each(|&index| memory.slow(candidates[index].peer.address, now));
    race.won.iter().for_each(|(index, _)| memory.answered(candidates[*index].peer.address));
}

/// Greeting, EHLO and TLS. Where the route and the receiving side may do without TLS, a host whose TLS does not
/// work is talked to in clear text, on a connection of its own.
async fn greet(
    shard: &DeliveryShard,
    next_hop: &NextHop,
    (candidate, demand): (&Candidate, &Demand),
    stream: TcpStream,
    start: Instant,
) -> Result<Connection, Failure> {
    let (tls, peer) = (shard.tls_of(next_hop), &candidate.peer);
    let mut wish = Wish {
        settings: shard.settings_of(next_hop),
        handshake_timeout: shard.timeouts_of(next_hop).handshake,
        starttls: match tls.rule {
            // It does not leave this host.
            _ if peer.socket().is_some() => StartTls::Never,
            _ if tls.implicit => StartTls::Never,
            TlsRule::None => StartTls::Never,
            _ if demand.needs_tls() => StartTls::Must,
            TlsRule::May | TlsRule::Dane if shard.broken_tls.knows(peer.address) => StartTls::Never,
            TlsRule::May | TlsRule::Dane => StartTls::May,
            TlsRule::Encrypt | TlsRule::DaneOnly | TlsRule::Verify | TlsRule::Fingerprint => StartTls::Must,
        },
        login: shard.login_of(next_hop),
        tls,
        domain: next_hop.domain.as_deref(),
        demand,
        way_is_authentic: candidate.secure,
    };
    match begin(shard, (&wish, next_hop), peer, stream, start).await {
        Err(Unopened::Tls(failure, _)) if wish.starttls == StartTls::May => {
            log::note("delivery", &format!("{}; going on in clear text", failure.text));
            shard.broken_tls.remember(peer.address);
            wish.starttls = StartTls::Never;
            let start = Instant::now();
            let stream = connect_to(shard, next_hop, peer).await?;
            begin(shard, (&wish, next_hop), peer, stream, start).await.map_err(Failure::from)
        }
        other => other.map_err(Failure::from),
    }
}

async fn begin(
    shard: &DeliveryShard,
    (wish, next_hop): (&Wish<'_>, &NextHop),
    peer: &Peer,
    stream: TcpStream,
    start: Instant,
) -> Result<Connection, Unopened> {
    let local = stream.local_addr().ok().map(|address| address.ip());
    let opened = Connection::open(wish, peer.clone(), stream, start, shard.scratch.clone()).await;
    match &opened {
        Ok(connection) => {
            let tls = connection.tls.as_ref();
            shard.counters.tls_out_handshakes_total.add(u64::from(tls.is_some()));
            shard.counters.tls_out_resumed_total.add(u64::from(tls.is_some_and(|tls| tls.resumed)));
        }
        Err(Unopened::Tls(..)) => shard.counters.tls_out_failed_total.add(1),
        Err(Unopened::Failed(_)) => {}
    }
    observed::opened(shard, next_hop, wish, (peer, local), &opened);
    opened
}
