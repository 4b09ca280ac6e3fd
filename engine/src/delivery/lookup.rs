//! From a next hop to the hosts that are tried for it, in order.
//!
//! Lives on one delivery shard. Answers of the resolvers are kept for as long as they say, good ones
//! and bad ones, so the way to the service thread is paid on a miss only; and a question that is under way
//! is waited for, not asked again.

use super::answers::Answers;
use super::balance::{self, Turns};
use super::hop::Trouble;
use super::own::Own;
use super::verdict::{Peer, Status};
use crate::clock::monotonic_millis;
use crate::config::{Config, NextHops, Route, SmartHost, Target};
use crate::mta_sts;
use crate::policy::next_hops::{self as policy, denies_domain, forbidden};
use crate::recipients::Holder;
use crate::resolve::choose::{Allowed, choose};
use crate::resolve::error::{ResolveError, ResolveErrorKind};
use crate::resolve::mx::{self, Addresses, MailHosts, TlsaRecords};
use crate::resolve::service::Answer;
use crate::shard::links::{Links, NextHop, Question};
use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What one shard keeps of each kind of answer, in units of about 40 octets. Prevents a flood of domains
/// from taking all memory.
const ANSWERS_WEIGHT_MAX: usize = 500_000;
/// Octets of an error's text that count as one unit.
const TEXT_UNIT_BYTES: usize = 40;
/// Addresses tried for one next hop in one attempt, over all its hosts.
const CANDIDATES_MAX: usize = 32;

/// Why a next hop has no host to try.
#[derive(Clone, Debug)]
pub struct NotFound {
    /// Asking again is of no use: its messages bounce.
    pub lasting: bool,
    pub trouble: Trouble,
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub peer: Peer,
    /// Those of one rank are raced (one MX preference, one smart host); a higher one waits until all of the
    /// lower ones have failed.
    pub rank: usize,
    /// DNSSEC vouches for the whole way from the domain (or the smart host's name) to the address, so that
    /// DANE applies (RFC 7672 section 2.2).
    pub secure: bool,
    /// The host's name at the end of its aliases, where it has some.
    pub canonical: Option<Arc<str>>,
    /// The recipients' domain at the end of its aliases, where it has some and the MX records are there.
    pub expanded: Option<Arc<str>>,
}

type Key = (usize, Arc<str>);

pub struct Lookup {
    own: Own,
    mx: Asked<MailHosts>,
    addresses: Asked<Addresses>,
    tlsa: Asked<TlsaRecords>,
    holders: Asked<Holder>,
    /// By route.
    turns: RefCell<HashMap<u16, Turns>>,
    sts: Asked<mta_sts::Found>,
    attempts: Cell<u64>,
}

impl Lookup {
    pub fn new(config: &Config) -> Self {
        Self {
            own: Own::new(config),
            mx: Asked::default(),
            addresses: Asked::default(),
            tlsa: Asked::default(),
            holders: Asked::default(),
            turns: RefCell::default(),
            sts: Asked::default(),
            attempts: Cell::default(),
        }
    }

    /// At least one candidate, ranks ascending, or why there is none. `has_failed`: whether an address could not
    /// be connected to lately.
    pub async fn candidates(
        &self,
        config: &Config,
        links: &Links,
        next_hop: &NextHop,
        has_failed: impl Fn(SocketAddr) -> bool,
    ) -> Result<Vec<Candidate>, NotFound> {
        let route = config.routes.get(usize::from(next_hop.route));
        let lists = &config.next_hops;
        if let Some(domain) = next_hop.domain.as_deref().filter(|domain| denies_domain(lists, domain)) {
            return Err(forbidden_domain(domain));
        }
        if let Some(via) = &next_hop.via {
            let resolver = route.and_then(|route| route.resolver);
            let found = self.smart_hosts([&**via].into_iter(), resolver, links).await;
            let order = [0].into_iter();
            return ordered(found, order).and_then(|found| admitted(lists, next_hop, found, false));
        }
        let Some(route) = route else { return Err(no_route(next_hop)) };
        match (&route.target, &next_hop.domain) {
            (Target::SmartHosts(hosts), _) => {
                let found =
                    self.smart_hosts(hosts.iter().map(|host| &host.host), route.resolver, links).await;
                let answers = |index: usize| {
                    found[index].as_ref().is_ok_and(|of| of.iter().any(|one| !has_failed(one.peer.address)))
                };
                let order = {
                    let mut turns = self.turns.borrow_mut();
                    balance::order(hosts, next_hop.choice, turns.entry(next_hop.route).or_default(), answers)
                };
                ordered(found, order.into_iter()).and_then(|found| admitted(lists, next_hop, found, false))
            }
            (Target::Mx { port }, Some(domain)) => {
                let (found, is_whole) = self.mx(domain, *port, route, links).await?;
                admitted(lists, next_hop, found, is_whole)
            }
            (Target::Mx { .. }, None) => Err(no_route(next_hop)),
        }
    }

