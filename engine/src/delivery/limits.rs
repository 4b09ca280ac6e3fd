//! What a peer says that it takes in one session and one transaction (LIMITS, RFC 9422), and the recipients of a
//! message that go in one transaction under it.
//!
//! Pure; used by the client session and by the one who serves a connection. A limit that is malformed is passed
//! over: the peer's replies then say what it does not take.

use std::collections::HashSet;

/// Digits of a limit's value (RFC 9422 section 4).
const DIGITS_MAX: usize = 6;

/// RFC 9422 section 4.1 to 4.3; `None` where the peer named none, else at least 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// MAILMAX: transactions of one session.
    pub mails: Option<u32>,
    /// RCPTMAX: recipients of one transaction.
    pub recipients: Option<u32>,
    /// RCPTDOMAINMAX: different domains among them.
    pub domains: Option<u32>,
}

impl Limits {
    /// Reads the words behind LIMITS. Of a limit that is named twice the smaller one holds.
    pub fn take<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for word in words {
            let Some((name, value)) = word.split_once('=') else { continue };
            let limit = match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => &mut self.mails,
                "RCPTMAX" => &mut self.recipients,
                "RCPTDOMAINMAX" => &mut self.domains,
                _ => continue,
            };
            if let Some(value) = number(value) {
                *limit = Some(limit.map_or(value, |other| other.min(value)));
            }
        }
    }

    /// Takes out of `recipients` those that go in one transaction, at least one and at most `most`, in their order;
    /// the others stay. `address_of` gives the forward-path of an index.
    pub fn take_share<'a>(
        &self,
        recipients: &mut Vec<u32>,
        most: usize,
        address_of: impl Fn(u32) -> &'a str,
    ) -> Vec<u32> {
        let most = most.min(self.recipients.map_or(usize::MAX, |max| max as usize)).max(1);
        let Some(domains_max) = self.domains else {
            let rest = recipients.split_off(recipients.len().min(most));
            return std::mem::replace(recipients, rest);
        };
        let mut domains = HashSet::new();
        let (mut share, mut rest) = (Vec::new(), Vec::new());
        for &recipient in recipients.iter() {
            let address = address_of(recipient);
            let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain).to_ascii_lowercase();
            let fits = domains.contains(&domain) || domains.len() < domains_max as usize;
            if share.len() < most && fits {
                domains.insert(domain);
                share.push(recipient);
            } else {
                rest.push(recipient);
            }
        }
        *recipients = rest;
        share
    }
}

fn number(value: &str) -> Option<u32> {
    let is_number =
        (1..=DIGITS_MAX).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| value.parse().ok()).flatten().filter(|&value| value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_in_any_case_and_malformed_ones_passed_over() {
        let limits = |mails, recipients, domains| Limits { mails, recipients, domains };
        let none = Limits::default();
        for (text, expected) in [
            ("", none),
            ("RCPTMAX=100 MAILMAX=20 RCPTDOMAINMAX=1", limits(Some(20), Some(100), Some(1))),
            ("mailmax=7", limits(Some(7), None, None)),
            ("MAILMAX=999999", limits(Some(999_999), None, None)),
            ("MAILMAX=1000000", none),
            ("MAILMAX=0 RCPTMAX=00", none),
            ("MAILMAX=9 MAILMAX=3 MAILMAX=x", limits(Some(3), None, None)),
            ("MAILMAX RCPTMAX= RCPTDOMAINMAX=-1 =5 X=5 MAILMAX=+5", none),
            ("RCPTMAX=0005", limits(None, Some(5), None)),
        ] {
            let mut found = Limits::default();
            found.take(text.split_ascii_whitespace());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn every_recipient_goes_once_in_its_order_and_no_transaction_passes_a_limit() {
        let addresses = ["a@x", "b@Y", "c@x", "d@z", "e@y", "f@x", "\"g@h\"@x", "i"];
        let limits = |recipients, domains| Limits { mails: None, recipients, domains };
        for (limits, most, expected) in [
            (limits(None, None), 100, "01234567"),
            (limits(None, None), 3, "012 345 67"),
            (limits(Some(2), None), 3, "01 23 45 67"),
            (limits(Some(9), None), 3, "012 345 67"),
            (limits(None, Some(1)), 100, "0256 14 3 7"),
            (limits(None, Some(2)), 100, "012456 37"),
            (limits(Some(2), Some(1)), 100, "02 14 3 56 7"),
            (limits(None, Some(99)), 100, "01234567"),
            (limits(None, None), 0, "0 1 2 3 4 5 6 7"),
        ] {
            let mut left: Vec<u32> = (0..8).collect();
            let mut shares = Vec::new();
            while !left.is_empty() {
                let share = limits.take_share(&mut left, most, |index| addresses[index as usize]);
                assert!(!share.is_empty());
                shares.push(share.iter().map(ToString::to_string).collect::<String>());
            }
            assert_eq!(shares.join(" "), expected, "{limits:?} {most}");
        }
    }
}
