//! Command lines (RFC 5321 section 4.1.1): octets to a [`Command`] that borrows from them.
//!
//! Pure. A line comes without its CRLF and holds at most [`LINE_OCTETS_MAX`] octets; who cuts lines is
//! `session`. Verbs and parameter names are taken in any case. Tolerated, because clients in use do it
//! and nothing can be smuggled by it: white space before the end of a line (RFC 5321 section 4.1.1 asks
//! for that), and spaces after `FROM:` and `TO:`. Not tolerated: control characters anywhere, NUL
//! included, an address without angle brackets. What parameters say is [`parameters`](super::parameters)'s.

use super::chunks::{Chunk, ChunkFault};
use super::parameters::Parameters;
use super::path::{self, ForwardPath, Mailbox, PathFault};

/// Octets of a command line with its CRLF (RFC 5321 section 4.5.3.1.4).
pub const COMMAND_OCTETS_MAX: usize = 512;
/// The same for MAIL and RCPT, whose parameters extensions make longer.
pub const LINE_OCTETS_MAX: usize = 2048;
/// The same for AUTH and for the lines of its exchange (RFC 4954 section 4).
pub const AUTH_OCTETS_MAX: usize = 12_288;
/// Octets of the name in EHLO and HELO.
pub const HELLO_OCTETS_MAX: usize = path::DOMAIN_OCTETS_MAX;

