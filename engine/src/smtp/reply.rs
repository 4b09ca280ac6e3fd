//! Replies (RFC 5321 section 4.2): what the server says, in one table.
//!
//! Pure. Every reply of the server is an [`Answer`] below, with its code, its enhanced status code
//! (RFC 3463, RFC 5248) and its text; there is no other place that writes one, save the EHLO reply,
//! whose lines `session` lists, and what another server said ([`said`](super::said)). Enhanced codes stand on every 2yz, 4yz and 5yz reply but the greeting
//! and the replies to EHLO and HELO (RFC 2034 section 4); the refusal that takes the place of a greeting
//! has one, because people read it there.
//!
//! Texts say what is wrong and, where the peer can do something, what. They hold no word that a peer
//! sent, so no reply can be forged by a command.

use std::fmt::Display;
use std::io::Write;

/// Octets of a reply line with its CRLF (RFC 5321 section 4.5.3.1.5).
pub const REPLY_OCTETS_MAX: usize = 512;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    /// Class, subject and detail; empty where RFC 2034 wants none.
    pub enhanced: &'static str,
    /// `{}` stands for one argument.
    pub text: &'static str,
}

impl Answer {
    pub fn is_error(&self) -> bool {
        self.code >= 400
    }

    /// Appends the reply with its CRLF. For an answer without an argument.
    pub fn put(&self, out: &mut Vec<u8>) {
        self.put_with(out, "");
    }

    /// Appends the reply with its CRLF and its argument, which must be printable and short.
    pub fn put_with(&self, out: &mut Vec<u8>, argument: impl Display) {
        let (before, after) = self.text.split_once("{}").unwrap_or((self.text, ""));
        let space = if self.enhanced.is_empty() { "" } else { " " };
        put(out, format_args!("{} {}{space}{before}", self.code, self.enhanced));
        if before.len() < self.text.len() {
            put(out, argument);
        }
        put(out, format_args!("{after}\r\n"));
    }
}

fn put(out: &mut Vec<u8>, what: impl Display) {
    write!(out, "{what}").expect("a vector takes everything");
}

/// Appends a reply of several lines without enhanced codes: that to EHLO.
pub fn put_lines(out: &mut Vec<u8>, code: u16, lines: &[&dyn Display]) {
    for (number, line) in lines.iter().enumerate() {
        let separator = if number + 1 == lines.len() { ' ' } else { '-' };
        put(out, format_args!("{code}{separator}{line}\r\n"));
    }
}

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident = $code:literal $enhanced:literal $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Answer = Answer { code: $code, enhanced: $enhanced, text: $text };)*
        /// Every answer of the server, by its name.
        pub const ANSWERS: &[(&str, Answer)] = &[$((stringify!($name), $name)),*];
    };
}

