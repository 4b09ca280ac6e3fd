//! From a next hop to the hosts that are tried for it, in order.
//!
//! Lives on one delivery shard. Answers of the resolvers are kept for as long as they say, good ones
//! and bad ones, so the way to the service thread is paid on a miss only.

use super::hop::Trouble;
use super::verdict::{Peer, Status};
use crate::clock::monotonic_millis;
use crate::config::{Config, SmartHost, Target};
use crate::resolve::error::{ResolveError, ResolveErrorKind};
use crate::resolve::mx::{self, MxHost};
use crate::resolve::service::Answer;
use crate::shard::links::{Links, NextHop, Question};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Answers kept by one shard. Prevents a flood of domains from taking all memory.
const ANSWERS_MAX: usize = 100_000;
/// Addresses tried for one next hop in one attempt, over all its hosts.
const PEERS_MAX: usize = 32;

/// Why a next hop has no host to try.
#[derive(Clone, Debug)]
pub struct NotFound {
    /// Asking again is of no use: its messages bounce.
    pub lasting: bool,
    pub trouble: Trouble,
}

#[derive(Default)]
pub struct Lookup {
    mx: Answers<Vec<MxHost>>,
    addresses: Answers<Vec<IpAddr>>,
    attempts: Cell<u64>,
}

type Answers<T> = RefCell<HashMap<(usize, Arc<str>), Kept<T>>>;

struct Kept<T> {
    until: u64,
    answer: Answer<T>,
}

impl Lookup {
    /// At least one peer, or why there is none.
    pub async fn peers(
        &self,
        config: &Config,
        links: &Links,
        next_hop: &NextHop,
    ) -> Result<Vec<Peer>, NotFound> {
        let route = config.routes.get(usize::from(next_hop.route));
        if let Some(via) = &next_hop.via {
            let resolver = route.and_then(|route| route.resolver);
            return self.smart_hosts(std::slice::from_ref(&**via), resolver, links).await;
        }
        let (target, resolver) = match route {
            Some(route) => (&route.target, route.resolver),
            None => return Err(no_route(next_hop)),
        };
        match (target, &next_hop.domain) {
            (Target::SmartHosts(hosts), _) => self.smart_hosts(hosts, resolver, links).await,
            (Target::Mx { port }, Some(domain)) => self.mx(domain, *port, resolver.unwrap_or(0), links).await,
            (Target::Mx { .. }, None) => Err(no_route(next_hop)),
        }
    }

    async fn smart_hosts(
        &self,
        hosts: &[SmartHost],
        resolver: Option<usize>,
        links: &Links,
    ) -> Result<Vec<Peer>, NotFound> {
        let mut peers = Vec::new();
        let mut missing = None;
        for SmartHost { host, port } in hosts {
            let found = match host.parse::<IpAddr>() {
                Ok(address) => Ok(vec![address]),
                Err(_) => self.addresses_of(host.as_str().into(), resolver.unwrap_or(0), links).await.result,
            };
            match found {
                Ok(addresses) => {
                    let peer =
                        |address| Peer { name: host.clone(), address: SocketAddr::new(address, *port) };
                    peers.extend(addresses.into_iter().map(peer));
                }
                Err(error) => missing = Some(error),
            }
        }
        peers.truncate(PEERS_MAX);
        match missing {
            // A smart host is the operator's own: its mail waits until the name is back.
            Some(error) if peers.is_empty() => Err(NotFound { lasting: false, trouble: waiting(&error) }),
            _ => Ok(peers),
        }
    }

    async fn mx(
        &self,
        domain: &Arc<str>,
        port: u16,
        resolver: usize,
        links: &Links,
    ) -> Result<Vec<Peer>, NotFound> {
        let key = (resolver, domain.clone());
        let kept = kept(&self.mx, &key);
        let answer = match kept {
            Some(answer) => answer,
            None => {
                let (reply, answer) = oneshot::channel();
                links.service.send(Question::Mx { resolver, domain: domain.clone(), reply }).await;
                let answer = answer.await.unwrap_or_else(|_| stopped(domain));
                keep(&self.mx, key, answer.clone());
                answer
            }
        };
        match answer.result {
            Ok(mut hosts) => {
                // A kept answer has one order; equal hosts share the load all the same.
                self.attempts.set(self.attempts.get().wrapping_add(1));
                mx::order_hosts(&mut hosts, self.attempts.get());
                let peers = hosts.into_iter().flat_map(|host| {
                    host.addresses.into_iter().map(move |address| Peer {
                        name: host.name.clone(),
                        address: SocketAddr::new(address, port),
                    })
                });
                Ok(peers.take(PEERS_MAX).collect())
            }
            Err(error) => Err(NotFound { lasting: error.kind.is_lasting(), trouble: told(&error) }),
        }
    }

    async fn addresses_of(&self, host: Arc<str>, resolver: usize, links: &Links) -> Answer<Vec<IpAddr>> {
        let key = (resolver, host.clone());
        if let Some(answer) = kept(&self.addresses, &key) {
            return answer;
        }
        let (reply, answer) = oneshot::channel();
        links.service.send(Question::Addresses { resolver, host: host.clone(), reply }).await;
        let answer = answer.await.unwrap_or_else(|_| stopped(&host));
        keep(&self.addresses, key, answer.clone());
        answer
    }

    /// The next look-up asks again for what was not found.
    pub fn forget_failed(&self) {
        self.mx.borrow_mut().retain(|_, kept| kept.answer.result.is_ok());
        self.addresses.borrow_mut().retain(|_, kept| kept.answer.result.is_ok());
    }

    pub fn forget_expired(&self) {
        let now = monotonic_millis();
        self.mx.borrow_mut().retain(|_, kept| kept.until > now);
        self.addresses.borrow_mut().retain(|_, kept| kept.until > now);
    }
}

fn kept<T: Clone>(answers: &Answers<T>, key: &(usize, Arc<str>)) -> Option<Answer<T>> {
    let answers = answers.borrow();
    let kept = answers.get(key)?;
    (kept.until > monotonic_millis()).then(|| kept.answer.clone())
}

fn keep<T>(answers: &Answers<T>, key: (usize, Arc<str>), answer: Answer<T>) {
    let mut answers = answers.borrow_mut();
    if answers.len() >= ANSWERS_MAX {
        answers.clear();
    }
    let until =
        monotonic_millis().saturating_add(u64::try_from(answer.valid_for.as_millis()).unwrap_or(u64::MAX));
    answers.insert(key, Kept { until, answer });
}

fn no_route(next_hop: &NextHop) -> NotFound {
    let domain = next_hop.domain.as_deref().unwrap_or("*");
    let text = format!("no route in the configuration covers the domain {domain}");
    NotFound {
        lasting: true,
        trouble: Trouble {
            dsn: Status::NO_ROUTE.to_string().into(),
            text: text.into(),
            remote: "".into(),
            reply: None,
        },
    }
}

fn told(error: &ResolveError) -> Trouble {
    Trouble {
        dsn: error.kind.status().to_string().into(),
        text: error.text.as_str().into(),
        remote: "".into(),
        reply: None,
    }
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
