//! The Sender Rewriting Scheme: return addresses that survive forwarding, in the format of libsrs2 and postsrsd.
//!
//! Pure: the time comes as microseconds since 1970. Made once from `[srs]`, immutable, shared.
//!
//! ```text
//! user@orig.example ──▶ SRS0=HASH=TT=orig.example=user@ours
//! SRS0=rest@other   ──▶ SRS1=HASH=other==rest@ours
//! SRS1=X=other=rest@third ──▶ SRS1=HASH=other=rest@ours
//! ```
//!
//! HASH is the front of an HMAC-SHA1 in base64 over what follows it, in lower case; TT is the day, modulo 1,024, in
//! base32. What comes back to such an address goes to the address in it, wherever that is, so only addresses
//! whose hash was made with one of the keys, and for SRS0 not longer ago than `valid`, are taken: without that
//! this would be an open relay. The first key makes hashes, all of them verify, so that keys can be changed.

use crate::smtp::path;
use ring::hmac;
use std::fmt;
use std::time::Duration;
use subtle::ConstantTimeEq;

/// The least and the most characters of a hash; what libsrs2 makes has 4.
pub const HASH_OCTETS_MIN: usize = 4;
pub const HASH_OCTETS_MAX: usize = 27;
/// Keys in a file. Each costs a hash for every address that is none of ours.
pub const KEYS_MAX: usize = 8;
pub const KEY_OCTETS_MIN: usize = 16;
pub const KEY_OCTETS_MAX: usize = 256;
/// Days that the two characters of a time can tell apart.
const DAYS: u64 = 1_024;
/// The longest validity: with more, an old address would count as one from the future that is new again.
pub const VALID_MAX: Duration = Duration::from_secs(500 * 86_400);
const DAY_MICROS: u64 = 86_400_000_000;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Octets of a mailbox that can stand in a path (RFC 5321 section 4.5.3.1.3).
const MAILBOX_OCTETS_MAX: usize = path::PATH_OCTETS_MAX - 2;

/// `[srs]`.
#[derive(Clone)]
pub struct Srs {
    domain: String,
    keys: Vec<hmac::Key>,
    valid_days: u64,
    hash_octets: usize,
}

/// Without the keys, so that no log gets them by accident.
impl fmt::Debug for Srs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Srs")
            .field("domain", &self.domain)
            .field("keys", &self.keys.len())
            .field("valid_days", &self.valid_days)
            .field("hash_octets", &self.hash_octets)
            .finish()
    }
}

/// Why mail to an address is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not made with our keys, or malformed.
    Forged,
    /// Made here, too long ago.
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Srs0,
    Srs1,
}

impl Srs {
    /// `domain` in lower case; `keys`: at least one.
    pub fn new(domain: String, keys: &[String], valid: Duration, hash_octets: usize) -> Self {
        assert!(!keys.is_empty() && (HASH_OCTETS_MIN..=HASH_OCTETS_MAX).contains(&hash_octets));
        let key = |key: &String| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
        let valid_days = valid.as_secs() / 86_400;
        Self { domain, keys: keys.iter().map(key).collect(), valid_days, hash_octets }
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The return address for a message from `sender`. `None` where it stays as it is: the null reverse-path, one
    /// that is ours already, one that does not fit, or whose local part is quoted.
    pub fn forward(&self, sender: &str, now_micros: u64) -> Option<String> {
        let (local, domain) = path::split_address(sender)?;
        if local.starts_with('"') || domain.starts_with('[') || domain.eq_ignore_ascii_case(&self.domain) {
            return None;
        }
        let made = match kind(local) {
            None => {
                let time = stamp(now_micros / DAY_MICROS);
                let hash = self.hash(&self.keys[0], &[&time, domain, local]);
                format!("SRS0={hash}={time}={domain}={local}")
            }
            Some((Kind::Srs0, rest)) => self.guarded(domain, rest),
            Some((Kind::Srs1, rest)) => {
                let (_, guarded) = rest[1..].split_once('=')?;
                let (first, rest) = guarded.split_once('=')?;
                self.guarded(first, rest)
            }
        };
        let made = format!("{made}@{}", self.domain);
        (made.len() <= MAILBOX_OCTETS_MAX && path::whole_mailbox(&made).is_some()).then_some(made)
    }

    /// `first`: who made the SRS0; `rest`: everything behind the tag, with its separator.
    fn guarded(&self, first: &str, rest: &str) -> String {
        format!("SRS1={}={first}={rest}", self.hash(&self.keys[0], &[first, rest]))
    }

    /// Whether mail to this mailbox is for [`Srs::reverse`].
    pub fn is_ours(&self, local: &str, domain: &str) -> bool {
        domain.eq_ignore_ascii_case(&self.domain) && kind(local).is_some()
    }

    /// The address that a local part of ours stands for.
    pub fn reverse(&self, local: &str, now_micros: u64) -> Result<String, Fault> {
        let (kind, rest) = kind(local).ok_or(Fault::Forged)?;
        let (hash, rest) = rest[1..].split_once('=').ok_or(Fault::Forged)?;
        let address = match kind {
            Kind::Srs0 => {
                let (time, rest) = rest.split_once('=').ok_or(Fault::Forged)?;
                let (domain, local) = rest.split_once('=').ok_or(Fault::Forged)?;
                self.verify(hash, &[time, domain, local])?;
                let made = days(time).ok_or(Fault::Forged)?;
                let age = (now_micros / DAY_MICROS % DAYS + DAYS - made) % DAYS;
                // A day ahead is a clock that is fast.
                if age > self.valid_days && age != DAYS - 1 {
                    return Err(Fault::Expired);
                }
                format!("{local}@{domain}")
            }
            Kind::Srs1 => {
                let (first, rest) = rest.split_once('=').ok_or(Fault::Forged)?;
                self.verify(hash, &[first, rest])?;
                format!("SRS0{rest}@{first}")
            }
        };
        let fits = address.len() <= MAILBOX_OCTETS_MAX;
        path::whole_mailbox(&address).filter(|_| fits).map(|it| it.to_string()).ok_or(Fault::Forged)
    }

    fn verify(&self, given: &str, parts: &[&str]) -> Result<(), Fault> {
        if !(self.hash_octets..=HASH_OCTETS_MAX).contains(&given.len()) {
            return Err(Fault::Forged);
        }
        // Case may have been lost on the way.
        let given = given.to_ascii_lowercase();
        let good = self.keys.iter().fold(subtle::Choice::from(0), |good, key| {
            let whole = full_hash(key, parts).to_ascii_lowercase();
            good | whole.as_bytes()[..given.len()].ct_eq(given.as_bytes())
        });
        if bool::from(good) { Ok(()) } else { Err(Fault::Forged) }
    }

    fn hash(&self, key: &hmac::Key, parts: &[&str]) -> String {
        let mut hash = full_hash(key, parts);
        hash.truncate(self.hash_octets);
        hash
    }
}

fn full_hash(key: &hmac::Key, parts: &[&str]) -> String {
    use base64ct::Encoding;
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part.to_ascii_lowercase().as_bytes()));
    base64ct::Base64Unpadded::encode_string(context.sign().as_ref())
}

