//! What a receiving site's words mean for the pace at which it is sent to: a table from replies to actions.
//!
//! Pure. The built-in table is data, `backoff.toml` beside this file; the operator's `[[backoff]]` rules stand in
//! front of it and the first rule that fits wins. A rule changes when and how fast a site is tried, never what
//! becomes of a message: that is the failure table's.

use super::reply::Reply;
use std::time::Duration;

/// What a greylisting host's own hint may ask for. Prevents a host from having mail wait for days.
const HINT_SECONDS_MAX: u64 = 3_600;

/// One `[[backoff]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The whole reply on one line, `421 4.7.28 *`.
    pub reply: Pattern,
    /// Names of hosts it holds for; empty: all.
    pub hosts: Vec<Pattern>,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// As if no rule had fitted.
    Nothing,
    /// No more than so many connections to the site and so many messages a minute (0: any) for that long.
    Slow { connections: usize, messages_per_minute: u32, time: Duration },
    /// Nothing is sent to the site for that long; then one connection looks.
    Suspend { time: Duration },
    /// The message is tried again after what the reply says (`try again in 300 seconds`), else after this; zero:
    /// by its schedule.
    Wait { time: Duration },
}

/// Text with `*` for any run of characters; upper and lower case are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase().into())
    }

    /// Greedy from the left, going back to the last `*` only: linear in practice, and never worse than the
    /// product of both lengths, which are bounded.
    pub fn fits(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t, mut star) = (0, 0, None);
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                star = Some((p, t));
                p += 1;
            } else if pattern.get(p) == Some(&text[t].to_ascii_lowercase()) {
                (p, t) = (p + 1, t + 1);
            } else if let Some((star_p, star_t)) = star {
                (p, t) = (star_p + 1, star_t + 1);
                star = Some((star_p, star_t + 1));
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first rule that fits. What stands in angle brackets is an address that the host repeats, chosen by whoever sent
/// the mail: no rule looks at it.
pub fn action(rules: &[Rule], host: &str, reply: &Reply) -> Action {
    let text = without_paths(&reply.to_string());
    let fits = |rule: &&Rule| {
        let is_host = || rule.hosts.iter().any(|pattern| pattern.fits(host));
        rule.reply.fits(&text) && (rule.hosts.is_empty() || is_host())
    };
    match rules.iter().find(fits).map_or(Action::Nothing, |rule| rule.action) {
        Action::Wait { time } => Action::Wait { time: hint(&text).unwrap_or(time) },
        action => action,
    }
}

/// `450 <bob@example.org>: no` as `450 <>: no`; up to the last bracket, for a quoted local part may hold one.
fn without_paths(text: &str) -> String {
    match (text.find('<'), text.rfind('>')) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &text[..=from], &text[to..]),
        _ => text.to_owned(),
    }
}

/// What a greylisting host says of its own time: `in 300 seconds`, `in 5 minutes`, `in 00:04:59`.
fn hint(text: &str) -> Option<Duration> {
    let mut words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '(' | ')'));
    let mut before = "";
    while let Some(word) = words.next() {
        if matches!(before.to_ascii_lowercase().as_str(), "in" | "after" | "for")
            && let Some(seconds) = seconds(word, words.clone().find(|next| !next.is_empty()).unwrap_or(""))
        {
            return (1..=HINT_SECONDS_MAX).contains(&seconds).then(|| Duration::from_secs(seconds));
        }
        if !word.is_empty() {
            before = word;
        }
    }
    None
}

