//! The way of a recipient's mail in words: for the matrix, and for `sluice explain`.
//!
//! Routes are counted from 1, in the order of the file.

use crate::config::{BalancedHost, Config, Protocol, Recipients, Route, SmartHost, Table, Target, Unknown};
use crate::steering::Destination;
use std::fmt;

/// `10.1.0.10:25`, `[2001:db8::1]:25`, `unix:/run/lmtp`.
pub fn host(host: &SmartHost) -> String {
    Destination::Host(host.clone()).to_string()
}

/// The way of a route, or of what none covers.
pub fn way(config: &Config, route: Option<usize>) -> String {
    match route {
        None => "no route: returned with 5.4.4".into(),
        Some(index) => format!("route {}: {}", index + 1, target(&config.routes[index])),
    }
}

/// `10.1.0.10:25 (3), 10.1.0.11:25 (1), else 10.1.0.12:25`.
pub fn target(route: &Route) -> String {
    let hosts = match &route.target {
        Target::Mx { port: 25 } => "MX".into(),
        Target::Mx { port } => format!("MX, port {port}"),
        Target::SmartHosts(hosts) => in_words(hosts),
    };
    let protocol = if route.protocol == Protocol::Lmtp { "LMTP " } else { "" };
    match &route.recipients {
        None => format!("{protocol}{hosts}"),
        Some(recipients) => {
            let else_to = match recipients.unknown {
                Unknown::Hosts => hosts,
                Unknown::Refuse if names_no_server(recipients) => {
                    format!("{hosts} where it names no server, else 5.1.1")
                }
                Unknown::Refuse => "5.1.1".into(),
            };
            format!("{protocol}by {}, else {else_to}", table(recipients))
        }
    }
}

/// Whether some addresses of a file stand there alone. Of a directory nobody knows.
fn names_no_server(recipients: &Recipients) -> bool {
    let Table::File(file) = &recipients.table else { return false };
    file.now().is_some_and(|table| table.needs_route_hosts())
}

/// The table of a route.
pub fn table(recipients: &Recipients) -> impl fmt::Display + '_ {
    fmt::from_fn(|f| match &recipients.table {
        Table::File(file) => write!(f, "{}", file.path().display()),
        Table::Ldap(ldap) => write!(f, "LDAP {}:{}", ldap.server.host, ldap.server.port),
    })
}

fn in_words(hosts: &[BalancedHost]) -> String {
    let mut words = String::new();
    for (place, group) in hosts.chunk_by(|one, other| one.priority == other.priority).enumerate() {
        let shares = group.len() > 1;
        let one = |of: &BalancedHost| match shares {
            true => format!("{} ({})", host(&of.host), of.weight),
            false => host(&of.host),
        };
        words.push_str(if place > 0 { ", else " } else { "" });
        words.push_str(&group.iter().map(one).collect::<Vec<_>>().join(", "));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_addresses_alone_shows_the_hosts() {
        let mut route = Config::demonstration().routes.remove(0);
        let mut shown = |text: &str| {
            let file = crate::recipients::file::RecipientFile::of(text);
            let table = Table::File(std::sync::Arc::new(file));
            route.recipients = Some(Recipients { table, unknown: Unknown::Refuse, detail: None });
            target(&route)
        };
        assert_eq!(shown("ann@x.example 10.1.0.1"), "by recipients, else 5.1.1");
        assert_eq!(
            shown("ann@x.example"),
            "by recipients, else 127.0.0.1:2527 where it names no server, else 5.1.1"
        );
    }

    #[test]
    fn shares_and_what_takes_over_can_be_told_apart() {
        let of = |host: &str, priority, weight| BalancedHost {
            host: crate::config::smart_host(host).unwrap(),
            priority,
            weight,
        };
        let hosts =
            [of("10.1.0.10", 0, 3), of("mx:26", 0, 1), of("2001:db8::1", 1, 1), of("unix:/run/lmtp", 2, 1)];
        assert_eq!(
            in_words(&hosts),
            "10.1.0.10:25 (3), mx:26 (1), else [2001:db8::1]:25, else unix:/run/lmtp"
        );
    }
}
