//! What a route changes about messages that go out on it: addresses of the envelope, fields of the header section.
//!
//! Pure; made once from the configuration, immutable, shared by all delivery shards. Rewriting belongs to delivery and
//! not to acceptance: the spool keeps messages as they were received, one message may leave by two routes in two
//! forms, DSNs of the relay name the addresses that their sender used, and a route without rules costs nothing.
//!
//! | | MAIL | RCPT | From, Sender, Reply-To … | To, Cc … |
//! |---|---|---|---|---|
//! | `senders` (table) | 1 | | 1 | |
//! | `recipients` (table) | | 1 | | 1 |
//! | `masquerade` | 2 | | 2 | with `masquerade_recipients` |
//! | `srs` | 3 | | | |
//! | `verp` | 3 | | | |
//!
//! The null reverse-path is never changed, nor is the next hop, which was chosen before. Whoever signs what this
//! changes must sign it afterwards: a signature over a changed field (DKIM, RFC 6376) does not hold any more.

pub mod addresses;
pub mod explain;
pub mod header;
pub mod map;
pub mod srs;

use crate::policy::SenderPattern;
use crate::smtp::parameters::xtext;
use crate::smtp::path::{self, PATH_OCTETS_MAX};
use map::Map;
use sluice_queue::{RcptParameters, Recipient};
use srs::Srs;
use std::collections::HashSet;
use std::sync::Arc;

/// Whose address a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Sender,
    Recipient,
}

/// `[route.rewrite]`.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `srs = true`: for messages of strangers to strangers.
    pub srs: Option<Arc<Srs>>,
    /// Senders that get an envelope sender for each recipient.
    pub verp: Vec<SenderPattern>,
    /// In front of the recipient, and in the place of its `@`.
    pub verp_delimiters: [char; 2],
    /// Domains that stand for everything below them, in lower case, the first that holds counts; with `!` in front:
    /// left alone.
    pub masquerade: Vec<String>,
    /// Local parts that masquerading leaves alone, in lower case.
    pub masquerade_except: Vec<String>,
    pub masquerade_recipients: bool,
    pub senders: Map,
    pub recipients: Map,
    /// Received fields of internal hops go.
    pub strip_received: bool,
    pub remove_headers: Vec<String>,
    /// Whole fields without CRLF.
    pub add_headers: Vec<String>,
    /// The organisation's own domains.
    pub inside: Inside,
}

/// `domains.accepted`.
#[derive(Clone, Debug, Default)]
pub struct Inside(Arc<HashSet<String>>);

impl Inside {
    /// Domains in lower case, `.suffix` for all below.
    pub fn new(accepted: &[String]) -> Self {
        Self(Arc::new(accepted.iter().cloned().collect()))
    }

    fn holds(&self, domain: &str) -> bool {
        let domain = domain.to_ascii_lowercase();
        let mut dots = memchr::memchr_iter(b'.', domain.as_bytes());
        self.0.contains(&domain) || dots.any(|at| self.0.contains(&domain[at..]))
    }

    /// The domain, or one above it.
    fn holds_or_above(&self, domain: &str) -> bool {
        let mut dots = memchr::memchr_iter(b'.', domain.as_bytes());
        self.holds(domain) || dots.any(|at| self.0.contains(&domain[at + 1..]))
    }
}

impl Rules {
    /// The envelope sender towards one recipient, both as they are in the spool; `None`: as it is. Wall clock.
    pub fn sender(&self, sender: &str, recipient: &str, now_micros: u64) -> Option<String> {
        if sender.is_empty() {
            return None;
        }
        let changed = self.canonical(Class::Sender, sender);
        let plain = changed.as_deref().unwrap_or(sender);
        let verp = self.verp.iter().any(|pattern| pattern.holds(plain));
        let made = match verp {
            true => verp_address(plain, recipient, self.verp_delimiters),
            false => self.srs_address(plain, recipient, now_micros),
        };
        made.or(changed)
    }

    fn srs_address(&self, sender: &str, recipient: &str, now_micros: u64) -> Option<String> {
        let srs = self.srs.as_ref()?;
        let foreign = |address| path::split_address(address).is_some_and(|(_, of)| !self.inside.holds(of));
        if foreign(sender) && foreign(recipient) { srs.forward(sender, now_micros) } else { None }
    }

    /// Whether the envelope sender may differ from recipient to recipient.
    pub fn divides_recipients(&self) -> bool {
        self.srs.is_some() || !self.verp.is_empty()
    }