answers! {
    // The session as a whole.
    /// The host name.
    GREETING = 220 "" "{} ESMTP";
    NOT_ADMITTED = 554 "5.7.1" "This listener does not take connections from your address";
    /// The host name.
    TOO_MANY_SESSIONS = 421 "4.7.0" "{} Too many connections, try again later";
    /// The host name.
    OVERLOADED = 421 "4.3.2" "{} Overloaded, try again later";
    /// The host name.
    TOO_MANY_FROM_ADDRESS = 421 "4.7.0" "{} Too many connections from your address, try again later";
    /// The host name.
    TOO_MANY_FROM_NETWORK = 421 "4.7.0" "{} Too many connections from your network, try again later";
    /// The host name.
    TOO_OFTEN_FROM_ADDRESS = 421 "4.7.0" "{} Your address connects too often, try again later";
    /// The host name.
    TOO_OFTEN_FROM_NETWORK = 421 "4.7.0" "{} Your network connects too often, try again later";
    EARLY_TALKER = 554 "5.5.0" "You sent octets before the greeting, wait for it";
    /// The host name.
    TOO_SLOW = 421 "4.4.2" "{} Octets come too slowly, try again over a better connection";
    /// The host name.
    SESSION_TOO_LONG = 421 "4.4.2" "{} This session has lasted too long, connect again";
    /// The host name.
    TOO_MANY_INVALID_RECIPIENTS = 421 "4.7.0" "{} Too many invalid recipients in this session";
    /// The host name.
    CLOSING = 221 "2.0.0" "{} closing connection";
    /// The host name.
    SHUTTING_DOWN = 421 "4.3.2" "{} Service shutting down, try again later";
    /// The host name.
    TIMED_OUT = 421 "4.4.2" "{} Timeout waiting for the client";
    /// The host name.
    TOO_MANY_ERRORS = 421 "4.7.0" "{} Too many errors in this session";
    /// The host name.
    TOO_MANY_TRANSACTIONS = 421 "4.7.0" "{} Too many messages in this session, connect again";
    /// The host name.
    ENDLESS_LINE = 421 "4.7.0" "{} Command line without an end";
    /// The host name.
    INTERNAL_FAULT = 421 "4.3.0" "{} Internal fault, try again later";

    // Command lines.
    UNKNOWN_COMMAND = 500 "5.5.2" "Command not recognized";
    FOREIGN_PROTOCOL = 500 "5.5.2" "This is an SMTP server";
    CONTROL_CHARACTER = 500 "5.5.2" "Control character in command line";
    BARE_LF_IN_COMMAND = 500 "5.5.2" "Command lines must end in CR LF, bare LF received";
    LINE_TOO_LONG = 500 "5.5.2" "Command line too long";
    NOT_OFFERED = 502 "5.5.1" "Command not implemented";
    NO_ARGUMENT_TAKEN = 501 "5.5.4" "Unexpected argument";
    ARGUMENT_MISSING = 501 "5.5.4" "Argument missing";
    UNKNOWN_PARAMETER = 555 "5.5.4" "Parameter not recognized or not implemented";
    BAD_PARAMETER = 501 "5.5.4" "Malformed or repeated parameter";
    TLS_REQUIRED = 530 "5.7.0" "Send STARTTLS first";
    SEQUENCE_HELLO_FIRST = 503 "5.5.1" "Send EHLO or HELO first";

    // EHLO and HELO.
    /// The host name.
    HELLO = 250 "" "{}";
    HELLO_NAME = 501 "" "EHLO and HELO need the client's domain name or address literal";

    // MAIL.
    MAIL_OK = 250 "2.1.0" "Sender ok";
    MAIL_SYNTAX = 501 "5.5.4" "Syntax: MAIL FROM:<address>";
    /// What is wrong.
    MAIL_ADDRESS = 501 "5.1.7" "Bad sender address: {}";
    MAIL_NON_ASCII = 553 "5.6.7" "Sender address with non-ASCII octets not permitted";
    MESSAGE_RATE = 450 "4.7.1" "Too many messages from your address or network, try again later";
    MAIL_NESTED = 503 "5.5.1" "Sender already given, finish this message or send RSET";
    /// The limit in octets.
    MESSAGE_TOO_LARGE = 552 "5.3.4" "Message exceeds the size limit of {} octets";

    /// In seconds.
    BY_TOO_SHORT = 501 "5.5.4" "BY with return needs {} seconds or more";
    /// In seconds.
    HOLD_TOO_LONG = 501 "5.5.4" "Messages are held for at most {} seconds";

    // RCPT.
    RCPT_OK = 250 "2.1.5" "Recipient ok";
    RCPT_SYNTAX = 501 "5.5.4" "Syntax: RCPT TO:<address>";
    /// What is wrong.
    RCPT_ADDRESS = 501 "5.1.3" "Bad recipient address: {}";
    RCPT_NON_ASCII = 553 "5.6.7" "Recipient address with non-ASCII octets not permitted";
    RECIPIENT_RATE = 450 "4.7.1" "Too many recipients from your address or network, try again later";
    RECIPIENT_UNCHECKED = 450 "4.4.1" "The server of this recipient does not answer now, try again later";
    MAIL_FIRST = 503 "5.5.1" "Send MAIL first";
    TOO_MANY_RECIPIENTS = 452 "4.5.3" "Too many recipients, send the message again for the others";
    RELAY_DENIED = 550 "5.7.1" "Relaying denied: the recipient's domain is not served here";
    RELAY_DENIED_ROUTED = 550 "5.7.1" "Relaying denied: routing by %, ! or @ in the local part is not taken";
    RETURN_ADDRESS_FORGED = 550 "5.7.1" "Relaying denied: this return address was not made here";
    RETURN_ADDRESS_EXPIRED = 550 "5.1.1" "This return address has expired";
    CLIENT_DENIED = 550 "5.7.1" "Relaying denied: your address may not use this listener";
    NO_SUCH_RECIPIENT = 550 "5.1.1" "No such recipient here";
    NEXT_HOP_DENIED = 550 "5.7.1" "Mail to this domain is not allowed here";
    AUTHENTICATION_REQUIRED = 530 "5.7.0" "Authentication required";

    // DATA.
    START_CONTENT = 354 "" "End data with <CR><LF>.<CR><LF>";
    NO_VALID_RECIPIENTS = 554 "5.5.1" "No valid recipients";
    EARLY_CONTENT = 503 "5.5.0" "Octets after DATA before the reply to it: improper pipelining";
    /// The queue id.
    MESSAGE_OK = 250 "2.0.0" "Ok: queued as {}";
    /// The queue id; a priority above 0 was asked for and not granted (RFC 6710 section 4.3).
    MESSAGE_OK_LOWERED = 250 "2.3.6" "0 is the priority of the message; queued as {}";
    BARE_CR = 550 "5.5.2" "Message refused: bare CR in content, lines must end in CR LF";
    BARE_LF = 550 "5.5.2" "Message refused: bare LF in content, lines must end in CR LF";
    NUL_IN_CONTENT = 550 "5.6.0" "Message refused: NUL octet in content, encode it with base64";
    /// The limit in octets.
    LINE_IN_CONTENT_TOO_LONG = 554 "5.6.0" "Message refused: line longer than {} octets, encode it with quoted-printable or base64";
    /// The limit.
    MAIL_LOOP = 554 "5.4.6" "Message refused: {} or more Received fields, mail loop";
    NO_SPACE = 452 "4.3.1" "Insufficient system storage, try again later";
    STORAGE_FAILED = 451 "4.3.0" "The message could not be stored, try again later";
    BUSY = 451 "4.3.2" "Too busy to take a message now, try again later";

    /// The limit in octets.
    HEADER_TOO_LARGE = 552 "5.3.4" "Message refused: header section larger than {} octets";

    // BDAT.
    /// The octets of the chunk.
    CHUNK_OK = 250 "2.0.0" "Ok: {} octets received";
    BDAT_SYNTAX = 501 "5.5.4" "Syntax: BDAT size [LAST]";
    /// Where the chunk ends cannot be known.
    BDAT_SIZE = 501 "5.5.4" "Syntax: BDAT size [LAST]; closing, as what follows cannot be told from commands";
    BDAT_NEEDS_EHLO = 503 "5.5.1" "Send EHLO before BDAT";
    DATA_AFTER_BDAT = 503 "5.5.1" "This message comes by BDAT, finish it with BDAT LAST or send RSET";
    RCPT_AFTER_BDAT = 503 "5.5.1" "The content has begun, finish it with BDAT LAST or send RSET";
    BINARY_NEEDS_BDAT = 503 "5.5.1" "A message with BODY=BINARYMIME must be sent by BDAT";

    // STARTTLS.
    TLS_READY = 220 "2.0.0" "Ready to start TLS";
    TLS_ACTIVE = 503 "5.5.1" "TLS is active already";

    // XCLIENT.
    XCLIENT_DENIED = 550 "5.7.1" "XCLIENT is not taken from your address";
    XCLIENT_IN_TRANSACTION = 503 "5.5.1" "Finish this message or send RSET first";
    XCLIENT_SYNTAX = 501 "5.5.4" "Syntax: XCLIENT attribute=value, each attribute once";
    XCLIENT_ATTRIBUTE = 501 "5.5.4" "Attribute not announced";
    XCLIENT_NO_ADDRESS = 501 "5.5.4" "ADDR must be an address";
    XCLIENT_LOGIN = 550 "5.7.1" "LOGIN is not taken: the client must authenticate itself here";
    // AUTH.
    /// The challenge in base64.
    AUTH_CHALLENGE = 334 "" "{}";
    AUTH_OK = 235 "2.7.0" "Authentication successful";
    AUTH_FAILED = 535 "5.7.8" "Authentication failed: check login and password";
    AUTH_UNAVAILABLE = 454 "4.7.0" "Logins cannot be verified now, try again later";
    AUTH_LOCKED = 454 "4.7.0" "Too many failed logins from your network, try again later";
    AUTH_CANCELLED = 501 "5.7.0" "Authentication cancelled";
    AUTH_NOT_BASE64 = 501 "5.5.2" "Not base64";
    AUTH_LINE_TOO_LONG = 500 "5.5.6" "Authentication exchange line too long";
    AUTH_MECHANISM_UNKNOWN = 504 "5.5.4" "Authentication mechanism not offered, EHLO lists those that are";
    AUTH_HELLO_FIRST = 503 "5.5.1" "Send EHLO first";
    AUTH_ACTIVE = 503 "5.5.1" "Already authenticated";
    AUTH_IN_TRANSACTION = 503 "5.5.1" "AUTH is not permitted during a mail transaction";
    AUTH_NEEDS_TLS = 538 "5.7.11" "Encryption required for authentication, send STARTTLS first";
    SENDER_NOT_OWNED = 553 "5.7.1" "Sender address rejected: not owned by your login";
    LOGIN_LIMIT = 450 "4.7.1" "Your login has sent as much as it may for now, try again later";

    // The others.
    RESET_OK = 250 "2.0.0" "Ok";
    NOOP_OK = 250 "2.0.0" "Ok";
    VRFY_UNKNOWN = 252 "2.0.0" "Cannot verify, but will take mail and try to deliver it";
    HELP_TEXT = 214 "2.0.0" "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT; see RFC 5321";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_enhanced_code_has_the_class_of_its_reply() {
        for (name, answer) in ANSWERS {
            assert!((200..560).contains(&answer.code), "{name}");
            if answer.enhanced.is_empty() {
                continue;
            }
            let numbers: Vec<u16> = answer.enhanced.split('.').map(|n| n.parse().unwrap()).collect();
            assert_eq!((numbers.len(), numbers[0]), (3, answer.code / 100), "{name}");
        }
    }

    /// RFC 2034 section 4.
    #[test]
    fn enhanced_codes_are_missing_only_where_they_must_be() {
        let without: Vec<_> =
            ANSWERS.iter().filter(|(_, answer)| answer.enhanced.is_empty()).map(|(name, _)| *name).collect();
        assert_eq!(without, ["GREETING", "HELLO", "HELLO_NAME", "START_CONTENT", "AUTH_CHALLENGE"]);
    }

    /// RFC 5321 section 4.5.3.1.5, with the longest argument: a host name.
    #[test]
    fn every_reply_is_one_line_within_its_limit() {
        for (name, answer) in ANSWERS {
            let mut out = Vec::new();
            answer.put_with(&mut out, "h".repeat(255));
            assert!(out.len() <= REPLY_OCTETS_MAX, "{name}");
            let line = out.strip_suffix(b"\r\n").expect(name);
            assert!(line.iter().all(|b| b.is_ascii_graphic() || *b == b' '), "{name}");
            assert!(answer.text.matches("{}").count() <= 1, "{name}");
        }
    }

    #[test]
    fn the_reader_reads_what_the_table_writes() {
        for (name, answer) in ANSWERS {
            let mut out = Vec::new();
            answer.put_with(&mut out, 42);
            let (consumed, reply) =
                crate::delivery::reply_reader::ReplyReader::default().read(&out).expect(name);
            let reply = reply.expect(name);
            assert_eq!((consumed, reply.code), (out.len(), answer.code), "{name}");
            assert_eq!(reply.enhanced.is_some(), !answer.enhanced.is_empty(), "{name}");
            assert_eq!(reply.text, answer.text.replace("{}", "42"), "{name}");
        }
    }

    #[test]
    fn a_reply_of_several_lines_marks_its_last() {
        let mut out = Vec::new();
        put_lines(&mut out, 250, &[&"host", &"PIPELINING", &format_args!("SIZE {}", 7)]);
        assert_eq!(out, b"250-host\r\n250-PIPELINING\r\n250 SIZE 7\r\n");
    }
}
