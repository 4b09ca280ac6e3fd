//! A table of addresses that become other addresses, as Postfix's canonical(5) has it.
//!
//! Pure; read once at the start, immutable, shared by all delivery shards.
//!
//! ```text
//! # address           address
//! ann@old.example     ann.other@winery.example
//! @old.example        @winery.example
//! @lists.example      lists@winery.example
//! ```
//!
//! The address itself goes before its domain; one look-up, no further one of what came of it. Case does not count.

use std::collections::HashMap;
use std::fmt;

/// Entries of a table. Prevents that a wrong file takes the memory.
pub const ENTRIES_MAX: usize = 1_000_000;
/// Octets of its file.
pub const FILE_BYTES_MAX: u64 = 128 << 20;
/// Faults of one file that are told.
const FAULTS_MAX: usize = 5;

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Map(HashMap<String, String>);

/// How many it has; what they are is in the file.
impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entries", self.0.len())
    }
}

impl Map {
    /// # Errors
    /// The first faults, each with its line, and what is allowed.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut map = HashMap::new();
        let mut faults = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match entry(line) {
                Err(wrong) => faults.push(format!("line {}: {wrong}", index + 1)),
                Ok((from, _)) if map.contains_key(&from) => {
                    faults.push(format!("line {}: {from} stands there twice", index + 1));
                }
                Ok((from, to)) => drop(map.insert(from, to)),
            }
            if faults.len() == FAULTS_MAX {
                break;
            }
            if map.len() > ENTRIES_MAX {
                return Err(format!("has more than {ENTRIES_MAX} entries"));
            }
        }
        if faults.is_empty() { Ok(Self(map)) } else { Err(faults.join("; ")) }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, address: &str) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let lower = address.to_lowercase();
        let (local, _) = address.rsplit_once('@')?;
        let domain = &lower[lower.rfind('@')?..];
        let to = self.0.get(&lower).or_else(|| self.0.get(domain))?;
        Some(if to.starts_with('@') { format!("{local}{to}") } else { to.clone() })
    }
}

fn entry(line: &str) -> Result<(String, String), String> {
    const ALLOWED: &str = "allowed: address address, @domain @domain, or @domain address, in ASCII";
    let mut words = line.split_ascii_whitespace();
    let (Some(from), Some(to), None) = (words.next(), words.next(), words.next()) else {
        return Err(format!("\"{line}\" is not two addresses; {ALLOWED}"));
    };
    let is_domain =
        |text: &str| text.strip_prefix('@').is_some_and(|name| crate::config::domain(name).is_ok());
    let is_address = |text: &str| text.is_ascii() && crate::smtp::path::whole_mailbox(text).is_some();
    for word in [from, to] {
        if !is_domain(word) && !is_address(word) {
            return Err(format!("\"{word}\" is no address; {ALLOWED}"));
        }
    }
    if to.starts_with('@') && !from.starts_with('@') {
        return Err(format!("{from} would become a whole domain; {ALLOWED}"));
    }
    Ok((from.to_lowercase(), to.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_goes_before_its_domain() {
        let map = Map::read(
            "# c\nann@old.example a.other@new.example\n\n@old.example\t@new.example\n@lists.example all@new.example\n\"x y\"@old.example b@new.example",
        );
        let map = map.unwrap_err();
        assert!(map.contains("line 6") && map.contains("two addresses"), "{map}");
        let map = Map::read(
            "Ann@old.example a.other@new.example\n@Old.example @new.example\n@lists.example all@new.example",
        )
        .unwrap();
        for (address, expected) in [
            ("ann@old.example", Some("a.other@new.example")),
            ("ANN@OLD.example", Some("a.other@new.example")),
            ("Bob@old.example", Some("Bob@new.example")),
            ("\"x y\"@old.example", Some("\"x y\"@new.example")),
            ("bob@sub.old.example", None),
            ("who@lists.example", Some("all@new.example")),
            ("a.other@new.example", None),
            ("nobody", None),
            ("", None),
        ] {
            assert_eq!(map.get(address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn a_bad_line_is_told_with_its_number() {
        for (text, expected) in [
            ("a@b", "line 1: \"a@b\" is not two addresses"),
            ("\na@b.example c", "line 2: \"c\" is no address"),
            ("a@b.example @c.example", "a@b.example would become a whole domain"),
            ("a@b.example x@c.example\nA@b.example y@c.example", "line 2: a@b.example stands there twice"),
            ("j\u{f6}@b.example x@c.example", "is no address"),
        ] {
            let told = Map::read(text).unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
    }
}