    /// A recipient as RCPT names it; `None`: as it is. What it was goes along as ORCPT (RFC 3461 section 4.2), so
    /// that a DSN of the next hop names what the sender knows.
    pub fn recipient(&self, recipient: &Recipient) -> Option<Recipient> {
        let address = self.recipients.get(&recipient.address)?;
        let mut parameters: RcptParameters = recipient.parameters.as_deref().cloned().unwrap_or_default();
        if parameters.orcpt.is_empty() && recipient.address.is_ascii() {
            parameters.orcpt.push_str("rfc822;");
            xtext::encode(&recipient.address, &mut parameters.orcpt);
        }
        Some(Recipient { address, parameters: Some(Box::new(parameters)) })
    }

    pub fn changes_header(&self) -> bool {
        self.strip_received
            || !self.remove_headers.is_empty()
            || !self.add_headers.is_empty()
            || self.has_addresses(Class::Sender)
            || self.has_addresses(Class::Recipient)
    }

    /// Whether fields of this class are looked into.
    pub(crate) fn has_addresses(&self, class: Class) -> bool {
        let (map, masquerade) = self.of(class);
        !map.is_empty() || masquerade
    }

    fn of(&self, class: Class) -> (&Map, bool) {
        let masquerade = !self.masquerade.is_empty();
        match class {
            Class::Sender => (&self.senders, masquerade),
            Class::Recipient => (&self.recipients, masquerade && self.masquerade_recipients),
        }
    }

    /// An address of the header section; `None`: as it is.
    pub fn header_address(&self, class: Class, address: &str) -> Option<String> {
        self.canonical(class, address)
    }

    fn canonical(&self, class: Class, address: &str) -> Option<String> {
        let (map, masquerade) = self.of(class);
        let mapped = map.get(address);
        let plain = mapped.as_deref().unwrap_or(address);
        let masked = if masquerade { self.masked(plain) } else { None };
        masked.or(mapped)
    }

    /// `user@host.corp.example` as `user@corp.example`.
    fn masked(&self, address: &str) -> Option<String> {
        let (local, domain) = path::split_address(address)?;
        let lower = domain.to_ascii_lowercase();
        let is_below = |above: &str| lower.strip_suffix(above).is_some_and(|rest| rest.ends_with('.'));
        let rule = self.masquerade.iter().find(|rule| {
            let above = rule.trim_start_matches('!');
            lower == above || is_below(above)
        })?;
        let stays = rule.starts_with('!') || lower == *rule;
        let except = local.trim_matches('"').to_lowercase();
        (!stays && !self.masquerade_except.contains(&except)).then(|| format!("{local}@{rule}"))
    }

    /// Whether a host (in lower case) has a name of inside.
    pub(crate) fn is_inside(&self, host: &str) -> bool {
        let below =
            |above: &str| host == above || host.strip_suffix(above).is_some_and(|rest| rest.ends_with('.'));
        self.inside.holds_or_above(host)
            || self.masquerade.iter().any(|rule| below(rule.trim_start_matches('!')))
    }
}