    /// Which server holds a mailbox, as the directory of a route says.
    pub async fn holder(&self, route: usize, recipient: &str, links: &Links) -> Answer<Holder> {
        let recipient: Arc<str> = recipient.into();
        let key = (route, recipient.clone());
        let question = |reply| Question::Holder { route, recipient, reply };
        self.holders.ask(key, links, question, |_| 3).await
    }

    /// The TLSA records of a port of a host, as the resolver of its route says.
    pub async fn tlsa(
        &self,
        host: &str,
        port: u16,
        resolver: Option<usize>,
        links: &Links,
    ) -> Answer<TlsaRecords> {
        let (resolver, host) = (resolver.unwrap_or(0), Arc::<str>::from(host));
        let key = (resolver, format!("_{port}._tcp.{host}").into());
        let question = |reply| Question::Tlsa { resolver, host, port, reply };
        self.tlsa.ask(key, links, question, weight_of_tlsa).await
    }

    /// The MTA-STS policy of a domain, by the resolver of its route.
    pub async fn sts(&self, domain: &Arc<str>, route: usize, links: &Links) -> Answer<mta_sts::Found> {
        let key = (route, domain.clone());
        let question = |reply| Question::MtaSts { route, domain: domain.clone(), reply };
        self.sts.ask(key, links, question, weight_of_sts).await
    }

    /// The addresses of each host, in the order given.
    async fn smart_hosts(
        &self,
        hosts: impl Iterator<Item = &SmartHost>,
        resolver: Option<usize>,
        links: &Links,
    ) -> Vec<Result<Vec<Candidate>, ResolveError>> {
        let mut found = Vec::new();
        for host @ SmartHost { host: name, port } in hosts {
            let addresses = match (name.parse::<IpAddr>(), resolver) {
                _ if host.socket().is_some() => {
                    let peer = Peer::of_socket(name);
                    found.push(Ok(vec![Candidate {
                        peer,
                        rank: 0,
                        secure: false,
                        canonical: None,
                        expanded: None,
                    }]));
                    continue;
                }
                (Ok(address), _) => Ok(Addresses { list: vec![address], secure: false, canonical: None }),
                (Err(_), Some(resolver)) => {
                    self.addresses_of(name.as_str().into(), resolver, links).await.result
                }
                (Err(_), None) => Err(without_resolver(name)),
            };
            found.push(
                addresses.map(|addresses| of_host(name, *port, 0, &Way::CONFIGURED, addresses).collect()),
            );
        }
        found
    }

    /// With whether every host of the domain was found, or is missing for good.
    async fn mx(
        &self,
        domain: &Arc<str>,
        port: u16,
        route: &Route,
        links: &Links,
    ) -> Result<(Vec<Candidate>, bool), NotFound> {
        let resolver = route.resolver.unwrap_or(0);
        let question = |reply| Question::Mx { resolver, domain: domain.clone(), reply };
        let answer = self.mx.ask((resolver, domain.clone()), links, question, weight_of_hosts).await;
        let is_own = |name: &str, address| self.own.is_at(name, address, port);
        let allowed = Allowed { is_own, private_addresses: route.private_addresses };
        let lasts = |host: &mx::MxHost| host.found.as_ref().err().is_none_or(|error| error.kind.is_lasting());
        let is_whole = answer.result.as_ref().is_ok_and(|found| found.hosts.iter().all(lasts));
        let chosen = answer.result.and_then(|found| {
            let way = Way { secure: found.secure, expanded: found.canonical.as_deref().map(Into::into) };
            choose(domain, found, &allowed).map(|hosts| (hosts, way))
        });
        let (mut hosts, way) =
            chosen.map_err(|error| NotFound { lasting: error.kind.is_lasting(), trouble: told(&error) })?;
        // A kept answer has one order; equal hosts share the load all the same.
        self.attempts.set(self.attempts.get().wrapping_add(1));
        mx::order_hosts(&mut hosts, self.attempts.get());
        let candidates = hosts.into_iter().flat_map(|host| {
            let found = host.found.expect("a host that was chosen has addresses");
            of_host(&host.name, port, host.preference.into(), &way, found)
        });
        Ok((candidates.take(CANDIDATES_MAX).collect(), is_whole))
    }

