//! What is known of a recipient before its message is taken: that no server holds its mailbox, or that mail may not go
//! to its domain. So a sender hears it at RCPT, and no DSN is owed to anybody.
//!
//! Pure but for the table, which another thread exchanges. Only what needs no question is known here: a directory
//! and DNS are asked at delivery.

use crate::config::{Config, HopPattern, NextHops, Recipients, Table, Target, Unknown, matches_domain};
use crate::policy::next_hops::denies_domain;
use crate::recipients::{Holder, is_postmaster, listed};
use crate::smtp::reply::{self, Answer};
use crate::steering::domain_of;

/// Built once for all sessions of a listener; empty, and then free, where nothing is known of anybody.
#[derive(Clone, Debug, Default)]
pub struct KnownNow {
    /// In the order of the configuration; empty when no route refuses by its table and no domain is denied.
    routes: Vec<RouteFacts>,
    lists: NextHops,
}

#[derive(Clone, Debug)]
struct RouteFacts {
    domains: Vec<String>,
    looks_up: bool,
    has_hosts: bool,
    /// The table of a file that refuses who is not in it.
    refuses: Option<Recipients>,
}

impl KnownNow {
    pub fn new(config: &Config) -> Self {
        let refuses = |recipients: &&Recipients| {
            recipients.unknown == Unknown::Refuse && matches!(recipients.table, Table::File(_))
        };
        let facts = |route: &crate::config::Route| RouteFacts {
            domains: route.domains.clone(),
            looks_up: matches!(route.target, Target::Mx { .. }),
            has_hosts: !matches!(&route.target, Target::SmartHosts(hosts) if hosts.is_empty()),
            refuses: route.recipients.as_ref().filter(refuses).cloned(),
        };
        let routes: Vec<_> = config.routes.iter().map(facts).collect();
        let denies_names = config.next_hops.deny.iter().any(|one| matches!(one, HopPattern::Name(_)));
        if !denies_names && routes.iter().all(|route| route.refuses.is_none()) {
            return Self::default();
        }
        Self { routes, lists: config.next_hops.clone() }
    }

    /// The answer to a recipient that nobody would get; its domain in A-labels.
    pub fn refusal(&self, address: &str) -> Option<&'static Answer> {
        if self.routes.is_empty() {
            return None;
        }
        let domain = domain_of(address);
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let matches =
            |route: &&RouteFacts| route.domains.iter().any(|pattern| matches_domain(pattern, domain));
        let route = self.routes.iter().find(matches)?;
        if route.looks_up && denies_domain(&self.lists, domain) {
            return Some(&reply::NEXT_HOP_DENIED);
        }
        let recipients = route.refuses.as_ref()?;
        let is_unknown = listed(recipients, address) == Some(Holder::Unknown);
        let is_taken = is_postmaster(address) && route.has_hosts;
        (is_unknown && !is_taken).then_some(&reply::NO_SUCH_RECIPIENT)
    }
}
