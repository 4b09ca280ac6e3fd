//! What the parts of a configuration must be to each other: names, addresses, routes and resolvers.

use std::net::{IpAddr, SocketAddr};

use super::auth::AuthDraft;
use super::document::{At, Notes};
use super::read::{ListenerDraft, ResolverDraft, RouteDraft};
use super::types::{Dnssec, Relay, TlsMode, TlsRule};

/// Shorter prefixes hold much of the Internet: whoever relays for them is an open relay.
const RELAY_PREFIX_V4_MIN: u8 = 8;
/// fc00::/7 is the widest private block.
const RELAY_PREFIX_V6_MIN: u8 = 7;

pub(super) fn names<'a>(notes: &Notes, key: &str, names: impl Iterator<Item = &'a Option<At<String>>>) {
    let mut seen: Vec<&At<String>> = Vec::new();
    for name in names.flatten() {
        match seen.iter().find(|earlier| earlier.value == name.value) {
            Some(first) => {
                let wrong =
                    format!("\"{}\" is taken by line {}; allowed: another name", name.value, first.line);
                notes.fault(name.line, key, wrong);
            }
            None => seen.push(name),
        }
    }
}

pub(super) fn relays(notes: &Notes, listeners: &[ListenerDraft]) {
    for listener in listeners.iter().filter(|listener| listener.relay.value == Relay::Any) {
        for client in &listener.clients {
            let shortest =
                if client.value.address.is_ipv4() { RELAY_PREFIX_V4_MIN } else { RELAY_PREFIX_V6_MIN };
            if client.value.prefix < shortest {
                let wrong = format!(
                    "{} with relay = \"any\" would make an open relay; allowed: networks of /{shortest} or longer, or relay = \"accepted\"",
                    client.value
                );
                notes.fault(client.line, "listener.clients", wrong);
            }
        }
    }
}

/// A listener cannot speak TLS without a certificate. `general`: there is a sound `[tls]`.
pub(super) fn certificates(notes: &Notes, listeners: &[ListenerDraft], general: bool) {
    for listener in listeners {
        if listener.tls.value != TlsMode::Off && listener.own_tls.is_none() && !general {
            let wrong = "needs a certificate; allowed: off, or [tls] with certificate and key";
            notes.fault(listener.tls.line, "listener.tls", wrong);
        }
    }
}

/// AUTH needs somebody who verifies logins, and TLS, without which no password may be asked for.
pub(super) fn authentication(notes: &Notes, listeners: &[ListenerDraft], there: bool) {
    for listener in listeners {
        let relay = &listener.relay;
        let (line, key, what) = match &listener.auth {
            Some(at) if at.value => (at.line, "listener.auth", "auth = true"),
            Some(at) if relay.value == Relay::Authenticated => {
                let wrong = "false lets nobody in beside relay = \"authenticated\"; allowed: true";
                notes.fault(at.line, "listener.auth", wrong);
                continue;
            }
            None if relay.value == Relay::Authenticated => {
                (relay.line, "listener.relay", "\"authenticated\"")
            }
            _ => continue,
        };
        if !there {
            let wrong = format!("{what} needs somebody who verifies logins; allowed: with a section [auth]");
            notes.fault(line, key, wrong);
        }
        if listener.tls.value == TlsMode::Off {
            let wrong = format!(
                "{what} needs TLS, lest passwords go over the wire in clear text; allowed: tls = \"require\", \"implicit\" or \"offer\""
            );
            notes.fault(line, key, wrong);
        }
    }
}

/// The index of the resolver that looks up the hosts of back ends.
pub(super) fn auth_resolver(
    notes: &Notes,
    draft: Option<&AuthDraft>,
    resolvers: &[ResolverDraft],
) -> Option<usize> {
    let draft = draft?;
    let Some(wanted) = &draft.resolver else {
        if let Some((line, key)) = draft.named {
            let wrong = format!(
                "is missing: the host of auth.{key}.url must be looked up; allowed: the name of a [[resolver]]"
            );
            notes.fault(line, "auth.resolver", wrong);
        }
        return None;
    };
    let is = |resolver: &ResolverDraft| resolver.name.as_ref().is_some_and(|at| at.value == wanted.value);
    let index = resolvers.iter().position(is);
    if index.is_none() {
        let wrong =
            format!("\"{}\" is not a resolver; allowed: one that a [[resolver]] defines", wanted.value);
        notes.fault(wanted.line, "auth.resolver", wrong);
    }
    index
}

