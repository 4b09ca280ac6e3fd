//! The table of a file, in memory: addresses and the server of each.
//!
//! Pure; immutable once read. One line an entry, `ADDRESS HOST[:PORT]`, or the address alone for the route's own
//! hosts; `@DOMAIN` stands for every address of a domain that has no line of its own; `#` begins a comment. A host
//! has a dot or a colon, so that the `OK` of other relays' tables is not taken for one. A million entries of 30 octets
//! take some 38 MB: the addresses behind each other, and 8 octets each to find them.

use super::{Holder, folded, without_detail};
use crate::config::{self, SmartHost};
use std::collections::HashMap;
use std::sync::Arc;

/// A longer address is none (RFC 5321 section 4.5.3.1: 64 + 1 + 255), and `len` below must hold it.
const ADDRESS_OCTETS_MAX: usize = 320;
/// Servers that one table may name. Prevents a file of something else from taking memory; `host` must hold it.
const HOSTS_MAX: usize = ROUTE_HOSTS as usize;
/// The `host` of an address that stands alone.
const ROUTE_HOSTS: u16 = u16::MAX;
/// Octets of a wrong line that are shown.
const SHOWN_OCTETS_MAX: usize = 80;

#[derive(Clone, Copy)]
struct Entry {
    start: u32,
    len: u16,
    /// Of `Table::hosts`, or [`ROUTE_HOSTS`].
    host: u16,
}

const _: () = assert!(size_of::<Entry>() == 8, "entries are many");

#[derive(Default)]
pub struct Table {
    addresses: Vec<u8>,
    /// By address.
    entries: Vec<Entry>,
    hosts: Vec<Arc<SmartHost>>,
}

