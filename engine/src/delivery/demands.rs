//! What the receiving side makes of a route's rule, host by host: its TLSA records and the policy of the domain
//! are asked for before the host is connected to, and [`demand`] decides.
//!
//! Lives on one delivery shard. Answers are kept by [`Lookup`](super::lookup::Lookup) for as long as they hold.

use super::failure::{Failure, Scope};
use super::lookup::Candidate;
use super::shard::DeliveryShard;
use super::verdict::Status;
use crate::mta_sts;
use crate::shard::links::NextHop;
use crate::tls::demand::{Demand, Refused, TlsaFound, demand};
use futures_util::StreamExt;
use futures_util::stream;
use std::sync::Arc;

/// Hosts of one next hop that are asked about side by side. Prevents one domain with many hosts, whose TLSA records
/// nobody answers for, from taking every place of the resolver.
const HOSTS_AT_ONCE: usize = 4;

/// What a host demands, or why it is passed over.
pub type Demanded = Result<Demand, Unfit>;

/// A host that is passed over.
pub struct Unfit {
    pub failure: Failure,
    pub why: Refused,
    /// The policy that says so, where one does.
    pub sts: Option<Arc<mta_sts::Policy>>,
}

/// Of each candidate; each host is asked about once.
pub async fn of_candidates(
    shard: &DeliveryShard,
    next_hop: &NextHop,
    candidates: &[Candidate],
) -> Vec<Demanded> {
    if !is_raised(shard, next_hop) {
        return candidates.iter().map(|_| Ok(Demand::Route)).collect();
    }
    let asking = candidates.iter().map(|candidate| of_candidate(shard, next_hop, candidate));
    stream::iter(asking).buffered(HOSTS_AT_ONCE).collect().await
}

/// Of one.
pub async fn of_candidate(shard: &DeliveryShard, next_hop: &NextHop, candidate: &Candidate) -> Demanded {
    let (tls, peer) = (shard.tls_of(next_hop), &candidate.peer);
    if !is_raised(shard, next_hop) {
        return Ok(Demand::Route);
    }
    let tlsa = tlsa(shard, next_hop, candidate).await;
    let sts = match &tlsa {
        // It is not needed where DANE decides.
        TlsaFound::Records(_, records) if records.iter().any(|record| record.is_usable()) => Ok(None),
        TlsaFound::Failed(_) => Ok(None),
        _ => sts(shard, next_hop).await,
    };
    let further = further_names(next_hop.domain.as_ref(), candidate);
    let demanded = match &sts {
        Ok(sts) => demand(tls.rule, tlsa, sts.as_ref(), &peer.name, &further),
        Err(why) => Err(Refused::Policy(why.clone())),
    };
    demanded.map_err(|why| {
        let text = match &why {
            Refused::Lookup(text) => {
                format!("the TLSA records of {} are not known, so nothing is sent to it: {text}", peer.host())
            }
            Refused::Policy(text) => {
                let domain = next_hop.domain.as_deref().unwrap_or_default();
                format!(
                    "the MTA-STS policy of {domain} is not known, so nothing is sent to its hosts: {text}"
                )
            }
            Refused::NoDane => {
                format!(
                    "{} has no TLSA records (DNSSEC) that could be used, as the route demands",
                    peer.host()
                )
            }
            Refused::NotListed => {
                let domain = next_hop.domain.as_deref().unwrap_or_default();
                format!("the MTA-STS policy of {domain} does not list {}", peer.host())
            }
        };
        let failure = Failure::local(Scope::Session, Status::TLS_FAILED, text).cut();
        Unfit { failure, why, sts: sts.clone().ok().flatten() }
    })
}

/// The names besides the one of the TLSA records that a certificate may have where an authority vouches for it
/// (RFC 7672 section 3.2.2): the recipients' domain, as it stands in their addresses and at the end of its aliases,
/// and the host as the MX record or the configuration names it. Only for a way that is authentic all along; on
/// another no TLSA record is asked for.
fn further_names(domain: Option<&Arc<str>>, candidate: &Candidate) -> Vec<Arc<str>> {
    let host = Arc::from(candidate.peer.name.as_str());
    domain.into_iter().chain(&candidate.expanded).cloned().chain([host]).collect()
}

/// Whether there is anything to ask.
pub fn is_raised(shard: &DeliveryShard, next_hop: &NextHop) -> bool {
    let route = shard.config.routes.get(usize::from(next_hop.route));
    route.is_some_and(|route| {
        route.tls.rule.can_be_raised() && (route.tls.dane || route.tls.mta_sts) || needs_dane(route)
    })
}

fn needs_dane(route: &crate::config::Route) -> bool {
    route.tls.rule == crate::config::TlsRule::DaneOnly
}

/// At the name at the end of the aliases, then at the one before them (RFC 7672 section 2.2.2).
async fn tlsa(shard: &DeliveryShard, next_hop: &NextHop, candidate: &Candidate) -> TlsaFound {
    let Some(route) = shard.config.routes.get(usize::from(next_hop.route)) else {
        return TlsaFound::NotAsked;
    };
    let peer = &candidate.peer;
    // An address has no TLSA records.
    if !route.tls.dane || !candidate.secure || peer.name.parse::<std::net::IpAddr>().is_ok() {
        return TlsaFound::NotAsked;
    }
    let name: Arc<str> = peer.name.as_str().into();
    for base in candidate.canonical.iter().chain([&name]) {
        let answer = shard.lookup.tlsa(base, peer.address.port(), route.resolver, &shard.links).await;
        match answer.result {
            Ok(found) if found.secure && !found.records.is_empty() => {
                return TlsaFound::Records(base.clone(), found.records);
            }
            Ok(_) => {}
            Err(error) => return TlsaFound::Failed(error.text),
        }
    }
    TlsaFound::None
}

/// The policy of the recipients' domain.
///
/// # Errors
/// Why nobody knows now whether it has one.
async fn sts(shard: &DeliveryShard, next_hop: &NextHop) -> Result<Option<Arc<mta_sts::Policy>>, String> {
    let Some(route) = shard.config.routes.get(usize::from(next_hop.route)) else { return Ok(None) };
    // An address literal announces nothing.
    let is_asked = |domain: &&Arc<str>| route.tls.mta_sts && !domain.starts_with('[');
    let Some(domain) = next_hop.domain.as_ref().filter(is_asked) else { return Ok(None) };
    let answer = shard.lookup.sts(domain, next_hop.route.into(), &shard.links).await;
    answer.result.map(|found| found.policy).map_err(|error| error.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::verdict::Peer;

    /// RFC 7672 section 3.2.2.
    #[test]
    fn a_certificate_may_have_the_domain_as_written_the_one_behind_its_aliases_and_the_name_of_the_host() {
        // Domain, domain behind aliases, host; the host's own alias is the base or counts for nothing.
        for (domain, expanded, expected) in [
            (Some("a.test"), None, "a.test mx.b.test"),
            (Some("a.test"), Some("b.test"), "a.test b.test mx.b.test"),
            (None, None, "mx.b.test"),
        ] {
            let candidate = Candidate {
                peer: Peer { name: "mx.b.test".into(), address: ([192, 0, 2, 1], 25).into() },
                rank: 0,
                secure: true,
                canonical: Some("host.c.test".into()),
                expanded: expanded.map(Arc::from),
            };
            let names = further_names(domain.map(Arc::from).as_ref(), &candidate);
            assert_eq!(names.join(" "), expected);
        }
    }
}