/// A listener that asks where no route lets it be asked is a slip: nothing would happen.
pub(super) fn cut_through(notes: &Notes, listeners: &[ListenerDraft], routes: &[RouteDraft]) {
    let allowed = routes.iter().map(|route| route.cut_through.mode).max().unwrap_or_default();
    for at in listeners.iter().filter_map(|listener| listener.cut_through.as_ref()) {
        if at.value > allowed {
            let wrong = "no route allows that much; allowed: with cut_through in the [[route]] to servers of your own";
            notes.fault(at.line, "listener.cut_through", wrong);
        }
    }
}

/// Every address that is listened on, in the order of the file; `admin` last.
pub(super) fn addresses(notes: &Notes, listeners: &[ListenerDraft], admin: Option<At<SocketAddr>>) {
    let binds = listeners.iter().flat_map(|listener| &listener.bind).map(|at| ("listener.bind", at));
    let mut seen: Vec<&At<SocketAddr>> = Vec::new();
    for (key, bind) in binds.chain(admin.iter().map(|at| ("admin.bind", at))) {
        if let Some(first) = seen.iter().find(|earlier| clash(earlier.value, bind.value)) {
            let why = if first.value == bind.value {
                format!("{} is taken by line {}", bind.value, first.line)
            } else {
                format!(
                    "{} and {} of line {} overlap: one covers the other",
                    bind.value, first.value, first.line
                )
            };
            notes.fault(bind.line, key, format!("{why}; allowed: each address and port once"));
        }
        seen.push(bind);
    }
}

/// IPv6 listeners take IPv6 only, so `[::]:25` and `0.0.0.0:25` live side by side.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let covers =
        |wild: IpAddr, ip: IpAddr| wild == ip || wild.is_unspecified() && wild.is_ipv4() == ip.is_ipv4();
    one.port() == other.port() && (covers(one.ip(), other.ip()) || covers(other.ip(), one.ip()))
}

/// What rewrites on a route must have behind it.
pub(super) fn rewrites(notes: &Notes, routes: &[RouteDraft], srs: bool) {
    for route in routes {
        let Some(rewrite) = &route.rewrite else { continue };
        if let Some(at) = rewrite.srs.as_ref().filter(|_| !srs) {
            let wrong = "has no keys; allowed: with [srs], which has domain and keys_file";
            notes.fault(at.line, "route.rewrite.srs", wrong);
        }
        if route.mx && !rewrite.rules.recipients.is_empty() {
            let wrong = "stands on a route with mx = true, whose hosts are chosen by the domain before; allowed: on a route with hosts";
            notes.fault(route.line, "route.rewrite.recipients", wrong);
        }
    }
}

/// Returns for each route the index of its resolver.
pub(super) fn resolvers(
    notes: &Notes,
    routes: &[RouteDraft],
    resolvers: &[ResolverDraft],
) -> Vec<Option<usize>> {
    let names = || resolvers.iter().flat_map(|resolver| &resolver.name).map(|name| name.value.as_str());
    let known = names().collect::<Vec<_>>().join(", ");
    let mut found = Vec::with_capacity(routes.len());
    for route in routes {
        let index = route.resolver.as_ref().and_then(|wanted| {
            resolvers
                .iter()
                .position(|resolver| resolver.name.as_ref().is_some_and(|at| at.value == wanted.value))
        });
        if let (Some(wanted), None) = (&route.resolver, index) {
            let allowed = if known.is_empty() { "one that a [[resolver]] defines" } else { &known };
            let wrong = format!("\"{}\" is not a resolver; allowed: {allowed}", wanted.value);
            notes.fault(wanted.line, "route.resolver", wrong);
        }
        if route.resolver_absent {
            resolver_absent(notes, route, &known);
        }
        found.push(index);
    }
    found
}

