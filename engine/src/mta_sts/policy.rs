//! The two texts of MTA-STS (RFC 8461): the record that says that there is a policy, and the policy.
//!
//! Pure.

use std::fmt;

/// Octets of a policy; a longer one is none (RFC 8461 section 3.3 lets the sender choose its bound).
pub const POLICY_OCTETS_MAX: usize = 64 * 1024;
/// About a year (RFC 8461 section 3.2).
pub const MAX_AGE_SECONDS_MAX: u64 = 31_557_600;
/// Names of mail exchangers that one policy may list. Prevents a few policies from taking all room of the cache.
const MX_MAX: usize = 64;
/// Octets of a pattern: a name, and `*.` before it.
const PATTERN_OCTETS_MAX: usize = 255;
/// Octets of what is no `mx` in [`Policy::lines`], nearly.
const OTHER_LINES_OCTETS_MAX: usize = 128;
// What is written from a policy that was read can be read again.
const _: () =
    assert!(MX_MAX * ("mx: \n".len() + PATTERN_OCTETS_MAX) + OTHER_LINES_OCTETS_MAX <= POLICY_OCTETS_MAX);
/// Octets of the identifier (RFC 8461 section 3.1).
const ID_OCTETS_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Mail goes only to the listed hosts, and only with a good certificate.
    Enforce,
    /// The same is looked at and reported; mail goes in any case.
    Testing,
    /// There is no policy any more.
    None,
}

/// What a domain demands of those who send to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    /// Lower case; `*.example.com` stands for one label. Empty only with [`Mode::None`].
    pub mx: Vec<String>,
    pub max_age_seconds: u64,
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    TooLong,
    NotText,
    Version,
    Mode,
    MaxAge,
    Mx,
    /// A line that is not `key: value`.
    Line,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the policy is longer than 64 KiB",
            Self::NotText => "the policy is not UTF-8",
            Self::Version => "the policy is not of version STSv1",
            Self::Mode => "the policy has no mode, or one that nobody defined",
            Self::MaxAge => "the policy has no max_age, or a bad one",
            Self::Mx => "the policy has no mx, or a bad one",
            Self::Line => "the policy has a line that is not \"key: value\"",
        })
    }
}

/// The identifier of the domain's policy, from the TXT records of `_mta-sts.DOMAIN` (section 3.1), each given
/// as its strings joined. `None`: there is no policy. Two records that claim to be one are none.
pub fn record_id<'a>(records: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut claims = records.into_iter().filter(|record| is_claim(record));
    let (first, None) = (claims.next()?, claims.next()) else { return None };
    let fields = first.split(';').skip(1).map(str::trim).filter(|field| !field.is_empty());
    let mut ids = fields.filter_map(|field| field.split_once('=')).filter(|(key, _)| key.trim() == "id");
    let id = ids.next()?.1.trim();
    let is_good = (1..=ID_OCTETS_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    is_good.then(|| id.to_owned())
}

fn is_claim(record: &str) -> bool {
    let version = record.split(';').next().unwrap_or_default();
    version.split_once('=').is_some_and(|(key, value)| key.trim() == "v" && value.trim() == "STSv1")
}

impl Policy {
    /// Reads a policy as it came over HTTPS (section 3.2). Keys that nobody defined are passed over; of a key that
    /// stands twice, other than `mx`, the first counts.
    ///
    /// # Errors
    /// What is wrong; such a policy does not replace one that was good.
    pub fn parse(octets: &[u8]) -> Result<Self, Fault> {
        if octets.len() > POLICY_OCTETS_MAX {
            return Err(Fault::TooLong);
        }
        let text = str::from_utf8(octets).map_err(|_| Fault::NotText)?;
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (key, value) = line.split_once(':').ok_or(Fault::Line)?;
            let value = value.trim();
            match key.trim() {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" => mx.push(pattern(value).filter(|_| mx.len() < MX_MAX).ok_or(Fault::Mx)?),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(Fault::Version);
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(Fault::Mode),
        };
        let digits = max_age.filter(|text| text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit()));
        let max_age: u64 = digits.and_then(|text| text.parse().ok()).ok_or(Fault::MaxAge)?;
        if mx.is_empty() && mode != Mode::None {
            return Err(Fault::Mx);
        }
        Ok(Self { mode, mx, max_age_seconds: max_age.min(MAX_AGE_SECONDS_MAX) })
    }

    /// The policy as its lines, in the order of section 3.2, without what nobody defined.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let mode = match self.mode {
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "none",
        };
        let mx = self.mx.iter().map(|mx| format!("mx: {mx}"));
        [String::from("version: STSv1"), format!("mode: {mode}")]
            .into_iter()
            .chain(mx)
            .chain([format!("max_age: {}", self.max_age_seconds)])
    }

    /// Whether the policy lists this host (section 4.1).
    pub fn lists(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            None => pattern.eq_ignore_ascii_case(host),
            Some(parent) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        })
    }
}

