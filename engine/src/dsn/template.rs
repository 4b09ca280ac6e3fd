//! The texts of DSNs, which the operator can replace: one template a kind.
//!
//! Pure; read once at the start, immutable, shared.
//!
//! ```text
//! Language: en                         of {reason} and {advice}; en or de
//! From: Mail Delivery System           the author's name; the address is the postmaster's
//! Subject: Your message is delayed
//! Subject-Some: …                      when a DSN tells of other kinds too; optional
//!
//! Text with {hostname}.                each line is wrapped with its indent; {{ stands for {
//! {each recipient}
//!   <{recipient}> {reason}             a line of variables that come to nothing is left out
//! {end}
//! ```
//!
//! Whatever a variable holds is reduced to printable characters on one line before it is wrapped, so nobody's words
//! can make a field, a boundary or a line that looks like the template's own; they are not expanded again either.

use super::fields::{printable, wrapped};
use super::text::{Kind, Language};
use std::fmt;

/// Octets of a template.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1_024;
/// Octets of one of its lines (RFC 5322 section 2.1.1).
pub const LINE_BYTES_MAX: usize = 998;
/// Octets of a subject and of the author's name.
const SUBJECT_BYTES_MAX: usize = 200;
/// Octets of indent that are kept.
const INDENT_MAX: usize = 20;
const FAULTS_MAX: usize = 5;

const EACH: &str = "{each recipient}";
const END: &str = "{end}";

/// What can stand in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    Hostname,
    Postmaster,
    QueueId,
    ArrivalDate,
    Sender,
    Count,
    // From here on only within {each recipient}.
    Recipient,
    OriginalRecipient,
    Status,
    Host,
    Reply,
    Until,
    Reason,
    Advice,
}

use Variable as V;

const VARIABLES: [(&str, Variable); 14] = [
    ("hostname", V::Hostname),
    ("postmaster", V::Postmaster),
    ("queue_id", V::QueueId),
    ("arrival_date", V::ArrivalDate),
    ("sender", V::Sender),
    ("count", V::Count),
    ("recipient", V::Recipient),
    ("original_recipient", V::OriginalRecipient),
    ("status", V::Status),
    ("host", V::Host),
    ("reply", V::Reply),
    ("until", V::Until),
    ("reason", V::Reason),
    ("advice", V::Advice),
];
/// So many of them mean the message.
const OF_MESSAGE: usize = 6;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    indent: usize,
    pieces: Vec<Piece>,
}

/// One text in one language.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    pub language: Language,
    pub from: String,
    subject: Line,
    subject_some: Option<Line>,
    before: Vec<Line>,
    each: Vec<Line>,
    after: Vec<Line>,
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Template({:?}, {:?}, {} lines)",
            self.language,
            self.from,
            self.before.len() + self.each.len() + self.after.len()
        )
    }
}

