//! What a peer offers in its answer to EHLO (RFC 5321 section 4.1.1.1).
//!
//! Pure. Unknown keywords are passed over, keywords are read in any case.

use super::limits::Limits;
use super::reply::Reply;

/// The offers that the client session makes use of. The default is a peer that only knows HELO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870: SIZE was offered.
    pub size: bool,
    /// The largest message in octets, where the peer named one; it never names 0.
    pub size_max: Option<u64>,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 2034.
    pub enhanced_status_codes: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 8689.
    pub require_tls: bool,
    /// RFC 6710.
    pub mt_priority: bool,
    /// RFC 2852: offered, with the least number of seconds; 0 where none was named.
    pub deliver_by: Option<u32>,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3030 section 3; of use only with CHUNKING.
    pub binary_mime: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 4954: the mechanisms that the client session knows.
    pub auth_plain: bool,
    pub auth_login: bool,
    /// RFC 9422.
    pub limits: Limits,
}

impl Extensions {
    /// Reads the lines behind the first of a 250 reply to EHLO.
    pub fn of(ehlo: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in ehlo.text.lines().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => extensions.pipelining = true,
                "SIZE" => {
                    extensions.size = true;
                    extensions.size_max = words.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
                }
                "8BITMIME" => extensions.eight_bit_mime = true,
                "ENHANCEDSTATUSCODES" => extensions.enhanced_status_codes = true,
                "DSN" => extensions.dsn = true,
                "SMTPUTF8" => extensions.smtputf8 = true,
                "REQUIRETLS" => extensions.require_tls = true,
                "MT-PRIORITY" => extensions.mt_priority = true,
                "DELIVERBY" => extensions.deliver_by = Some(words.next().map_or(0, least_seconds)),
                "CHUNKING" => extensions.chunking = true,
                "BINARYMIME" => extensions.binary_mime = true,
                "STARTTLS" => extensions.starttls = true,
                "AUTH" => extensions.take_mechanisms(words),
                "LIMITS" => extensions.limits.take(words),
                _ => {}
            }
        }
        extensions
    }

    fn take_mechanisms<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        for word in words {
            self.auth_plain |= word.eq_ignore_ascii_case("PLAIN");
            self.auth_login |= word.eq_ignore_ascii_case("LOGIN");
        }
    }
}

/// The first of the options that DELIVERBY lists (RFC 2852 section 3); who writes another number means much.
fn least_seconds(options: &str) -> u32 {
    let digits = options.split(',').next().unwrap_or_default();
    if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_read_in_any_case_and_unknown_ones_passed_over() {
        let none = Extensions::default();
        let size = |size_max| Extensions { size: true, size_max, ..none };
        let table = [
            ("PIPELINING", none),
            ("mx\nPIPELINING", Extensions { pipelining: true, ..none }),
            ("mx\npipelining", Extensions { pipelining: true, ..none }),
            ("mx\nSIZE", size(None)),
            ("mx\nSIZE 0", size(None)),
            ("mx\nSIZE 1000", size(Some(1_000))),
            ("mx\nSIZE 99999999999999999999999", size(None)),
            ("mx\nSIZE -1", size(None)),
            ("mx\nstarttls", Extensions { starttls: true, ..none }),
            ("mx\n8BITMIME", Extensions { eight_bit_mime: true, ..none }),
            (
                "mx\nCHUNKING\nENHANCEDSTATUSCODES",
                Extensions { chunking: true, enhanced_status_codes: true, ..none },
            ),
            (
                "mx\ndsn\nSMTPUTF8\nREQUIRETLS\nMT-PRIORITY MIXER\nDELIVERBY",
                Extensions {
                    dsn: true,
                    smtputf8: true,
                    require_tls: true,
                    mt_priority: true,
                    deliver_by: Some(0),
                    ..none
                },
            ),
            ("mx\nDELIVERBY 240", Extensions { deliver_by: Some(240), ..none }),
            ("mx\nDELIVERBY 240,x", Extensions { deliver_by: Some(240), ..none }),
            ("mx\nDELIVERBY soon", Extensions { deliver_by: Some(u32::MAX), ..none }),
            ("mx\n\nAUTH plain LOGIN\nX-SIZE 3", Extensions { auth_plain: true, auth_login: true, ..none }),
            ("mx\nAUTH\nAUTH GSSAPI", none),
            (
                "mx\nlimits MAILMAX=5",
                Extensions { limits: Limits { mails: Some(5), ..Limits::default() }, ..none },
            ),
            ("mx\nBinaryMime", Extensions { binary_mime: true, ..none }),
        ];
        for (text, expected) in table {
            let reply = Reply { code: 250, enhanced: None, text: text.into() };
            assert_eq!(Extensions::of(&reply), expected, "{text}");
        }
    }
}