    async fn addresses_of(&self, host: Arc<str>, resolver: usize, links: &Links) -> Answer<Addresses> {
        let key = (resolver, host.clone());
        let question = |reply| Question::Addresses { resolver, host, reply };
        self.addresses.ask(key, links, question, weight_of_addresses).await
    }

    /// The next look-up asks again for what was not found.
    pub fn forget_failed(&self) {
        let whole = |found: &MailHosts| found.hosts.iter().all(|host| host.found.is_ok());
        self.mx.kept.borrow_mut().retain(|answer| answer.result.as_ref().is_ok_and(whole));
        self.addresses.kept.borrow_mut().retain(|answer| answer.result.is_ok());
        self.tlsa.kept.borrow_mut().retain(|answer| answer.result.is_ok());
        self.holders.kept.borrow_mut().retain(|answer| matches!(answer.result, Ok(Holder::Host(_))));
        self.sts
            .kept
            .borrow_mut()
            .retain(|answer| answer.result.as_ref().is_ok_and(|found| found.trouble.is_none()));
    }

    pub fn forget_expired(&self) {
        let now = monotonic_millis();
        self.mx.kept.borrow_mut().forget_expired(now);
        self.addresses.kept.borrow_mut().forget_expired(now);
        self.tlsa.kept.borrow_mut().forget_expired(now);
        self.holders.kept.borrow_mut().forget_expired(now);
        self.sts.kept.borrow_mut().forget_expired(now);
    }
}

/// Answers to one kind of question: those kept, and those under way.
struct Asked<T> {
    kept: RefCell<Answers<Key, Answer<T>>>,
    /// At most one for each connection that is being opened.
    under_way: RefCell<HashMap<Key, Shared<LocalBoxFuture<'static, Answer<T>>>>>,
}

impl<T> Default for Asked<T> {
    fn default() -> Self {
        Self { kept: RefCell::new(Answers::new(ANSWERS_WEIGHT_MAX)), under_way: RefCell::default() }
    }
}

impl<T: Clone + 'static> Asked<T> {
    /// The answer that is kept, or that of the question under way, or that of a new question.
    async fn ask(
        &self,
        key: Key,
        links: &Links,
        question: impl FnOnce(oneshot::Sender<Answer<T>>) -> Question,
        weigh: impl Fn(&T) -> usize,
    ) -> Answer<T> {
        if let Some(answer) = self.kept.borrow_mut().get(&key, monotonic_millis()) {
            return answer.clone();
        }
        let ask = || {
            let (reply, answer) = oneshot::channel();
            let (question, service, name) = (question(reply), links.service.clone(), key.1.clone());
            async move {
                service.send(question).await;
                answer.await.unwrap_or_else(|_| stopped(&name))
            }
            .boxed_local()
            .shared()
        };
        let shared = self.under_way.borrow_mut().entry(key.clone()).or_insert_with(ask).clone();
        let answer = shared.clone().await;
        let is_first = {
            let mut under_way = self.under_way.borrow_mut();
            let same = under_way.get(&key).is_some_and(|other| other.ptr_eq(&shared));
            same && under_way.remove(&key).is_some()
        };
        if is_first {
            let weight = weight_of_text(&key.1)
                + match &answer.result {
                    Ok(found) => weigh(found),
                    Err(error) => weight_of_error(error),
                };
            let now = monotonic_millis();
            let valid = u64::try_from(answer.valid_for.as_millis()).unwrap_or(u64::MAX);
            let until = now.saturating_add(valid);
            self.kept.borrow_mut().keep(key, answer.clone(), weight, until, now);
        }
        answer
    }
}