/// The text that is used where the operator gives none.
pub fn built_in(kind: Kind, language: Language) -> &'static str {
    match (kind, language) {
        (Kind::Failed, Language::English) => include_str!("templates/failed.en.txt"),
        (Kind::Delayed, Language::English) => include_str!("templates/delayed.en.txt"),
        (Kind::Relayed, Language::English) => include_str!("templates/relayed.en.txt"),
        (Kind::Failed, Language::German) => include_str!("templates/failed.de.txt"),
        (Kind::Delayed, Language::German) => include_str!("templates/delayed.de.txt"),
        (Kind::Relayed, Language::German) => include_str!("templates/relayed.de.txt"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Before,
    Each,
    After,
}

impl Template {
    /// # Errors
    /// The first faults, each with its line, and what is allowed.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("is too long; allowed: at most {TEMPLATE_BYTES_MAX} octets"));
        }
        let mut faults = Vec::new();
        let mut place = Place::Header;
        let (mut language, mut from, mut subject, mut subject_some) = (None, None, None, None);
        let (mut before, mut each, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let mut fault = |wrong: String| {
                if faults.len() < FAULTS_MAX {
                    faults.push(format!("line {}: {wrong}", index + 1));
                }
            };
            if line.len() > LINE_BYTES_MAX {
                fault(format!("has {} octets; allowed: at most {LINE_BYTES_MAX}", line.len()));
                continue;
            }
            if let Some(control) = line.chars().find(|c| c.is_control() && *c != '\t') {
                fault(format!("has the control character {:?}; allowed: none", control));
                continue;
            }
            match (place, line.trim()) {
                (Place::Header, "") => place = Place::Before,
                (Place::Header, field) => {
                    let (name, value) = field.split_once(':').unwrap_or((field, ""));
                    let value = value.trim();
                    if value.is_empty() || value.len() > SUBJECT_BYTES_MAX {
                        fault(format!("\"{name}\" has no value of 1 to {SUBJECT_BYTES_MAX} octets"));
                        continue;
                    }
                    match name.to_ascii_lowercase().as_str() {
                        "language" => match Language::read(value) {
                            Some(known) => language = Some(known),
                            None => fault(format!("\"{value}\" is not a language; allowed: en, de")),
                        },
                        "from" => from = Some(value.to_owned()),
                        "subject" => match read_line(value, false) {
                            Ok(line) => subject = Some(line),
                            Err(wrong) => fault(wrong),
                        },
                        "subject-some" => match read_line(value, false) {
                            Ok(line) => subject_some = Some(line),
                            Err(wrong) => fault(wrong),
                        },
                        _ => fault(format!(
                            "\"{name}\" is not a field; allowed: Language, From, Subject, Subject-Some, and an empty line before the text"
                        )),
                    }
                }
                (Place::Before, EACH) => place = Place::Each,
                (Place::Each, END) => place = Place::After,
                (_, EACH | END) => {
                    fault(format!("\"{}\" is out of place; allowed: {EACH} once, then {END}", line.trim()))
                }
                (place, _) => match read_line(line, place == Place::Each) {
                    Err(wrong) => fault(wrong),
                    Ok(line) => match place {
                        Place::Each => each.push(line),
                        Place::After => after.push(line),
                        _ => before.push(line),
                    },
                },
            }
        }
        match place {
            Place::After => {}
            Place::Each => faults.push(format!("has no {END} behind {EACH}")),
            _ => faults.push(format!("names no recipients; allowed: with {EACH}, their lines, and {END}")),
        }
        let named = each.iter().flat_map(|line: &Line| &line.pieces);
        if place == Place::After && !named.clone().any(|piece| *piece == Piece::Variable(V::Recipient)) {
            faults.push(format!("does not say {{recipient}} between {EACH} and {END}"));
        }
        if subject.is_none() && faults.is_empty() {
            faults.push("has no Subject".to_owned());
        }
        match subject {
            Some(subject) if faults.is_empty() => Ok(Self {
                language: language.unwrap_or(Language::English),
                from: from.unwrap_or_else(|| "Mail Delivery System".to_owned()),
                subject,
                subject_some,
                before,
                each,
                after,
            }),
            _ => Err(faults.join("; ")),
        }
    }

    /// `some`: the DSN tells of other kinds too.
    pub fn subject(&self, some: bool, value: impl Fn(Variable) -> String) -> String {
        let line = self.subject_some.as_ref().filter(|_| some).unwrap_or(&self.subject);
        expand(line, false, &value)
    }

    /// The text; `recipient` says what a variable is for the recipient with this index of `count`. `more`: a sentence
    /// about those that are not listed.
    pub fn text(
        &self,
        utf8: bool,
        value: impl Fn(Variable) -> String,
        count: usize,
        recipient: impl Fn(usize, Variable) -> String,
        more: Option<String>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, &self.before, utf8, &value);
        for index in 0..count {
            let of =
                |variable| if is_of_message(variable) { value(variable) } else { recipient(index, variable) };
            put(&mut out, &self.each, utf8, &of);
        }
        if let Some(more) = more {
            out.extend_from_slice(&wrapped(&more, 0, true));
            out.extend_from_slice(b"\r\n");
        }
        put(&mut out, &self.after, utf8, &value);
        out
    }
}

fn is_of_message(variable: Variable) -> bool {
    VARIABLES[..OF_MESSAGE].iter().any(|(_, of)| *of == variable)
}

fn put(out: &mut Vec<u8>, lines: &[Line], utf8: bool, value: &impl Fn(Variable) -> String) {
    for line in lines {
        let text = expand(line, utf8, value);
        match text.trim().is_empty() {
            true if line.pieces.is_empty() => out.extend_from_slice(b"\r\n"),
            true => {}
            false => out.extend_from_slice(&wrapped(&text, line.indent, true)),
        }
    }
}

