//! The file of further addresses: which login may send from which.
//!
//! ```text
//! # a comment
//! LOGIN  ADDRESS @DOMAIN …
//! ```
//!
//! A login may stand on several lines; `*` is every address.

use crate::policy::SenderPattern;
use crate::smtp::sasl;
use std::collections::HashMap;

pub(super) const FILE_OCTETS_MAX: u64 = 16 << 20;

/// By login.
pub(super) type Senders = HashMap<String, Vec<SenderPattern>>;

pub(super) fn read(text: &str) -> Result<Senders, String> {
    let mut senders = Senders::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = |wrong: &str| format!("line {}: {wrong}", number + 1);
        let mut words = line.split_whitespace();
        let login = words.next().and_then(sasl::login).ok_or_else(|| place("not a login"))?;
        let patterns = senders.entry(login).or_default();
        for word in words {
            let pattern = SenderPattern::read(word);
            patterns.push(pattern.ok_or_else(|| place("allowed behind the login: addresses, @domain, *"))?);
        }
    }
    Ok(senders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up_and_bad_ones_are_named() {
        let senders = read("# all\nAnn@Winery.example sales@winery.example @cellar.example\nann@winery.example x@y.example\nroot *\n").unwrap();
        assert_eq!(senders["ann@winery.example"].len(), 3);
        assert_eq!(senders["root"], [SenderPattern::Any]);
        assert!(read("ann sales@winery.example\nbob sales").unwrap_err().starts_with("line 2: "));
    }
}