/// What the receiving side announces cannot be had without DNSSEC (RFC 7672 section 2.2) or authorities.
pub(super) fn announced(
    notes: &Notes,
    routes: &[RouteDraft],
    links: &[Option<usize>],
    resolvers: &[ResolverDraft],
    authorities: bool,
) {
    for (route, link) in routes.iter().zip(links) {
        let knows_dnssec = link.is_some_and(|index| resolvers[index].dnssec != Dnssec::Off);
        // A smart host that is named by its address has no TLSA records, and "dane" does without.
        let by_address =
            !route.mx && route.hosts.iter().all(|host| host.value.host.host.parse::<IpAddr>().is_ok());
        let needs = match route.tls.rule {
            TlsRule::Dane => !by_address,
            rule => rule == TlsRule::DaneOnly,
        };
        if needs && !knows_dnssec {
            let wrong = "asks for DANE, and no DNS answer of this route counts as authentic; allowed: with a resolver that has dnssec = \"validate\" or \"trust-ad\"";
            notes.fault(route.line, "route.tls.policy", wrong);
        }
        let asks = route.mx && route.tls.mta_sts && route.tls.rule.can_be_raised();
        if asks && (!authorities || route.tls.authorities.is_none()) {
            let key = if authorities { "delivery.tls.authorities" } else { "mta_sts.authorities" };
            let wrong = "is missing beside mta_sts = true, and this host has no authorities of its own; allowed: the PEM file of those that issue the certificates of the Internet";
            notes.fault(route.line, key, wrong);
        }
    }
}

fn resolver_absent(notes: &Notes, route: &RouteDraft, known: &str) {
    let hosts = route.hosts.iter().map(|At { value, line }| (&value.host, *line));
    let mut by_name =
        hosts.filter(|(host, _)| host.socket().is_none() && host.host.parse::<IpAddr>().is_err());
    let (line, why) = match by_name.next() {
        Some((host, line)) => (line, format!("is missing: the host name {} must be looked up", host.host)),
        None if route.mx => (route.line, "is missing: mx = true looks names up".to_owned()),
        None => return,
    };
    let allowed = if known.is_empty() {
        "the name of a [[resolver]] with its DNS servers; the relay never uses /etc/resolv.conf, so that internal and external names stay apart"
    } else {
        known
    };
    notes.fault(line, "route.resolver", format!("{why}; allowed: {allowed}"));
}

/// A pattern behind one that covers it is never reached: more often a slip than a wish.
pub(super) fn address_spaces(notes: &Notes, routes: &[RouteDraft]) {
    let mut seen: Vec<&At<String>> = Vec::new();
    for pattern in routes.iter().flat_map(|route| &route.domains) {
        if let Some(first) = seen.iter().find(|earlier| covers(&earlier.value, &pattern.value)) {
            let wrong = format!(
                "\"{}\" is never reached: \"{}\" in line {} comes first; allowed: the narrower one first",
                pattern.value, first.value, first.line
            );
            notes.fault(pattern.line, "route.domains", wrong);
        }
        seen.push(pattern);
    }
}

/// Does the earlier pattern take everything that the later one would?
fn covers(earlier: &str, later: &str) -> bool {
    earlier == "*" || earlier == later || earlier.starts_with('.') && later.ends_with(earlier)
}

/// `*` matches every domain, `.example.com` everything below that name but not the name itself, anything
/// else itself alone. In any case; the pattern is in lower case.
pub(crate) fn matches_domain(pattern: &str, domain: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    if !pattern.starts_with('.') {
        return domain.eq_ignore_ascii_case(pattern);
    }
    match domain.len().checked_sub(pattern.len()) {
        None | Some(0) => false,
        Some(head) => domain.as_bytes()[head..].eq_ignore_ascii_case(pattern.as_bytes()),
    }
}

/// Mail for the organisation's own domains stays inside; it is never routed by what the outside says.
pub(super) fn accepted(notes: &Notes, accepted: &[At<String>], routes: &[RouteDraft]) {
    for domain in accepted {
        let matches =
            |route: &&RouteDraft| route.domains.iter().any(|at| matches_domain(&at.value, &domain.value));
        let name = &domain.value;
        match routes.iter().find(matches) {
            None => {
                let wrong = format!(
                    "no route takes \"{name}\"; allowed: a [[route]] with domains = [\"{name}\"] and hosts"
                );
                notes.fault(domain.line, "domains.accepted", wrong);
            }
            Some(route) if route.mx && route.domains.iter().all(|at| at.value != *name) => {
                let wrong = format!(
                    "\"{name}\" would go by MX look-up through the route of line {}: own domains are never looked up outside; allowed: a [[route]] before it with domains = [\"{name}\"] and hosts",
                    route.line
                );
                notes.fault(domain.line, "domains.accepted", wrong);
            }
            Some(_) => {}
        }
    }
}