fn weight_of_hosts(found: &MailHosts) -> usize {
    let host = |host: &mx::MxHost| {
        1 + weight_of_text(&host.name)
            + match &host.found {
                Ok(found) => weight_of_addresses(found),
                Err(error) => weight_of_error(error),
            }
    };
    1 + found.canonical.as_deref().map_or(0, weight_of_text) + found.hosts.iter().map(host).sum::<usize>()
}

fn weight_of_addresses(found: &Addresses) -> usize {
    1 + found.list.len() + found.canonical.as_deref().map_or(0, weight_of_text)
}

/// The key or the certificate may stand there in full.
fn weight_of_tlsa(found: &TlsaRecords) -> usize {
    1 + found.records.iter().map(|record| 1 + record.data.len().div_ceil(TEXT_UNIT_BYTES)).sum::<usize>()
}

fn weight_of_sts(found: &mta_sts::Found) -> usize {
    let hosts = found.policy.iter().flat_map(|policy| &policy.mx);
    1 + hosts.map(|host| 1 + weight_of_text(host)).sum::<usize>()
}

fn weight_of_error(error: &ResolveError) -> usize {
    1 + weight_of_text(&error.text)
}

fn weight_of_text(text: &str) -> usize {
    text.len() / TEXT_UNIT_BYTES
}

/// What led to a host's name.
struct Way {
    secure: bool,
    /// As in [`Candidate`].
    expanded: Option<Arc<str>>,
}

impl Way {
    /// The configuration names the host.
    const CONFIGURED: Self = Self { secure: true, expanded: None };
}

fn of_host(
    name: &str,
    port: u16,
    rank: usize,
    way: &Way,
    found: Addresses,
) -> impl Iterator<Item = Candidate> + use<> {
    let secure = way.secure && found.secure;
    let expanded = way.expanded.clone();
    let canonical: Option<Arc<str>> = found.canonical.map(Into::into);
    let name = name.to_owned();
    found.list.into_iter().map(move |address| Candidate {
        peer: Peer { name: name.clone(), address: SocketAddr::new(address, port) },
        rank,
        secure,
        canonical: canonical.clone(),
        expanded: expanded.clone(),
    })
}

/// The hosts in their order, each of a rank of its own. A smart host is the operator's own: while no name can be
/// looked up its mail waits.
fn ordered(
    mut found: Vec<Result<Vec<Candidate>, ResolveError>>,
    order: impl Iterator<Item = usize>,
) -> Result<Vec<Candidate>, NotFound> {
    let mut candidates = Vec::new();
    let mut missing = None;
    for (rank, index) in order.enumerate() {
        match std::mem::replace(&mut found[index], Ok(Vec::new())) {
            Ok(of_host) => candidates.extend(of_host.into_iter().map(|one| Candidate { rank, ..one })),
            Err(error) => missing = Some(error),
        }
    }
    candidates.truncate(CANDIDATES_MAX);
    match missing {
        Some(error) if candidates.is_empty() => Err(NotFound { lasting: false, trouble: waiting(&error) }),
        None if candidates.is_empty() => Err(without_hosts()),
        _ => Ok(candidates),
    }
}

/// Those that the relay may connect to. What DNS says of strangers is final; what the operator's own hosts lead
/// to is more likely a slip, and their mail waits.
fn admitted(
    lists: &NextHops,
    next_hop: &NextHop,
    mut found: Vec<Candidate>,
    is_whole: bool,
) -> Result<Vec<Candidate>, NotFound> {
    let mut refused = None;
    found.retain(|Candidate { peer, .. }| {
        if peer.socket().is_some() {
            return true;
        }
        let hop = policy::Hop {
            domain: next_hop.domain.as_deref(),
            host: Some(&peer.name),
            address: Some(peer.address.ip()),
        };
        match forbidden(lists, &hop) {
            None => true,
            Some(why) => {
                refused.get_or_insert_with(|| format!("mail to {} is not allowed: {why}", peer.host()));
                false
            }
        }
    });
    match refused {
        Some(text) if found.is_empty() => {
            let lasting = next_hop.domain.is_some() && is_whole;
            let status = Status(if lasting { 5 } else { 4 }, 7, 1);
            Err(NotFound { lasting, trouble: trouble(status, &text) })
        }
        _ => Ok(found),
    }
}

