//! Cutting command lines (RFC 5321 section 2.3.8: CRLF and nothing else ends a line).
//!
//! Replies: 500 5.5.2 to a line that ends in bare LF or is too long, 421 4.7.0 when a line has no end;
//! 501 5.5.4 and the end to such a BDAT, which octets may follow that are no commands.

use super::{Refused, SWALLOWED_OCTETS_MAX, Session, State, Step};
use crate::smtp::command::is_bdat;
use crate::smtp::reply;
use crate::smtp::{Fault, parse_command};
use memchr::memchr;

impl Session {
    /// Handles the first line of the input; consumes nothing while its end may still come.
    pub(super) fn line(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Option<Step>) {
        let Some(lf) = memchr(b'\n', input) else {
            self.line_came(false);
            if self.swallowed == 0 && input.len() < self.line_octets_max(input) {
                return (0, None);
            }
            if self.swallowed == 0 && self.state != State::AwaitResponse && is_bdat(input) {
                return (input.len(), self.refuse(Fault::ChunkSize.into(), out));
            }
            self.swallowed += input.len();
            let step = if self.swallowed < SWALLOWED_OCTETS_MAX { None } else { self.endless(out) };
            return (input.len(), step);
        };
        self.line_came(true);
        let octets = lf + 1;
        let line_octets = self.swallowed + octets;
        let response = self.state == State::AwaitResponse;
        // What was swallowed was too long; the rest of such a line is no line of its own.
        let too_long = self.swallowed > 0 || octets > self.line_octets_max(input);
        let spoilt = too_long || !input[..lf].ends_with(b"\r");
        if spoilt && self.swallowed == 0 && !response && is_bdat(input) {
            return (octets, self.refuse(Fault::ChunkSize.into(), out));
        }
        self.swallowed = 0;
        if line_octets > SWALLOWED_OCTETS_MAX {
            return (octets, self.endless(out));
        }
        let line = input[..lf].strip_suffix(b"\r");
        let fault = match (too_long, line) {
            (true, _) if response => Some(&reply::AUTH_LINE_TOO_LONG),
            (true, _) => Some(&reply::LINE_TOO_LONG),
            (false, None) => Some(&reply::BARE_LF_IN_COMMAND),
            (false, Some(_)) => None,
        };
        self.since = self.now;
        let Some(line) = line.filter(|_| fault.is_none()) else {
            let refused = Refused::from(fault.unwrap_or(&reply::BARE_LF_IN_COMMAND));
            let step = if response { self.refuse_response(refused, out) } else { self.refuse(refused, out) };
            return (octets, step);
        };
        if response {
            self.tap_response();
            return (octets, self.response_line(line, out));
        }
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