/// One command with its arguments checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// What the client calls itself; see [`is_hello_name`].
    Ehlo(&'a str),
    Helo(&'a str),
    Mail(Mail<'a>),
    Rcpt(Rcpt<'a>),
    Data,
    /// RFC 3030; what it announces follows the line.
    Bdat(Chunk),
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    /// RFC 3207.
    StartTls,
    /// Of Postfix; its argument is read by `smtp::xclient`.
    Xclient(&'a [u8]),
    /// RFC 4954.
    Auth(Auth<'a>),
    /// A command that RFC 5321 or an extension defines and this server does not offer.
    NotOffered(NotOffered),
}

/// `MAIL FROM:<reverse-path> [SP parameters]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mail<'a> {
    /// `None`: the null reverse-path `<>`.
    pub sender: Option<Mailbox<'a>>,
    /// The path has other octets than ASCII, which needs SMTPUTF8 (RFC 6531).
    pub utf8: bool,
    pub parameters: Parameters<'a>,
}

/// `RCPT TO:<forward-path> [SP parameters]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rcpt<'a> {
    pub path: ForwardPath<'a>,
    /// As in [`Mail`].
    pub utf8: bool,
    pub parameters: Parameters<'a>,
}

/// `AUTH SP mechanism [SP initial-response]`. Its `Debug` does not show the response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// In the client's case.
    pub mechanism: &'a str,
    /// Base64, or `=` for an empty one; not yet looked at.
    pub initial: Option<&'a str>,
}

impl std::fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Auth {{ mechanism: {:?}, initial: {} }}", self.mechanism, self.initial.is_some())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOffered {
    Etrn,
    Expn,
    Turn,
}

/// Why a line is no command. Always the client's fault, and lasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No verb that anybody defines.
    UnknownVerb,
    /// A browser or proxy abused as an SMTP client (`GET / HTTP/1.1`).
    ForeignProtocol,
    ControlCharacter,
    /// Longer than [`COMMAND_OCTETS_MAX`] or [`LINE_OCTETS_MAX`].
    TooLong,
    /// EHLO or HELO without a name, or with one that could not be quoted in a Received field.
    HelloName,
    /// MAIL without `FROM:`.
    MailKeyword,
    /// RCPT without `TO:`.
    RcptKeyword,
    ReversePath(PathFault),
    ForwardPath(PathFault),
    /// Something after the end of the command, or an argument that it does not take.
    Argument,
    /// A parameter that no extension of this server defines (RFC 5321 section 4.1.1.11).
    UnknownParameter,
    /// A known parameter with a bad value, or twice.
    Parameter,
    /// VRFY without what to verify.
    MissingArgument,
    /// BDAT without a sound size, or spoilt in another way: nobody can tell where the next command begins.
    ChunkSize,
    /// BDAT with a size and something else than `LAST` behind it; so many octets follow.
    ChunkMarker(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    StartTls,
    Xclient,
    Auth,
    NotOffered(NotOffered),
    Foreign,
}

/// The longest verb below.
const VERB_OCTETS_MAX: usize = 8;

fn verb(word: &[u8]) -> Option<Verb> {
    if word.len() > VERB_OCTETS_MAX {
        return None;
    }
    let mut upper = [0; VERB_OCTETS_MAX];
    upper[..word.len()].copy_from_slice(word);
    upper.make_ascii_uppercase();
    Some(match &upper[..word.len()] {
        b"EHLO" => Verb::Ehlo,
        b"HELO" => Verb::Helo,
        b"MAIL" => Verb::Mail,
        b"RCPT" => Verb::Rcpt,
        b"DATA" => Verb::Data,
        b"BDAT" => Verb::Bdat,
        b"RSET" => Verb::Rset,
        b"NOOP" => Verb::Noop,
        b"VRFY" => Verb::Vrfy,
        b"HELP" => Verb::Help,
        b"QUIT" => Verb::Quit,
        b"AUTH" => Verb::Auth,
        b"ETRN" => Verb::NotOffered(NotOffered::Etrn),
        b"EXPN" => Verb::NotOffered(NotOffered::Expn),
        b"STARTTLS" => Verb::StartTls,
        b"XCLIENT" => Verb::Xclient,
        b"TURN" => Verb::NotOffered(NotOffered::Turn),
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"OPTIONS" | b"CONNECT" => Verb::Foreign,
        _ => return None,
    })
}

/// Whether a line, or the start of one, is BDAT, however spoilt: octets that are no commands follow it.
pub fn is_bdat(line: &[u8]) -> bool {
    match line.split_at_checked(4) {
        Some((verb, rest)) => {
            verb.eq_ignore_ascii_case(b"BDAT") && !rest.first().is_some_and(u8::is_ascii_alphanumeric)
        }
        None => false,
    }
}

/// Reads one line, given without its CRLF.
///
/// # Errors
/// [`Fault`] names what is wrong; the reply to each stands in `session`.
pub fn parse_command(line: &[u8]) -> Result<Command<'_>, Fault> {
    match parse(line) {
        Err(Fault::ChunkMarker(octets)) => Err(Fault::ChunkMarker(octets)),
        Err(_) if is_bdat(line) => Err(Fault::ChunkSize),
        parsed => parsed,
    }
}

fn parse(line: &[u8]) -> Result<Command<'_>, Fault> {
    const CRLF_OCTETS: usize = 2;
    if line.len() + CRLF_OCTETS > AUTH_OCTETS_MAX {
        return Err(Fault::TooLong);
    }
    if line.iter().any(u8::is_ascii_control) {
        return Err(Fault::ControlCharacter);
    }
    let word = &line[..line.iter().position(|&b| b == b' ').unwrap_or(line.len())];
    let verb = verb(word).ok_or(Fault::UnknownVerb)?;
    let octets_max = match verb {
        Verb::Auth => AUTH_OCTETS_MAX,
        Verb::Mail | Verb::Rcpt => LINE_OCTETS_MAX,
        _ => COMMAND_OCTETS_MAX,
    };
    if line.len() + CRLF_OCTETS > octets_max {
        return Err(Fault::TooLong);
    }
    let argument = line[word.len()..].trim_ascii();
    match verb {
        Verb::Ehlo => hello(argument).map(Command::Ehlo),
        Verb::Helo => hello(argument).map(Command::Helo),
        Verb::Mail => mail(argument).map(Command::Mail),
        Verb::Rcpt => rcpt(argument).map(Command::Rcpt),
        Verb::Data => alone(argument, Command::Data),
        Verb::Bdat => Chunk::parse(argument).map(Command::Bdat).map_err(|fault| match fault {
            ChunkFault::Size => Fault::ChunkSize,
            ChunkFault::Marker(octets) => Fault::ChunkMarker(octets),
        }),
        Verb::Rset => alone(argument, Command::Rset),
        Verb::Quit => alone(argument, Command::Quit),
        Verb::StartTls => alone(argument, Command::StartTls),
        Verb::Xclient => Ok(Command::Xclient(argument)),
        Verb::Auth => auth(argument).map(Command::Auth),
        Verb::Noop => Ok(Command::Noop),
        Verb::Help => Ok(Command::Help),
        Verb::Vrfy if argument.is_empty() => Err(Fault::MissingArgument),
        Verb::Vrfy => Ok(Command::Vrfy),
        Verb::NotOffered(which) => Ok(Command::NotOffered(which)),
        Verb::Foreign => Err(Fault::ForeignProtocol),
    }
}