fn expand(line: &Line, utf8: bool, value: &impl Fn(Variable) -> String) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        // {reason} and {advice} have the relay's own words in them, in any language.
        Piece::Variable(variable @ (V::Reason | V::Advice)) => printable(&value(*variable), true),
        Piece::Variable(variable) => printable(&value(*variable), utf8),
    };
    line.pieces.iter().map(piece).collect()
}

fn read_line(line: &str, in_each: bool) -> Result<Line, String> {
    let indent = line.len() - line.trim_start().len();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = line.trim();
    let mut text = String::new();
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('{') {
            text.push('{');
            rest = behind;
            continue;
        }
        let (name, behind) =
            rest.split_once('}').ok_or("has { without }; allowed: {{ for the character itself")?;
        let known = VARIABLES.iter().position(|(known, _)| *known == name);
        let usable = if in_each { VARIABLES.len() } else { OF_MESSAGE };
        let variable = match known {
            Some(at) if at < usable => VARIABLES[at].1,
            Some(_) => return Err(format!("{{{name}}} stands outside of {EACH} … {END}; allowed: within")),
            None => {
                let names: Vec<&str> = VARIABLES[..usable].iter().map(|(name, _)| *name).collect();
                return Err(format!("{{{name}}} is not a variable; allowed: {}", names.join(", ")));
            }
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Variable(variable));
        rest = behind;
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(Line { indent: indent.min(INDENT_MAX), pieces })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Subject: Hello {sender}\n\nText {hostname}.\n{each recipient}\n  <{recipient}>\n    {advice}\n{end}\nEnd {{x}.\n";

    #[test]
    fn every_built_in_text_is_a_template_in_its_language() {
        for kind in Kind::ALL {
            for language in Language::ALL {
                let template = Template::read(built_in(kind, language)).unwrap();
                assert_eq!(template.language, language);
            }
        }
    }

    #[test]
    fn variables_are_expanded_once_and_make_no_line_of_their_own() {
        let template = Template::read(GOOD).unwrap();
        let value = |variable| match variable {
            V::Sender => "{hostname}\r\nBcc: x".to_owned(),
            _ => "relay.example\r\n\r\n--=_boundary\r\n".to_owned(),
        };
        assert_eq!(template.subject(true, value), "Hello {hostname}  Bcc: x");
        let recipient = |index, variable| match variable {
            V::Recipient => format!("r{index}@b.example\r\nX: y"),
            _ => String::new(),
        };
        let text = template.text(false, value, 2, recipient, Some("and 3 more".into()));
        let expected = "Text relay.example --=_boundary .\r\n  <r0@b.example X: y>\r\n  <r1@b.example X: y>\r\n\
            and 3 more\r\n\r\nEnd {x}.\r\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_with_a_template_is_said_with_its_line() {
        let long = GOOD.replace("Text", &"x".repeat(999));
        for (text, expected) in [
            (
                GOOD.replace("{hostname}", "{hostnam}"),
                "line 3: {hostnam} is not a variable; allowed: hostname, postmaster",
            ),
            (GOOD.replace("{hostname}", "{recipient}"), "line 3: {recipient} stands outside"),
            (GOOD.replace("{hostname}", "{hostname"), "line 3: has { without }"),
            (long, "line 3: has 1011 octets; allowed: at most 998"),
            (GOOD.replace("Text", "Te\u{7}xt"), "line 3: has the control character"),
            (GOOD.replace("{end}\n", ""), "has no {end}"),
            (GOOD.replace("{each recipient}\n", ""), "line 4: {recipient} stands outside"),
            (GOOD.replace("<{recipient}>", "x"), "does not say {recipient}"),
            (GOOD.replace("Subject: Hello {sender}", "From: x"), "has no Subject"),
            (GOOD.replace("Subject:", "Betreff:"), "line 1: \"Betreff\" is not a field"),
            (GOOD.replace("Subject: Hello {sender}", "Subject:"), "line 1: \"Subject\" has no value"),
            (format!("Language: fr\n{GOOD}"), "line 1: \"fr\" is not a language; allowed: en, de"),
            (String::new(), "names no recipients"),
            ("x".repeat(TEMPLATE_BYTES_MAX + 1), "is too long"),
        ] {
            let told = Template::read(&text).unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
    }
}
