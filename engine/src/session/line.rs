//! Cutting command lines (RFC 5321 section 2.3.8: CRLF and nothing else ends a line).
//!
//! Replies: 500 5.5.2 to a line that ends in bare LF or is too long, 421 4.7.0 when a line has no end.

use super::{LINE_OCTETS_MAX, Refused, SWALLOWED_OCTETS_MAX, Session, Step};
use crate::smtp::parse_command;
use crate::smtp::reply;
use memchr::memchr;

impl Session {
    /// Handles the first line of the input; consumes nothing while its end may still come.
    pub(super) fn line(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Option<Step>) {
        let Some(lf) = memchr(b'\n', input) else {
            self.line_came(false);
            if self.swallowed == 0 && input.len() < LINE_OCTETS_MAX {
                return (0, None);
            }
            self.swallowed += input.len();
            let step = if self.swallowed < SWALLOWED_OCTETS_MAX { None } else { self.endless(out) };
            return (input.len(), step);
        };
        self.line_came(true);
        let octets = lf + 1;
        let line_octets = self.swallowed + octets;
        self.swallowed = 0;
        if line_octets > SWALLOWED_OCTETS_MAX {
            return (octets, self.endless(out));
        }
        if line_octets > LINE_OCTETS_MAX {
            self.since = self.now;
            return (octets, self.refuse(Refused::from(&reply::LINE_TOO_LONG), out));
        }
        let Some(line) = input[..lf].strip_suffix(b"\r") else {
            self.since = self.now;
            return (octets, self.refuse(Refused::from(&reply::BARE_LF_IN_COMMAND), out));
        };
        let followed = input.len() > octets;
        let replied = out.len();
        self.tap_line(line);
        let command = parse_command(line);
        let step = self.command(command, followed, out);
        self.note_refusal(line, &out[replied..]);
        (octets, step)
    }

    fn endless(&mut self, out: &mut Vec<u8>) -> Option<Step> {
        self.close_with(&reply::ENDLESS_LINE, out);
        Some(Step::Close)
    }
}