/// A host name, or `*.` and one.
fn pattern(text: &str) -> Option<String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_name = name.len() <= PATTERN_OCTETS_MAX - "*.".len() && name.split('.').all(label);
    is_name.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8461 section 3.1.
    #[test]
    fn a_record_names_the_policy() {
        for (records, expected) in [
            (&["v=STSv1; id=20160831085700Z;"][..], Some("20160831085700Z")),
            (&["v=STSv1;id=1"], Some("1")),
            (&["v = STSv1 ; x=y; id = a1 ;"], Some("a1")),
            (&["v=spf1 -all", "v=STSv1; id=7;"], Some("7")),
            (&[], None),
            (&["v=STSv1;"], None),
            (&["v=STSv1; id=;"], None),
            (&["v=STSv1; id=a-b;"], None),
            (&["v=STSv1; id=012345678901234567890123456789012;"], None),
            (&["id=1; v=STSv1"], None),
            (&["v=STSv2; id=1"], None),
            (&["v=STSv1; id=1", "v=STSv1; id=2"], None),
        ] {
            assert_eq!(record_id(records.iter().copied()).as_deref(), expected, "{records:?}");
        }
    }

    const GOOD: &str =
        "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.Example.net\nmax_age: 604800\n";

    /// RFC 8461 section 3.2.
    #[test]
    fn a_policy_is_read_with_either_line_end_and_unknown_keys() {
        let expected = Policy {
            mode: Mode::Enforce,
            mx: vec!["mail.example.com".into(), "*.example.net".into()],
            max_age_seconds: 604_800,
        };
        for text in [
            GOOD.to_owned(),
            GOOD.replace('\n', "\r\n"),
            GOOD.trim_end().to_owned(),
            format!("{GOOD}future: thing\n\nmode: none\nmax_age: x\n"),
        ] {
            assert_eq!(Policy::parse(text.as_bytes()), Ok(expected.clone()), "{text}");
        }
        let none = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 99999999999").unwrap_err();
        assert_eq!(none, Fault::MaxAge);
        let none = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 9999999999").expect("a policy");
        assert_eq!((none.mode, none.max_age_seconds), (Mode::None, MAX_AGE_SECONDS_MAX));
    }

    #[test]
    fn the_lines_of_a_policy_are_the_policy() {
        for text in [
            GOOD,
            "version: STSv1\nmode: none\nmax_age: 0",
            "version: STSv1\nmode: testing\nmx: a\nmax_age: 1",
        ] {
            let policy = Policy::parse(text.as_bytes()).expect("a policy");
            let lines = policy.lines().collect::<Vec<_>>().join("\n");
            assert_eq!(Policy::parse(lines.as_bytes()), Ok(policy), "{lines}");
        }
    }

    /// Without the spaces that the lines have.
    #[test]
    fn the_longest_policy_is_read_from_its_lines_too() {
        let label = "a".repeat(63);
        let name = format!("*.{label}.{label}.{label}.{}", "b".repeat(61));
        assert_eq!(name.len(), PATTERN_OCTETS_MAX);
        let mx = format!("mx:{name}\n").repeat(MX_MAX);
        let text = format!("version:STSv1\nmode:enforce\n{mx}max_age:{MAX_AGE_SECONDS_MAX}");
        let policy = Policy::parse(text.as_bytes()).expect("a policy");
        let lines = policy.lines().collect::<Vec<_>>().join("\n");
        assert!(lines.len() > text.len());
        assert_eq!(Policy::parse(lines.as_bytes()), Ok(policy));
    }

    #[test]
    fn a_bad_policy_says_why() {
        for (from, to, fault) in [
            ("STSv1", "STSv2", Fault::Version),
            ("version: STSv1\n", "", Fault::Version),
            ("mode: enforce\n", "", Fault::Mode),
            ("enforce", "Enforce", Fault::Mode),
            ("max_age: 604800\n", "", Fault::MaxAge),
            ("604800", "-1", Fault::MaxAge),
            ("604800", "18446744073709551616", Fault::MaxAge),
            ("*.Example.net", "*", Fault::Mx),
            ("*.Example.net", "a.*.example", Fault::Mx),
            ("*.Example.net", "", Fault::Mx),
            ("mx: mail.example.com\nmx: *.Example.net\n", "", Fault::Mx),
            ("mode: enforce", "mode enforce", Fault::Line),
        ] {
            assert!(GOOD.contains(from));
            assert_eq!(Policy::parse(GOOD.replace(from, to).as_bytes()), Err(fault), "{from} {to}");
        }
        assert_eq!(Policy::parse(b"\xff"), Err(Fault::NotText));
        assert_eq!(Policy::parse(&vec![b'\n'; POLICY_OCTETS_MAX + 1]), Err(Fault::TooLong));
        let many = format!("{GOOD}{}", "mx: a.example\n".repeat(MX_MAX));
        assert_eq!(Policy::parse(many.as_bytes()), Err(Fault::Mx));
    }

    /// Whatever stands there, it is no policy or one whose lines are itself.
    #[test]
    fn a_text_with_an_octet_changed_or_cut_anywhere_is_none_or_sound() {
        for at in 0..GOOD.len() {
            for octet in [0, b'\n', b'\r', b':', b'*', b'.', b' ', b'9', 0xff] {
                let mut text = GOOD.as_bytes().to_vec();
                text[at] = octet;
                for text in [&text[..], &text[..at]] {
                    let Ok(policy) = Policy::parse(text) else { continue };
                    let lines = policy.lines().collect::<Vec<_>>().join("\n");
                    assert_eq!(Policy::parse(lines.as_bytes()).as_ref(), Ok(&policy), "{lines}");
                    assert!(policy.mx.iter().all(|mx| !mx.contains(['\n', '\r', ' '])), "{lines}");
                }
            }
        }
    }

    /// RFC 8461 section 4.1: a wildcard is one whole label, the leftmost.
    #[test]
    fn a_policy_lists_hosts_by_name_or_one_label_below() {
        let policy = Policy::parse(GOOD.as_bytes()).expect("a policy");
        for (host, listed) in [
            ("mail.example.com", true),
            ("MAIL.EXAMPLE.COM.", true),
            ("mx1.example.net", true),
            ("example.net", false),
            ("a.b.example.net", false),
            (".example.net", false),
            ("mail.example.com.evil.test", false),
            ("evilmail.example.com", false),
            ("", false),
        ] {
            assert_eq!(policy.lists(host), listed, "{host}");
        }
    }
}