/// `owner+user=domain@own`: who cannot be reached is in the address that a bounce comes back to. `None` when
/// that is no address, or too long for a path.
fn verp_address(sender: &str, recipient: &str, [front, at]: [char; 2]) -> Option<String> {
    let (owner, own) = path::split_address(sender)?;
    let (user, domain) = path::split_address(recipient)?;
    if user.starts_with('"') || owner.starts_with('"') || domain.starts_with('[') {
        return None;
    }
    let made = format!("{owner}{front}{user}{at}{domain}@{own}");
    // Longer local parts than RFC 5321 grants them are what every VERP makes; receivers take them.
    (made.len() + 2 <= PATH_OCTETS_MAX).then_some(made)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Config;

    pub(crate) const RULES: &str = r#"
        masquerade = ["!keep.corp.example", "corp.example"]
        masquerade_except = ["root"]
        strip_received = true
        remove_headers = ["X-Originating-IP"]
        add_headers = ["X-Relay: yes"]
    "#;

    /// `[route.rewrite]` in a configuration whose own domain is own.example.
    pub(crate) fn rules(keys: &str) -> Rules {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("sluice-rewrite-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(directory.join(name), text).unwrap();
        };
        file("keys", "0123456789abcdef\n");
        file("senders", "ann@own.example ann.other@own.example\n@old.example @own.example\n");
        file("recipients", "info@away.example desk@away.example\n");
        let keys = keys.replace("DIR", directory.to_str().unwrap());
        let text = format!(
            "hostname = \"relay.example\"\n[srs]\ndomain = \"srs.example\"\nkeys_file = \"{}/keys\"\n\
            [domains]\naccepted = [\"own.example\"]\n\
            [[listener]]\nname = \"in\"\nbind = [\"127.0.0.1:25\"]\nclients = [\"127.0.0.0/8\"]\n\
            [[route]]\ndomains = [\"*\"]\nhosts = [\"192.0.2.1:25\"]\n[route.rewrite]\n{keys}",
            directory.display()
        );
        let config = Config::parse(&text, "test");
        std::fs::remove_dir_all(&directory).unwrap();
        let config = config.unwrap();
        config.routes[0].rewrite.clone().expect("rules")
    }

    const NOW: u64 = 1_795_345_494_000_000;

    #[test]
    fn internal_host_names_are_masked() {
        let rules = rules(RULES);
        for (address, expected) in [
            ("ann@pc7.corp.example", Some("ann@corp.example")),
            ("Ann@a.b.Corp.example", Some("Ann@corp.example")),
            ("\"a b\"@pc7.corp.example", Some("\"a b\"@corp.example")),
            ("ann@corp.example", None),
            ("root@pc7.corp.example", None),
            ("ROOT@pc7.corp.example", None),
            ("ann@keep.corp.example", None),
            ("ann@x.keep.corp.example", None),
            ("ann@notcorp.example", None),
            ("ann@[10.0.0.1]", None),
            ("ann", None),
        ] {
            assert_eq!(rules.sender(address, "b@away.example", NOW).as_deref(), expected, "{address}");
            assert_eq!(rules.header_address(Class::Sender, address).as_deref(), expected, "{address}");
            assert_eq!(rules.header_address(Class::Recipient, address), None);
        }
        assert_eq!(rules.sender("", "b@away.example", NOW), None);
    }

    #[test]
    fn the_table_comes_before_the_mask_and_the_new_return_address_last() {
        let rules = rules(
            "senders = \"DIR/senders\"\nmasquerade = [\"own.example\"]\nmasquerade_recipients = true\nsrs = true",
        );
        for (sender, expected) in [
            ("ann@own.example", Some("ann.other@own.example")),
            ("bob@old.example", Some("bob@own.example")),
            ("bob@pc.own.example", Some("bob@own.example")),
            ("bob@own.example", None),
        ] {
            assert_eq!(rules.sender(sender, "b@away.example", NOW).as_deref(), expected, "{sender}");
        }
        let foreign = rules.sender("eve@else.example", "b@away.example", NOW).unwrap();
        assert!(
            foreign.starts_with("SRS0=") && foreign.ends_with("=else.example=eve@srs.example"),
            "{foreign}"
        );
        assert_eq!(rules.sender("eve@else.example", "b@own.example", NOW), None, "it is for inside");
        assert_eq!(rules.header_address(Class::Sender, "eve@else.example"), None, "only the envelope");
        assert_eq!(
            rules.header_address(Class::Recipient, "b@pc.own.example").as_deref(),
            Some("b@own.example")
        );
    }

    #[test]
    fn each_recipient_has_a_return_address_of_its_own() {
        let rules = rules("verp = [\"news@own.example\"]");
        let table = [
            ("news@own.example", "user@away.example", Some("news+user=away.example@own.example")),
            ("News@own.example", "u+x@away.example", Some("News+u+x=away.example@own.example")),
            ("other@own.example", "user@away.example", None),
            ("", "user@away.example", None),
            ("news@own.example", "\"a b\"@away.example", None),
            ("news@own.example", "user@[192.0.2.1]", None),
        ];
        for (sender, recipient, expected) in table {
            assert_eq!(rules.sender(sender, recipient, NOW).as_deref(), expected, "{recipient}");
        }
        let long = format!("{}@{}.example", "u".repeat(64), "d".repeat(180));
        assert_eq!(rules.sender("news@own.example", &long, NOW), None);
        assert!(rules.divides_recipients() && !rules.changes_header());
    }

    #[test]
    fn a_recipient_of_another_name_keeps_its_own_as_the_original_one() {
        let rules = rules("recipients = \"DIR/recipients\"");
        let changed = rules.recipient(&Recipient::new("info@away.example")).unwrap();
        assert_eq!(changed.address, "desk@away.example");
        assert_eq!(changed.parameters.unwrap().orcpt, "rfc822;info@away.example");
        assert_eq!(rules.recipient(&Recipient::new("x@away.example")), None);
        assert!(!rules.divides_recipients() && rules.changes_header());
    }
}