fn trouble(status: Status, text: &str) -> Trouble {
    Trouble { dsn: status.to_string().into(), text: text.into(), remote: "".into(), reply: None }
}

fn forbidden_domain(domain: &str) -> NotFound {
    let text = format!("mail for {domain} is not allowed: next_hops.deny has it");
    NotFound { lasting: true, trouble: trouble(Status(5, 7, 1), &text) }
}

/// Never asked of another route's servers: names of the inside must not go out.
fn without_resolver(name: &str) -> ResolveError {
    let text = format!("looking up {name}: its route names no resolver");
    ResolveError { kind: ResolveErrorKind::Temporary, text }
}

fn without_hosts() -> NotFound {
    let text = "the route has no hosts besides those of its table";
    NotFound { lasting: false, trouble: trouble(Status::NO_ROUTE_NOW, text) }
}

fn no_route(next_hop: &NextHop) -> NotFound {
    let domain = next_hop.domain.as_deref().unwrap_or("*");
    let text = format!("no route in the configuration covers the domain {domain}");
    NotFound { lasting: true, trouble: trouble(Status::NO_ROUTE, &text) }
}

fn told(error: &ResolveError) -> Trouble {
    trouble(error.kind.status(), &error.text)
}

fn waiting(error: &ResolveError) -> Trouble {
    let status = error.kind.status();
    Trouble { dsn: Status(4, status.1, status.2).to_string().into(), ..told(error) }
}

