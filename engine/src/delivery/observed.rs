//! What the opening of a connection has shown of its host's TLS, for the reports that domains ask for (RFC 8460).
//!
//! Lives on one delivery shard. Nothing is told where nobody reports; what finds no room on its way to the service
//! thread is lost, for mail does not wait for statistics.

use super::connection::{Connection, TlsFault, Unopened, Wish};
use super::demands::Unfit;
use super::shard::DeliveryShard;
use super::verdict::{Peer, Status};
use crate::observe::log;
use crate::shard::links::{NextHop, Question};
use crate::tls::demand::{Demand, Refused};
use crate::tls::outward::CertificateFault;
use crate::tls_report::{Applied, Observed, ResultType};
use std::net::IpAddr;

/// A host to which nothing may be sent.
pub fn passed_over(shard: &DeliveryShard, next_hop: &NextHop, peer: &Peer, unfit: &Unfit) {
    let (applied, result) = match &unfit.why {
        Refused::Lookup(_) => (Applied::TlsaUnknown, ResultType::DnssecInvalid),
        Refused::Policy(_) => (Applied::Sts(None), ResultType::StsPolicyFetchError),
        Refused::NoDane => (Applied::None, ResultType::DaneRequired),
        Refused::NotListed => (Applied::Sts(unfit.sts.clone()), ResultType::ValidationFailure),
    };
    tell(shard, next_hop, applied, (peer, None), Some((result, unfit.failure.text.clone())));
}

/// A host that was connected to.
pub fn opened(
    shard: &DeliveryShard,
    next_hop: &NextHop,
    wish: &Wish<'_>,
    (peer, local): (&Peer, Option<IpAddr>),
    opened: &Result<Connection, Unopened>,
) {
    let failure = match opened {
        Ok(connection) => match (&connection.tls, wish.demand) {
            (None, _) if wish.declines_tls() => return,
            (None, _) => Some((ResultType::StarttlsNotSupported, "STARTTLS was not offered".to_owned())),
            (Some(_), Demand::Encrypt(_)) => {
                Some((ResultType::TlsaInvalid, "no TLSA record can be used".to_owned()))
            }
            (Some(tls), _) => tls.testing.as_ref().map(|(fault, why)| (result(*fault), why.clone())),
        },
        Err(Unopened::Tls(failure, TlsFault::Certificate(fault))) => {
            Some((result(*fault), failure.text.clone()))
        }
        Err(Unopened::Tls(failure, TlsFault::Handshake | TlsFault::FirstWords)) => {
            Some((ResultType::ValidationFailure, failure.text.clone()))
        }
        Err(Unopened::Failed(failure)) if failure.status == Status::TLS_NEEDED => {
            Some((ResultType::StarttlsNotSupported, failure.text.clone()))
        }
        // It says nothing of TLS.
        Err(Unopened::Failed(_)) => return,
    };
    if let (Some((_, why)), Demand::StsTesting(_)) = (&failure, wish.demand) {
        let (domain, host) = (wish.domain.unwrap_or_default(), peer.host());
        let text =
            format!("the MTA-STS policy of {domain}, which it tests, would keep mail from {host}: {why}");
        log::note("delivery", &text);
    }
    let applied = match wish.demand {
        Demand::Route => Applied::None,
        Demand::Sts(policy) | Demand::StsTesting(policy) => Applied::Sts(Some(policy.clone())),
        Demand::Dane(dane) | Demand::Encrypt(dane) => Applied::Tlsa(dane.clone()),
    };
    tell(shard, next_hop, applied, (peer, local), failure);
}

fn result(fault: CertificateFault) -> ResultType {
    match fault {
        CertificateFault::OtherName => ResultType::CertificateHostMismatch,
        CertificateFault::Expired => ResultType::CertificateExpired,
        CertificateFault::Untrusted => ResultType::CertificateNotTrusted,
        CertificateFault::Other => ResultType::ValidationFailure,
    }
}

fn tell(
    shard: &DeliveryShard,
    next_hop: &NextHop,
    applied: Applied,
    (peer, local): (&Peer, Option<IpAddr>),
    failure: Option<(ResultType, String)>,
) {
    // Smart hosts are no business of the recipients' domains.
    let (Some(report), Some(domain)) = (&shard.config.tls_report, &next_hop.domain) else { return };
    // An address literal can ask for nothing, and reports about reports would never end.
    if domain.starts_with('[') || report.routes.iter().any(|(_, twin)| *twin == usize::from(next_hop.route)) {
        return;
    }
    let seen = Observed {
        domain: domain.clone(),
        applied,
        local,
        host: peer.name.clone(),
        address: Some(peer.address.ip()),
        failure,
    };
    let _ = shard.links.service.try_send(Question::TlsObserved(Box::new(seen)));
}