fn seconds(number: &str, unit: &str) -> Option<u64> {
    let number = number.trim_end_matches('.');
    if number.contains(':') {
        let parts = number.split(':').map(|part| part.parse::<u64>().ok().filter(|n| *n < 1_000));
        return parts
            .collect::<Option<Vec<_>>>()
            .map(|parts| parts.iter().fold(0, |sum, part| sum * 60 + part))
            .filter(|seconds| *seconds <= u64::from(u32::MAX));
    }
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    let (count, glued) = (number[..digits].parse::<u64>().ok()?, &number[digits..]);
    let unit = if glued.is_empty() { unit } else { glued };
    match unit.to_ascii_lowercase().bytes().next() {
        Some(b's') => Some(count),
        Some(b'm') => count.checked_mul(60),
        Some(b'h') => count.checked_mul(3_600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::built_in_backoff;

    fn reply(line: &str) -> Reply {
        let (code, rest) = line.split_once([' ', '-']).unwrap();
        let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let numbers: Vec<_> = first.split('.').filter_map(|part| part.parse::<u16>().ok()).collect();
        let (enhanced, text) = match numbers[..] {
            [class, subject, detail] => (Some((class as u8, subject, detail)), text),
            _ => (None, rest),
        };
        Reply { code: code.parse().unwrap(), enhanced, text: text.into() }
    }

    #[test]
    fn patterns() {
        let table = [
            ("*", "", true),
            ("421 *", "421 4.7.28 x", true),
            ("421 *", "451 x", false),
            ("*too many*connections*", "421 Too MANY open Connections from you", true),
            ("*too many*connections", "too many connections from", false),
            ("*a*b", "aab", true),
            ("*ab", "aab", true),
            ("", "x", false),
            ("a**", "a", true),
            ("*.google.com", "mx.google.com", true),
            ("*.google.com", "google.com", false),
        ];
        for (pattern, text, fits) in table {
            assert_eq!(Pattern::new(pattern).fits(text), fits, "{pattern:?} {text:?}");
        }
        let hostile = Pattern::new(&"*a".repeat(100));
        assert!(!hostile.fits(&"a".repeat(99)));
    }

    /// Replies as the receivers give them.
    #[test]
    fn large_receivers_are_understood() {
        let slow = |host: &str, line: &str| {
            matches!(action(&built_in_backoff(), host, &reply(line)), Action::Slow { .. })
        };
        let suspend = |host: &str, line: &str| {
            matches!(action(&built_in_backoff(), host, &reply(line)), Action::Suspend { .. })
        };
        let wait = |host: &str, line: &str| {
            matches!(action(&built_in_backoff(), host, &reply(line)), Action::Wait { .. })
        };
        type Table<'a> = [(&'a dyn Fn(&str, &str) -> bool, &'a str, &'a str)];
        let table: &Table<'_> = &[
            (
                &slow,
                "gmail-smtp-in.l.google.com",
                "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP address.",
            ),
            (&slow, "aspmx.l.google.com", "421 4.7.0 This message is suspicious, try again later"),
            (
                &slow,
                "a-test.mail.protection.outlook.com",
                "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719) (AS843)",
            ),
            (
                &slow,
                "a-test.mail.protection.outlook.com",
                "451 4.7.652 The mail server [192.0.2.1] has exceeded the maximum number of connections.",
            ),
            (
                &suspend,
                "hotmail-com.olc.protection.outlook.com",
                "451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775)",
            ),
            (
                &suspend,
                "mta5.am0.yahoodns.net",
                "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1",
            ),
            (
                &slow,
                "mta5.am0.yahoodns.net",
                "421 4.7.1 [TS03] All messages from 192.0.2.1 will be permanently deferred; Retrying will NOT succeed.",
            ),
            (&slow, "mx00.t-online.de", "421 4.7.0 Too many connections from your host."),
            (
                &slow,
                "mx00.gmx.net",
                "421 gmx.net (mxgmx016) Nemesis ESMTP Service not available Too many connections",
            ),
            (&slow, "mx01.mail.icloud.com", "450 4.7.0 [HCM1] Your mail from 192.0.2.1 was deferred."),
            (&slow, "mx1.comcast.net", "421 resimta-po-33v.sys.comcast.net comcast Too many sessions opened"),
            (&slow, "mx1.comcast.net", "452 4.1.0 192.0.2.1 Throttled - try again later"),
            (&slow, "mx0a-1.pphosted.com", "452 4.3.2 Rate limit exceeded"),
            (&slow, "mx.example", "452 4.7.1 Too many connections from your IP (rate controlled)"),
            (
                &wait,
                "mx.example",
                "450 4.2.0 <a@b.test>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/b.test.html",
            ),
            (&wait, "mx.example", "451 4.7.1 Greylisting in action, please come back later"),
        ];
        for (expected, host, line) in table {
            assert!(expected(host, line), "{line}: {:?}", action(&built_in_backoff(), host, &reply(line)));
        }
    }

    #[test]
    fn ordinary_replies_change_nothing() {
        for line in [
            "450 4.2.1 mailbox busy",
            "450 4.2.0 <throttled@example.org>: Recipient address rejected: try later",
            "450 4.2.0 <\"> throttled (S775) \"@example.org>: Recipient address rejected: try later",
            "452 4.2.2 over quota",
            "451 4.3.0 internal error",
            "550 5.1.1 no such user",
            "550 5.7.1 too many connections",
            "554 5.7.1 rate limit exceeded",
            "250 2.0.0 ok",
        ] {
            assert_eq!(action(&built_in_backoff(), "mx.example", &reply(line)), Action::Nothing, "{line}");
        }
    }

    #[test]
    fn the_operators_rule_goes_before_the_built_in_one() {
        let own = Rule {
            reply: Pattern::new("421 4.7.28 *"),
            hosts: vec![Pattern::new("*.google.com")],
            action: Action::Nothing,
        };
        let rules: Vec<Rule> = std::iter::once(own).chain(built_in_backoff()).collect();
        let line = reply("421 4.7.28 Gmail has detected an unusual rate of mail");
        assert_eq!(action(&rules, "aspmx.l.google.com", &line), Action::Nothing);
        assert_ne!(action(&rules, "mx.example", &line), Action::Nothing);
    }

    #[test]
    fn a_greylisting_host_may_say_for_how_long() {
        let table = [
            ("Greylisted, try again in 300 seconds", Some(300)),
            ("Greylisting in action, please come back in 00:04:59", Some(299)),
            ("greylisted for 5 minutes", Some(300)),
            ("Greylisted (retry after 60s).", Some(60)),
            ("try again in 1 hour", Some(3_600)),
            ("try again in 2 hours", None),
            ("try again in 0 seconds", None),
            ("in 99999999999999999999 seconds", None),
            ("in 999:999:999:999:999", None),
            ("in a while", None),
            ("in", None),
        ];
        for (text, expected) in table {
            assert_eq!(hint(text), expected.map(Duration::from_secs), "{text}");
        }
    }
}