/// What a local part is, with what stands behind the tag, its separator first.
fn kind(local: &str) -> Option<(Kind, &str)> {
    let (tag, rest) = (local.get(..4)?, &local.get(4..)?);
    let kind = match tag {
        _ if tag.eq_ignore_ascii_case("SRS0") => Kind::Srs0,
        _ if tag.eq_ignore_ascii_case("SRS1") => Kind::Srs1,
        _ => return None,
    };
    rest.starts_with(['=', '-', '+']).then_some((kind, rest))
}

fn stamp(day: u64) -> String {
    let character = |bits: u64| BASE32[(bits % 32) as usize] as char;
    [character(day % DAYS / 32), character(day)].iter().collect()
}

fn days(stamp: &str) -> Option<u64> {
    let digit = |c: u8| BASE32.iter().position(|&known| known == c.to_ascii_uppercase());
    match *stamp.as_bytes() {
        [high, low] => Some((digit(high)? * 32 + digit(low)?) as u64),
        _ => None,
    }
}

/// The keys of a file, one a line, the first one first; empty lines and such with `#` in front do not count.
///
/// # Errors
/// What is wrong and what is allowed; never a part of a key.
pub fn keys(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    let bounds = KEY_OCTETS_MIN..=KEY_OCTETS_MAX;
    if !(1..=KEYS_MAX).contains(&keys.len()) || !keys.iter().all(|key| bounds.contains(&key.len())) {
        return Err(format!(
            "does not hold good keys; allowed: 1 to {KEYS_MAX} lines of {KEY_OCTETS_MIN} to {KEY_OCTETS_MAX} octets, such as openssl rand -base64 24 prints"
        ));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_345_494_000_000;
    const DAY: u64 = DAY_MICROS;

    fn srs(keys: &[&str], hash_octets: usize) -> Srs {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        Srs::new("relay.example".into(), &keys, Duration::from_secs(21 * 86_400), hash_octets)
    }

    /// As postsrsd 1.10 made them with this key at this time.
    const POSTSRSD: [(&str, &str); 4] = [
        ("alice@example.com", "SRS0=xcbO=JL=example.com=alice@relay.example"),
        ("Bob.Smith+x@Mixed.Example", "SRS0=yOof=JL=Mixed.Example=Bob.Smith+x@relay.example"),
        (
            "SRS0=HHHH=TT=orig.org=user@forwarder.net",
            "SRS1=uYkj=forwarder.net==HHHH=TT=orig.org=user@relay.example",
        ),
        (
            "SRS1=XXXX=first.net==HHHH=TT=orig.org=user@second.net",
            "SRS1=Cdaa=first.net==HHHH=TT=orig.org=user@relay.example",
        ),
    ];

    #[test]
    fn addresses_are_those_of_postsrsd() {
        let srs = srs(&["tops3cret", "older"], 4);
        for (sender, expected) in POSTSRSD {
            assert_eq!(srs.forward(sender, NOW).as_deref(), Some(expected));
        }
        for (address, original) in [
            (POSTSRSD[0].1, "alice@example.com"),
            (POSTSRSD[1].1, "Bob.Smith+x@mixed.example"),
            (POSTSRSD[2].1, "SRS0=HHHH=TT=orig.org=user@forwarder.net"),
            (POSTSRSD[3].1, "SRS0=HHHH=TT=orig.org=user@first.net"),
        ] {
            let (local, domain) = address.rsplit_once('@').unwrap();
            assert!(srs.is_ours(local, domain));
            assert_eq!(srs.reverse(local, NOW).as_deref(), Ok(original));
            assert_eq!(
                srs.reverse(&local.to_lowercase(), NOW).map(|it| it.to_lowercase()),
                Ok(original.to_lowercase())
            );
        }
    }

    #[test]
    fn a_return_address_is_taken_as_long_as_it_is_valid() {
        let srs = srs(&["a key that is long"], 8);
        let made = srs.forward("bob@away.example", NOW).unwrap();
        let local = made.split('@').next().unwrap();
        let at = |now| srs.reverse(local, now).is_ok();
        assert_eq!([NOW, NOW - DAY, NOW + 21 * DAY, NOW + 1_020 * DAY + 4 * DAY].map(at), [true; 4]);
        for late in [NOW + 22 * DAY, NOW + 400 * DAY, NOW - 2 * DAY] {
            assert_eq!(srs.reverse(local, late), Err(Fault::Expired), "{late}");
        }
    }

    #[test]
    fn only_what_was_made_here_is_taken() {
        let (ours, theirs) = (srs(&["a key that is long"], 8), srs(&["another key of theirs"], 8));
        let forged = theirs.forward("victim@away.example", NOW).unwrap();
        let good = ours.forward("bob@away.example", NOW).unwrap();
        let good = good.split('@').next().unwrap();
        let short = srs(&["a key that is long"], 4).forward("bob@away.example", NOW).unwrap();
        let mut table: Vec<String> = [
            forged.split('@').next().unwrap(),
            short.split('@').next().unwrap(),
            &good.replace("=bob", "=eve"),
            &good.replace("away.example", "else.example"),
            "SRS0==JL=away.example=bob",
            "SRS0=",
            "SRS0=a",
            "SRS0=aaaaaaaa=JL=away.example",
            "SRS0=aaaaaaaa=JL",
            "SRS1=aaaaaaaa=x==y",
            "SRS1=",
            "SRS0",
            "bob",
            "SRS0=\u{e4}\u{e4}\u{e4}\u{e4}=JL=x=y",
        ]
        .map(str::to_owned)
        .to_vec();
        // Each character of the hash counts.
        for at in 5..13 {
            let mut other = good.to_owned();
            let flipped = if &other[at..=at] == "A" || &other[at..=at] == "a" { "b" } else { "A" };
            other.replace_range(at..=at, flipped);
            table.push(other);
        }
        for local in table {
            assert_eq!(ours.reverse(&local, NOW), Err(Fault::Forged), "{local}");
        }
    }

    #[test]
    fn keys_can_be_changed() {
        let (old, new) = ("the old key, 24 octets..", "the new key, 24 octets..");
        let made = srs(&[old], 8).forward("bob@away.example", NOW).unwrap();
        let local = made.split('@').next().unwrap();
        let both = srs(&[new, old], 8);
        assert!(both.reverse(local, NOW).is_ok());
        assert_eq!(srs(&[new], 8).reverse(local, NOW), Err(Fault::Forged));
        assert_eq!(both.forward("b@x.example", NOW), srs(&[new], 8).forward("b@x.example", NOW));
    }

    #[test]
    fn what_cannot_be_rewritten_stays() {
        let srs = srs(&["a key that is long"], 8);
        let long = format!("{}@{}.example", "a".repeat(64), "b".repeat(60) + &".c".repeat(70));
        for sender in [
            "",
            "bob",
            "\"bob x\"@away.example",
            "bob@[192.0.2.1]",
            "bob@Relay.Example",
            &long,
            "SRS1=@x.example",
            "SRS1=a=b@x.example",
        ] {
            assert_eq!(srs.forward(sender, NOW), None, "{sender}");
        }
        // Longer than other local parts may be, and read again.
        let long = format!("{}@{}.example", "a".repeat(64), "b".repeat(60));
        let made = srs.forward(&long, NOW).unwrap();
        assert_eq!(srs.reverse(made.split('@').next().unwrap(), NOW), Ok(long));
    }

    #[test]
    fn keys_are_lines_of_some_length() {
        assert_eq!(keys("# first\n0123456789abcdef\n\n fedcba9876543210 \n").unwrap().len(), 2);
        for bad in ["", "# none\n", "short\n", &"0123456789abcdef\n".repeat(9)] {
            assert!(keys(bad).unwrap_err().contains("openssl rand"), "{bad}");
        }
        assert!(!format!("{:?}", srs(&["tops3cret"], 4)).contains("tops3cret"));
    }
}
