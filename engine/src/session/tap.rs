//! What a client says, in words for people who watch its session (`trace`).
//!
//! A command is shown whole when it is one that this server knows; AUTH only with its mechanism; of anything
//! else, which may be a part of an exchange of secrets, only how many octets it has. Content is counted.
//! Control characters are escaped, so a line of a client is one line here.

use super::Session;

/// Octets that are kept until the rim takes them; what the client says beyond is counted.
const TAPPED_OCTETS_MAX: usize = 64 * 1024;
const SHOWN: [&[u8]; 16] = [
    b"EHLO",
    b"HELO",
    b"LHLO",
    b"MAIL",
    b"RCPT",
    b"DATA",
    b"BDAT",
    b"RSET",
    b"NOOP",
    b"VRFY",
    b"EXPN",
    b"ETRN",
    b"HELP",
    b"QUIT",
    b"STARTTLS",
    b"XCLIENT",
];

#[derive(Debug, Default)]
pub(super) struct Tap {
    text: String,
    /// Octets of content since the last line.
    content: u64,
    /// Lines for which there was no room.
    dropped: u64,
}

impl Session {
    /// From now on [`Session::take_tapped`] has something, or nothing any more.
    pub fn tap(&mut self, on: bool) {
        self.tap = on.then(|| self.tap.take().unwrap_or_default());
    }

    pub fn is_tapped(&self) -> bool {
        self.tap.is_some()
    }

    /// What the client has said since the last call: lines that begin with `C: ` and end with LF.
    pub fn take_tapped(&mut self) -> String {
        let Some(tap) = &mut self.tap else { return String::new() };
        tap.settle();
        std::mem::take(&mut tap.text)
    }

    pub(super) fn tap_line(&mut self, line: &[u8]) {
        if let Some(tap) = &mut self.tap {
            tap.settle();
            tap.push(&shown(line));
        }
    }

    /// A line of an AUTH exchange (RFC 4954 section 4).
    pub(super) fn tap_response(&mut self) {
        if let Some(tap) = &mut self.tap {
            tap.push("****");
        }
    }

    pub(super) fn tap_content(&mut self, octets: usize) {
        if let Some(tap) = &mut self.tap {
            tap.content += octets as u64;
        }
    }
}

impl Tap {
    fn settle(&mut self) {
        match std::mem::take(&mut self.content) {
            0 => {}
            octets => self.push(&format!("({octets} octets of content)")),
        }
    }

    fn push(&mut self, line: &str) {
        if self.text.len() + line.len() > TAPPED_OCTETS_MAX {
            self.dropped += 1;
            return;
        }
        if let dropped @ 1.. = std::mem::take(&mut self.dropped) {
            self.text.push_str(&format!("C: ({dropped} lines not shown)\n"));
        }
        self.text.push_str("C: ");
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// A line without its end, secrets masked.
fn shown(line: &[u8]) -> String {
    let verb = line.split(|octet| *octet == b' ').next().unwrap_or_default().to_ascii_uppercase();
    if verb == b"AUTH" {
        let mechanism =
            line[verb.len()..].trim_ascii().split(|octet| *octet == b' ').next().unwrap_or_default();
        let is_name = mechanism.len() <= 20
            && mechanism.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_".contains(b));
        let mechanism = if is_name { str::from_utf8(mechanism).unwrap_or_default() } else { "" };
        return format!("AUTH {mechanism} ****").replace("  ", " ");
    }
    if SHOWN.contains(&&verb[..]) {
        return line.escape_ascii().to_string();
    }
    format!("({} octets, no command)", line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_and_secrets_are_not() {
        for (line, text) in [
            (&b"MAIL FROM:<a@b.example> SIZE=5"[..], "MAIL FROM:<a@b.example> SIZE=5"),
            (b"quit", "quit"),
            (b"EHLO a\x1b[31m\xff", "EHLO a\\x1b[31m\\xff"),
            (b"AUTH PLAIN AGpvZQBzZWNyZXQ=", "AUTH PLAIN ****"),
            (b"auth LOGIN am9l", "AUTH LOGIN ****"),
            (b"AUTH SCRAM-SHA-256 biws", "AUTH SCRAM-SHA-256 ****"),
            (b"AUTH AGpvZQBzZWNyZXQ=", "AUTH ****"),
            (b"AUTH", "AUTH ****"),
            (b"AGpvZQBzZWNyZXQ=", "(16 octets, no command)"),
            (b"joe secret", "(10 octets, no command)"),
            (b"", "(0 octets, no command)"),
        ] {
            assert_eq!(shown(line), text, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn what_nobody_takes_does_not_grow() {
        let mut tap = Tap::default();
        (0..10_000).for_each(|_| tap.push(&"x".repeat(100)));
        assert!(tap.text.len() <= TAPPED_OCTETS_MAX + 10 && tap.dropped > 9_000);
        tap.text.clear();
        tap.push("more");
        assert!(
            tap.text.starts_with("C: (9") && tap.text.ends_with("lines not shown)\nC: more\n"),
            "{}",
            tap.text
        );
    }
}
