//! What a route would change about a message, in words: for `sluice explain`.

use super::{Rules, header};
use sluice_queue::Recipient;
use std::fmt::Write;

/// One line for each thing that changes; empty when nothing does. `header`: a header section to try the rules on,
/// as octets; may be empty.
pub fn explain(
    rules: &Rules,
    hostname: &str,
    from: &str,
    to: &str,
    header: &[u8],
    now_micros: u64,
) -> String {
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = writeln!(out, "{text}");
    };
    if let Some(sender) = rules.sender(from, to, now_micros) {
        line(format_args!("MAIL FROM:<{sender}> in place of <{from}>"));
    }
    if let Some(recipient) = rules.recipient(&Recipient::new(to)) {
        line(format_args!("RCPT TO:<{}> in place of <{to}>", recipient.address));
    }
    let end = header::end(header, true).map_or(0, |end| end.0);
    let before = &header[..end];
    let after = header::rewritten(before, rules, hostname);
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(&after));
    for text in without(&before, &after) {
        line(format_args!("- {text}"));
    }
    for text in without(&after, &before) {
        line(format_args!("+ {text}"));
    }
    out
}

/// Lines of one text that the other does not have.
fn without<'t>(one: &'t str, other: &str) -> Vec<&'t str> {
    one.lines().filter(|line| !other.lines().any(|theirs| theirs == *line)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{RULES, rules};
    use super::*;

    #[test]
    fn what_would_change_is_said() {
        let header = b"From: ann@pc7.corp.example\r\nSubject: x\r\nX-Originating-IP: y\r\n\r\nbody";
        let said =
            explain(&rules(RULES), "relay.example", "ann@pc7.corp.example", "b@away.example", header, 0);
        let expected = "MAIL FROM:<ann@corp.example> in place of <ann@pc7.corp.example>\n\
            - From: ann@pc7.corp.example\n- X-Originating-IP: y\n+ From: ann@corp.example\n+ X-Relay: yes\n";
        assert_eq!(said, expected);
        assert_eq!(explain(&Rules::default(), "relay.example", "a@b.example", "c@d.example", header, 0), "");
    }
}
