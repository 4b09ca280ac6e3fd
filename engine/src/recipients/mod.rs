//! Per-recipient routing: which internal server holds this mailbox.
//!
//! A route asks a file ([`mod@file`], a [`Table`] in memory, read by every shard) or a directory ([`ldap`], on the
//! service thread, through its bounded mailbox; delivery shards keep the answers). What is done with the answer:
//! `delivery::sorting`. A table of a file also refuses strangers at RCPT (`session::rcpt`).

pub mod file;
pub mod ldap;
pub mod table;

pub use table::Table;

use crate::config::{Recipients, SmartHost};
use crate::smtp::idn;
use crate::smtp::path::split_address;
use std::borrow::Cow;
use std::sync::Arc;

/// Which server holds a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Host(Arc<SmartHost>),
    /// The table has it and names no server: the route's own hosts get it.
    RouteHosts,
    /// The table does not have it.
    Unknown,
    /// The table says something that nobody can follow.
    Unclear(Arc<str>),
}

/// An address as tables have it: in lower case, the domain in its xn-- form. `None` for what is no address.
pub fn folded(address: &str) -> Option<String> {
    let (local, domain) = split_address(address)?;
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let domain = if domain.is_ascii() { Cow::Borrowed(domain) } else { idn::a_labels(domain)?.into() };
    Some(format!("{}@{}", local.to_lowercase(), domain.to_ascii_lowercase()))
}

/// A folded address without the detail of its local part, where it has one.
pub fn without_detail(folded: &str, detail: Option<char>) -> Option<String> {
    let (local, domain) = folded.rsplit_once('@')?;
    let (base, _) = local.split_once(detail?)?;
    (!base.is_empty()).then(|| format!("{base}@{domain}"))
}

/// The mailbox that every domain has (RFC 5321 section 4.5.1).
pub fn is_postmaster(address: &str) -> bool {
    split_address(address).is_some_and(|(local, _)| local.eq_ignore_ascii_case("postmaster"))
}

/// What is told of a recipient that is the route's own hosts', where the route has none: its mail waits.
pub const NO_HOSTS: &str =
    "the table has the recipient and names no server, and the route has no hosts of its own";

/// The answer of a route's table of a file; `None` where it must be asked elsewhere, or the file is just being
/// exchanged.
pub fn listed(recipients: &Recipients, address: &str) -> Option<Holder> {
    let crate::config::Table::File(file) = &recipients.table else { return None };
    let table = file.now()?;
    Some(table.holder(address, recipients.detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_without_case_and_in_a_labels() {
        let table = [
            ("Ann@Winery.Example", Some("ann@winery.example")),
            ("ann@winery.example.", Some("ann@winery.example")),
            ("ann@b\u{fc}cher.example", Some("ann@xn--bcher-kva.example")),
            ("\"a@b\"@winery.example", Some("\"a@b\"@winery.example")),
            ("ann", None),
        ];
        for (address, expected) in table {
            assert_eq!(folded(address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn a_detail_begins_behind_something() {
        assert_eq!(without_detail("ann+list@x", Some('+')).as_deref(), Some("ann@x"));
        assert_eq!(without_detail("ann+a+b@x", Some('+')).as_deref(), Some("ann@x"));
        assert_eq!(without_detail("+list@x", Some('+')), None);
        assert_eq!(without_detail("ann@x", Some('+')), None);
        assert_eq!(without_detail("ann+list@x", None), None);
        assert!(is_postmaster("PostMaster@x") && !is_postmaster("postmaster2@x"));
    }
}