fn stopped<T>(name: &str) -> Answer<T> {
    let text = format!("looking up {name}: the service thread has stopped");
    Answer {
        result: Err(ResolveError { kind: ResolveErrorKind::Temporary, text }),
        valid_for: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::mailbox;
    use futures_util::future::join_all;

    fn answer(valid_for: Duration) -> Answer<Addresses> {
        let list = vec!["192.0.2.1".parse().unwrap()];
        Answer { result: Ok(Addresses { list, secure: true, canonical: None }), valid_for }
    }

    fn candidate(host: &str, address: &str) -> Candidate {
        let peer = Peer { name: host.into(), address: SocketAddr::new(address.parse().unwrap(), 25) };
        Candidate { peer, rank: 0, secure: false, canonical: None, expanded: None }
    }

    fn admitted_of(
        next_hop: &NextHop,
        is_whole: bool,
        hosts: &[(&str, &str)],
    ) -> Result<usize, (bool, String)> {
        let network = crate::config::network("192.0.2.0/24").unwrap();
        let deny = vec![crate::config::HopPattern::Network(network)];
        let lists = NextHops { deny, ..NextHops::default() };
        let found = hosts.iter().map(|(host, address)| candidate(host, address)).collect();
        let admitted = admitted(&lists, next_hop, found, is_whole);
        admitted.map(|left| left.len()).map_err(|found| (found.lasting, found.trouble.dsn.to_string()))
    }

    /// S26.
    #[test]
    fn what_may_not_be_connected_to_is_left_out_and_mail_for_nobody_else_returned() {
        let by_mx = NextHop { domain: Some("away.example".into()), ..NextHop::of_route(1) };
        let own = NextHop::of_route(0);
        let (bad, good) = (("mx.away.example", "192.0.2.7"), ("mx.away.example", "198.51.100.7"));
        assert_eq!(admitted_of(&by_mx, true, &[bad, good, bad]), Ok(1));
        assert_eq!(admitted_of(&by_mx, true, &[bad, bad]), Err((true, "5.7.1".into())));
        assert_eq!(
            admitted_of(&by_mx, false, &[bad]),
            Err((false, "4.7.1".into())),
            "another host may be found"
        );
        assert_eq!(admitted_of(&own, true, &[bad]), Err((false, "4.7.1".into())), "a slip returns nothing");
    }

    #[test]
    fn hosts_come_in_the_order_given_each_of_a_rank_of_its_own() {
        let of = |name: &str| Ok(vec![candidate(name, "192.0.2.1"), candidate(name, "192.0.2.2")]);
        let missing = || Err(without_resolver("c.example"));
        let found = vec![of("a.example"), missing(), of("b.example")];
        let ranks: Vec<_> = ordered(found, [2, 1, 0].into_iter()).unwrap();
        let ranks: Vec<_> = ranks.iter().map(|of| (of.peer.name.as_str(), of.rank)).collect();
        assert_eq!(ranks, [("b.example", 0), ("b.example", 0), ("a.example", 2), ("a.example", 2)]);
        let none = ordered(vec![missing()], [0].into_iter()).unwrap_err();
        assert!(!none.lasting && none.trouble.dsn.starts_with("4."), "{none:?}");
        assert!(!ordered(vec![], [].into_iter()).unwrap_err().lasting);
    }

    /// A zone's owner chooses how long its names are, and how much a record holds.
    #[test]
    fn what_is_kept_weighs_as_much_as_it_holds() {
        let name = |octets: usize| "n".repeat(octets);
        let addresses = |octets, count| Addresses {
            list: vec!["192.0.2.1".parse().unwrap(); count],
            secure: true,
            canonical: Some(name(octets)),
        };
        let hosts = |octets, count| {
            let host = mx::MxHost { name: name(octets), preference: 1, found: Ok(addresses(octets, 1)) };
            MailHosts { hosts: vec![host; count], secure: true, canonical: Some(name(octets)) }
        };
        let tlsa = |octets, count| {
            let record = crate::tls::dane::Tlsa { usage: 3, selector: 0, matching: 0, data: vec![0; octets] };
            TlsaRecords { records: vec![record; count], secure: true }
        };
        let sts = |octets, count| {
            let policy = mta_sts::Policy {
                mode: mta_sts::policy::Mode::Enforce,
                mx: vec![name(octets); count],
                max_age_seconds: 1,
            };
            mta_sts::Found { policy: Some(policy.into()), trouble: None }
        };
        for (octets, count) in [(1, 1), (100, 1), (250, 16), (1_000, 32)] {
            for (weight, held) in [
                (weight_of_addresses(&addresses(octets, count)), octets + 17 * count),
                (weight_of_hosts(&hosts(octets, count)), octets * (2 * count + 1)),
                (weight_of_tlsa(&tlsa(octets, count)), octets * count),
                (weight_of_sts(&sts(octets, count)), octets * count),
            ] {
                let (least, most) = (held / TEXT_UNIT_BYTES, 4 * count + 2 + held / TEXT_UNIT_BYTES);
                assert!(
                    (least..=most).contains(&weight),
                    "{octets} {count}: {weight}, not {least} to {most}"
                );
            }
        }
    }

    #[test]
    fn a_question_under_way_is_waited_for_and_its_answer_kept() {
        let (service, mut questions) = mailbox(16);
        let links = Links { ingest: vec![], delivery: vec![], service };
        let asked = Asked::<Addresses>::default();
        let ask = |name: &str| {
            let host: Arc<str> = name.into();
            let key = (0, host.clone());
            asked.ask(key, &links, |reply| Question::Addresses { resolver: 0, host, reply }, |_| 1)
        };
        let answers = async || {
            let mut count = 0;
            loop {
                let Question::Addresses { host, reply, .. } = questions.receive().await else { continue };
                count += 1;
                let valid = if &*host == "brief" { Duration::ZERO } else { Duration::from_secs(60) };
                drop(reply.send(answer(valid)));
                if &*host == "last" {
                    return count;
                }
            }
        };
        let asking = async {
            let many = join_all((0..20).map(|_| ask("host"))).await;
            assert!(many.iter().all(|answer| answer.result.as_ref().is_ok_and(|found| found.secure)));
            ask("host").await;
            join_all((0..20).map(|_| ask("brief"))).await;
            ask("brief").await;
            ask("last").await;
            assert!(asked.under_way.borrow().is_empty());
        };
        let mut answers = answers;
        let ((), count) =
            futures_lite::future::block_on(async { futures_util::future::join(asking, answers()).await });
        assert_eq!(count, 4, "host, brief twice, last");
    }
}
