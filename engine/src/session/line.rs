//! Cutting command lines (RFC 5321 section 2.3.8: CRLF and nothing else ends a line).
//!
//! Replies: 500 5.5.2 to a line that ends in bare LF or is too long, 421 4.7.0 when a line has no end;
//! 501 5.5.4 and the end to such a BDAT, which octets may follow that are no commands.

use super::{LINE_OCTETS_MAX, Refused, SWALLOWED_OCTETS_MAX, Session, Step};
use crate::smtp::command::is_bdat;
use crate::smtp::reply;
use crate::smtp::{Fault, parse_command};
use memchr::memchr;

impl Session {
    /// Handles the first line of the input; consumes nothing while its end may still come.
    pub(super) fn line(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Option<Step>) {
        let Some(lf) = memchr(b'\n', input) else {
            if self.swallowed == 0 && input.len() < LINE_OCTETS_MAX {
                return (0, None);
            }
            if self.swallowed == 0 && is_bdat(input) {
                return (input.len(), self.refuse(Fault::ChunkSize.into(), out));
            }
            self.swallowed += input.len();
            let step = if self.swallowed < SWALLOWED_OCTETS_MAX { None } else { self.endless(out) };
            return (input.len(), step);
        };
        let octets = lf + 1;
        let line_octets = self.swallowed + octets;
        let spoilt = line_octets > LINE_OCTETS_MAX || !input[..lf].ends_with(b"\r");
        if spoilt && self.swallowed == 0 && is_bdat(input) {
            return (octets, self.refuse(Fault::ChunkSize.into(), out));
        }
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
