//! The names of next hops, as conditions and the summary use them.
//!
//! Pure; made once from a configuration. A recipient on an MX route has its domain as the name of its next
//! hop, one on a route with smart hosts their addresses, one in the table of a file its server, and one that was rerouted what it was rerouted to.

use super::action::Destination;
use super::pattern::Pattern;
use super::{Part, domain_of};
use crate::config::{Config, Recipients, Target};
use crate::recipients::{Holder, listed};
use std::borrow::Cow;
use std::sync::Arc;

/// What a recipient without a route is listed under.
const NO_ROUTE: &str = "without a route";

/// How next hops are called under one configuration.
pub struct HopNames {
    config: Option<Arc<Config>>,
    /// By route: the smart hosts, each and all together; empty on an MX route.
    hosts: Vec<Hosts>,
}

#[derive(Default)]
struct Hosts {
    each: Vec<String>,
    all: String,
    recipients: Option<Recipients>,
}

impl Hosts {
    /// Where the table of a file sends a recipient. What a directory says is known where it is asked only.
    fn listed(&self, address: &str) -> Option<String> {
        match listed(self.recipients.as_ref()?, address)? {
            Holder::Host(host) => Some(Destination::Host((*host).clone()).to_string()),
            Holder::RouteHosts | Holder::Unknown | Holder::Unclear(_) => None,
        }
    }
}

impl HopNames {
    pub fn new(config: &Arc<Config>) -> Self {
        let hosts = config.routes.iter().map(|route| match &route.target {
            Target::SmartHosts(hosts) => {
                let each: Vec<String> =
                    hosts.iter().map(|host| Destination::Host(host.host.clone()).to_string()).collect();
                Hosts { all: each.join(", "), each, recipients: route.recipients.clone() }
            }
            Target::Mx { .. } => Hosts::default(),
        });
        Self { config: Some(config.clone()), hosts: hosts.collect() }
    }

    /// For a spool of which no configuration is known: every next hop is called by its domain.
    pub fn by_domain() -> Self {
        Self { config: None, hosts: Vec::new() }
    }

    /// The smart hosts of a recipient's route, `None` on an MX route; an error when there is no route.
    fn hosts(&self, domain: &str) -> Result<Option<&Hosts>, ()> {
        let Some(config) = &self.config else { return Ok(None) };
        let route = config.route_for(domain).ok_or(())?;
        let is_mx = matches!(config.routes[route].target, Target::Mx { .. });
        Ok(Some(&self.hosts[route]).filter(|_| !is_mx))
    }

    /// The next hop of a recipient, for people.
    pub fn name<'a>(&'a self, part: &Part<'a>) -> Cow<'a, str> {
        if let Some(via) = part.via {
            return via.into();
        }
        let domain = domain_of(part.address);
        match self.hosts(domain) {
            Err(()) => NO_ROUTE.into(),
            Ok(None) => lower(domain),
            Ok(Some(hosts)) => match hosts.listed(part.address) {
                Some(host) => host.into(),
                None => hosts.all.as_str().into(),
            },
        }
    }

    /// A pattern may mean a domain, a smart host with or without its port, or all of a route's hosts.
    pub fn matches(&self, pattern: &Pattern, part: &Part<'_>) -> bool {
        let host = |text: &str| {
            let bare = text.rsplit_once(':').map_or(text, |(host, _)| host);
            pattern.matches(text) || pattern.matches(bare.trim_matches(['[', ']']))
        };
        if let Some(via) = part.via {
            return host(via) || via.strip_prefix("mx:").is_some_and(|domain| pattern.matches(domain));
        }
        let domain = domain_of(part.address);
        match self.hosts(domain) {
            Err(()) => pattern.matches(NO_ROUTE),
            Ok(None) => pattern.matches(domain),
            Ok(Some(hosts)) => match hosts.listed(part.address) {
                Some(listed) => host(&listed),
                None => pattern.matches(&hosts.all) || hosts.each.iter().any(|each| host(each)),
            },
        }
    }
}

/// Copies only what has capitals.
pub(super) fn lower(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|octet| octet.is_ascii_uppercase()) {
        true => text.to_ascii_lowercase().into(),
        false => text.into(),
    }
}