fn auth(argument: &[u8]) -> Result<Auth<'_>, Fault> {
    let text = str::from_utf8(argument).map_err(|_| Fault::Argument)?;
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let mechanism = words.next().ok_or(Fault::MissingArgument)?;
    let initial = words.next();
    if words.next().is_some() { Err(Fault::Argument) } else { Ok(Auth { mechanism, initial }) }
}

fn alone<'a>(argument: &[u8], command: Command<'a>) -> Result<Command<'a>, Fault> {
    if argument.is_empty() { Ok(command) } else { Err(Fault::Argument) }
}

/// Whether the argument of EHLO or HELO is taken. RFC 5321 section 4.1.1.1 wants a domain or an address
/// literal; many clients send something else, and section 4.1.4 forbids to refuse mail for a name that
/// does not resolve. So every printable ASCII word is taken that can stand in a Received field without
/// changing its meaning.
pub fn is_hello_name(name: &[u8]) -> bool {
    (1..=HELLO_OCTETS_MAX).contains(&name.len())
        && name.iter().all(|&b| b.is_ascii_graphic() && !b"()<>;,\\\"".contains(&b))
}

fn hello(argument: &[u8]) -> Result<&str, Fault> {
    if !is_hello_name(argument) {
        return Err(Fault::HelloName);
    }
    str::from_utf8(argument).map_err(|_| Fault::HelloName)
}

/// Skips `FROM:` or `TO:` and the spaces that some clients put after it.
fn after_keyword<'a>(argument: &'a [u8], keyword: &str) -> Option<&'a [u8]> {
    match argument.split_at_checked(keyword.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(keyword.as_bytes()) => Some(rest.trim_ascii_start()),
        _ => None,
    }
}

fn mail(argument: &[u8]) -> Result<Mail<'_>, Fault> {
    let text = after_keyword(argument, "FROM:").ok_or(Fault::MailKeyword)?;
    let text = str::from_utf8(text).map_err(|_| Fault::ReversePath(PathFault::NonAscii))?;
    let (sender, rest) = path::reverse_path(text).map_err(Fault::ReversePath)?;
    Ok(Mail { sender, utf8: has_utf8(text, rest), parameters: Parameters::after_path(rest)? })
}

fn rcpt(argument: &[u8]) -> Result<Rcpt<'_>, Fault> {
    let text = after_keyword(argument, "TO:").ok_or(Fault::RcptKeyword)?;
    let text = str::from_utf8(text).map_err(|_| Fault::ForwardPath(PathFault::NonAscii))?;
    let (path, rest) = path::forward_path(text).map_err(Fault::ForwardPath)?;
    Ok(Rcpt { path, utf8: has_utf8(text, rest), parameters: Parameters::after_path(rest)? })
}

/// Whether what stands before `rest` has other octets than ASCII.
fn has_utf8(text: &str, rest: &str) -> bool {
    !text[..text.len() - rest.len()].is_ascii()
}

#[cfg(test)]
mod tests;