impl Table {
    /// Reads a whole file.
    ///
    /// # Errors
    /// The first bad line, with its number.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut table = Self::default();
        let mut lines = Vec::new();
        let mut known: HashMap<&str, u16> = HashMap::new();
        for (line, number) in text.lines().zip(1_u32..) {
            let line = line.split_once('#').map_or(line, |(before, _)| before);
            let mut words = line.split_ascii_whitespace();
            let Some(address) = words.next() else { continue };
            let host = words.next();
            if words.next().is_some() {
                return Err(format!(
                    "line {number}: \"{}\" is not an address and a host; allowed: ann@winery.example 10.1.0.10:25, or the address alone for the route's hosts",
                    shown(line)
                ));
            }
            let host = match host {
                None => ROUTE_HOSTS,
                Some(host) => match known.get(host) {
                    Some(index) => *index,
                    None => {
                        let index =
                            table.add_host(host).map_err(|wrong| format!("line {number}: {wrong}"))?;
                        known.insert(host, index);
                        index
                    }
                },
            };
            table.add(address, host).map_err(|wrong| format!("line {number}: {wrong}"))?;
            lines.push(number);
        }
        table.sort(&lines)?;
        Ok(table)
    }

    fn add_host(&mut self, host: &str) -> Result<u16, String> {
        // An address, a port and a socket have one of these too.
        if !host.trim_end_matches('.').contains(['.', ':']) {
            return Err(format!(
                "\"{}\" is no host; for mail to the route's hosts write the address alone; allowed: 10.1.0.10, mail.inside.example, localhost:25",
                shown(host)
            ));
        }
        let host = config::smart_host(host)?;
        if self.hosts.len() >= HOSTS_MAX {
            return Err(format!("more than {HOSTS_MAX} servers in one table"));
        }
        let index = self.hosts.len() as u16;
        self.hosts.push(Arc::new(host));
        Ok(index)
    }

    fn add(&mut self, address: &str, host: u16) -> Result<(), String> {
        let refuse = || {
            format!("\"{}\" is not an address; allowed: ann@winery.example, @winery.example", shown(address))
        };
        let key = match address.strip_prefix('@') {
            Some(domain) => format!("@{}", config::domain(domain).map_err(|_| refuse())?),
            None => {
                let key = folded(address).ok_or_else(refuse)?;
                let (_, domain) = key.rsplit_once('@').ok_or_else(refuse)?;
                config::domain(domain).map_err(|_| refuse())?;
                key
            }
        };
        if key.len() > ADDRESS_OCTETS_MAX {
            return Err(refuse());
        }
        let start = u32::try_from(self.addresses.len()).map_err(|_| "the table is too long".to_owned())?;
        self.entries.push(Entry { start, len: key.len() as u16, host });
        self.addresses.extend_from_slice(key.as_bytes());
        Ok(())
    }

    /// `lines`: the number of each entry's line.
    fn sort(&mut self, lines: &[u32]) -> Result<(), String> {
        let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
        let key = |index: &u32| self.address(&self.entries[*index as usize]);
        order.sort_by(|one, other| key(one).cmp(key(other)).then(one.cmp(other)));
        if let Some(twice) = order.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
            return Err(format!(
                "line {}: \"{}\" stands in line {} already; allowed: once",
                lines[twice[1] as usize],
                String::from_utf8_lossy(key(&twice[1])),
                lines[twice[0] as usize]
            ));
        }
        self.entries = order.into_iter().map(|index| self.entries[index as usize]).collect();
        self.addresses.shrink_to_fit();
        Ok(())
    }

    fn address(&self, entry: &Entry) -> &[u8] {
        &self.addresses[entry.start as usize..][..entry.len.into()]
    }

    fn get(&self, key: &str) -> Option<Holder> {
        let found = self.entries.binary_search_by(|entry| self.address(entry).cmp(key.as_bytes())).ok()?;
        Some(match self.entries[found].host {
            ROUTE_HOSTS => Holder::RouteHosts,
            host => Holder::Host(self.hosts[usize::from(host)].clone()),
        })
    }

    /// The address itself; without its detail; its domain.
    pub fn holder(&self, address: &str, detail: Option<char>) -> Holder {
        let Some(address) = folded(address) else { return Holder::Unknown };
        let short = || self.get(&without_detail(&address, detail)?);
        let domain = || self.get(&address[address.rfind('@')?..]);
        self.get(&address).or_else(short).or_else(domain).unwrap_or(Holder::Unknown)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether some address stands alone, so that the route must have hosts of its own.
    pub fn needs_route_hosts(&self) -> bool {
        self.entries.iter().any(|entry| entry.host == ROUTE_HOSTS)
    }

    /// Every server that it names.
    pub fn hosts(&self) -> &[Arc<SmartHost>] {
        &self.hosts
    }

    /// Octets of memory.
    pub fn octets(&self) -> usize {
        self.addresses.capacity() + self.entries.capacity() * size_of::<Entry>()
    }
}

