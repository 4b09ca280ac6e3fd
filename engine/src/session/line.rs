//! Cutting command lines (RFC 5321 section 2.3.8: CRLF and nothing else ends a line).
//!
//! Replies: 500 5.5.2 to a line that ends in bare LF or is too long, 421 4.7.0 when a line has no end.

use super::{Refused, SWALLOWED_OCTETS_MAX, Session, State, Step};
use crate::smtp::parse_command;
use crate::smtp::reply;
use memchr::memchr;

impl Session {
    /// Handles the first line of the input; consumes nothing while its end may still come.
    pub(super) fn line(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Option<Step>) {
        let Some(lf) = memchr(b'\n', input) else {
            if self.swallowed == 0 && input.len() < self.line_octets_max(input) {
                return (0, None);
            }
            self.swallowed += input.len();
            let step = if self.swallowed < SWALLOWED_OCTETS_MAX { None } else { self.endless(out) };
            return (input.len(), step);
        };
        let octets = lf + 1;
        let line_octets = self.swallowed + octets;
        self.swallowed = 0;
        if line_octets > SWALLOWED_OCTETS_MAX {
            return (octets, self.endless(out));
        }
        let response = self.state == State::AwaitResponse;
        let line = input[..lf].strip_suffix(b"\r");
        let fault = match (line_octets > self.line_octets_max(input), line) {
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
            return (octets, self.response_line(line, out));
        }
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
