//! Checks one message while it arrives: finds the check field, then runs the CRC over the body. Pure.

use crate::message::Check;
use memchr::memmem;

/// Header sections above this are not searched for the check; prevents a buffer without bound.
const HEAD_OCTETS_MAX: usize = 256 * 1024;

/// What the check says about a message that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Body as composed, octet by octet.
    Intact(Check),
    /// It has a check, and its body differs.
    Damaged(Check),
    /// It carries no check.
    Unchecked,
}

/// A message that is arriving, stuffing undone.
#[derive(Default)]
pub struct Verifier {
    head: Vec<u8>,
    in_body: bool,
    crc: u32,
    body_octets: u64,
    octets: u64,
}

impl Verifier {
    pub fn take(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
        if self.in_body {
            return self.body(octets);
        }
        // The empty line may begin in what came before.
        let searched = self.head.len().saturating_sub(3);
        self.head.extend_from_slice(octets);
        match memmem::find(&self.head[searched..], b"\r\n\r\n") {
            Some(at) => {
                let body = self.head.split_off(searched + at + 4);
                self.in_body = true;
                self.body(&body);
            }
            None if self.head.len() > HEAD_OCTETS_MAX => {
                self.head.clear();
                self.in_body = true;
            }
            None => {}
        }
    }

    fn body(&mut self, octets: &[u8]) {
        self.body_octets += octets.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, octets);
    }

    /// Octets of content so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Ends the message and is ready for the next.
    pub fn finish(&mut self) -> Verdict {
        let check = Check::find(&self.head);
        let found = (self.crc, self.body_octets);
        self.head.clear();
        (self.in_body, self.crc, self.body_octets, self.octets) = (false, 0, 0, 0);
        match check {
            Some(check) if (check.crc, check.body_octets) == found => Verdict::Intact(check),
            Some(check) => Verdict::Damaged(check),
            None => Verdict::Unchecked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> String {
        let check =
            Check { run: 1, number: 2, crc: crc32c::crc32c(body.as_bytes()), body_octets: body.len() as u64 };
        format!("Received: x\r\nX-Sluice-Check: {check}\r\nA: b\r\n\r\n{body}")
    }

    #[test]
    fn an_intact_body_verifies_at_every_split_and_the_verifier_is_reusable() {
        let text = message("line\r\n\r\n.line\r\n");
        let mut verifier = Verifier::default();
        for split in 0..=text.len() {
            verifier.take(&text.as_bytes()[..split]);
            verifier.take(&text.as_bytes()[split..]);
            assert_eq!(verifier.octets(), text.len() as u64);
            assert!(
                matches!(verifier.finish(), Verdict::Intact(Check { run: 1, number: 2, .. })),
                "at {split}"
            );
        }
    }

    #[test]
    fn a_changed_longer_or_shorter_body_is_damaged() {
        let text = message("line\r\n");
        for wrong in [text.replace("line", "lime"), format!("{text}\r\n"), text[..text.len() - 2].to_owned()]
        {
            let mut verifier = Verifier::default();
            verifier.take(wrong.as_bytes());
            assert!(matches!(verifier.finish(), Verdict::Damaged(_)), "{wrong:?}");
        }
    }

    #[test]
    fn a_message_without_check_is_unchecked() {
        for text in ["", "A: b\r\n", "A: b\r\n\r\nX-Sluice-Check: 00000001-2-0-0\r\n"] {
            let mut verifier = Verifier::default();
            verifier.take(text.as_bytes());
            assert_eq!(verifier.finish(), Verdict::Unchecked, "{text:?}");
        }
    }
}