fn shown(text: &str) -> impl std::fmt::Display + '_ {
    text[..text.floor_char_boundary(SHOWN_OCTETS_MAX)].trim().escape_debug()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(table: &Table, address: &str) -> Option<String> {
        match table.holder(address, Some('+')) {
            Holder::Host(host) => Some(format!("{}:{}", host.host, host.port)),
            _ => None,
        }
    }

    #[test]
    fn the_narrowest_entry_decides() {
        let text = "# mailboxes\n\nann@winery.example\t10.1.0.11\nBOB@Winery.Example. mbx2.inside.example:2525 # moved\n\
                    ann+lists@winery.example 10.1.0.13:25\n@cellar.example 10.1.0.14:25\nkay@cellar.example unix:/run/lmtp\n";
        let table = Table::read(text).unwrap();
        let expected = [
            ("ANN@winery.example", Some("10.1.0.11:25")),
            ("ann+x@winery.example", Some("10.1.0.11:25")),
            ("ann+Lists@winery.example", Some("10.1.0.13:25")),
            ("bob@winery.example", Some("mbx2.inside.example:2525")),
            ("eve@winery.example", None),
            ("an@winery.example", None),
            ("anybody@cellar.example", Some("10.1.0.14:25")),
            ("kay@cellar.example", Some("unix:/run/lmtp:0")),
            ("ann@sub.cellar.example", None),
            ("nonsense", None),
        ];
        for (address, expected) in expected {
            assert_eq!(host(&table, address).as_deref(), expected, "{address}");
        }
        assert_eq!(table.len(), 5);
        assert_eq!(
            Table::read("ann+x@y.example h.example").unwrap().holder("ann+x@y.example", None),
            Holder::Host(Arc::new(SmartHost { host: "h.example".into(), port: 25 }))
        );
    }

    #[test]
    fn an_address_alone_is_for_the_hosts_of_the_route() {
        let text = "ann@winery.example # no server\n@cellar.example\nkay@cellar.example 10.1.0.14\n\
                    mx@winery.example mbx:24\nv6@winery.example 2001:db8::1\n";
        let table = Table::read(text).unwrap();
        assert!(table.needs_route_hosts());
        for address in ["ANN@winery.example", "ann+x@winery.example", "eve@cellar.example"] {
            assert_eq!(table.holder(address, Some('+')), Holder::RouteHosts, "{address}");
        }
        assert_eq!(table.holder("eve@winery.example", Some('+')), Holder::Unknown);
        assert_eq!(host(&table, "kay@cellar.example").as_deref(), Some("10.1.0.14:25"));
        assert_eq!(host(&table, "mx@winery.example").as_deref(), Some("mbx:24"));
        assert_eq!(host(&table, "v6@winery.example").as_deref(), Some("2001:db8::1:25"));
        assert_eq!((table.len(), table.hosts().len()), (5, 3));
        assert!(!Table::read("ann@winery.example 10.1.0.11").unwrap().needs_route_hosts());
        assert!(!Table::default().needs_route_hosts());
    }

    #[test]
    fn a_bad_line_is_named() {
        let many: String = (0..=HOSTS_MAX).map(|n| format!("a{n}@x.example h{n}.example\n")).collect();
        let table = [
            ("a@x.example h.example\nb", "line 2: \"b\" is not an address"),
            (
                "a@x.example h.example more",
                "line 1: \"a@x.example h.example more\" is not an address and a host",
            ),
            (
                "a@x.example OK",
                "line 1: \"OK\" is no host; for mail to the route's hosts write the address alone",
            ),
            ("a@x.example mbx.", "line 1: \"mbx.\" is no host"),
            ("a@x.example h..example", "line 1: \"h..example\" is not a host"),
            ("a h.example", "line 1: \"a\" is not an address"),
            ("a@ h.example", "line 1: \"a@\" is not an address"),
            ("@ h.example", "line 1: \"@\" is not an address"),
            ("a@x..y h.example", "line 1: \"a@x..y\" is not an address"),
            (
                "a@x.example h.example\n\nA@X.example i.example",
                "line 3: \"a@x.example\" stands in line 1 already",
            ),
            (many.as_str(), "line 65536: more than 65535 servers"),
        ];
        for (text, expected) in table {
            let wrong = Table::read(text).err().unwrap_or_default();
            assert!(wrong.starts_with(expected), "{wrong}");
        }
        let long = format!("{}@x.example h.example", "a".repeat(400));
        assert!(Table::read(&long).is_err());
    }

    #[test]
    fn many_entries_are_compact() {
        let text: String =
            (0..100_000).map(|n| format!("user{n:06}@winery.example 10.1.0.{}\n", n % 7 + 1)).collect();
        let table = Table::read(&text).unwrap();
        assert_eq!((table.len(), table.hosts().len()), (100_000, 7));
        assert_eq!(
            host(&table, "user043210@winery.example").unwrap(),
            format!("10.1.0.{}:25", 43_210 % 7 + 1)
        );
        assert!(table.octets() < 100_000 * 40, "{}", table.octets());
    }
}
