//! The original recipient (RFC 3461 section 4.2): `addr-type ";" address`, the address in xtext, or for the
//! address type `utf-8` in one of the forms of RFC 6533 section 3.
//!
//! | form | when |
//! |---|---|
//! | utf-8-addr-xtext | ASCII; everything else, and space, `+`, `=` and backslash, as `\x{HEX}` |
//! | utf-8-addr-unitext | the same with UTF-8 as it is; only where SMTPUTF8 was used |

use super::xtext;

/// Octets of the whole value (RFC 3461 section 4.2).
pub const ORCPT_OCTETS_MAX: usize = 500;

const UTF8: &str = "utf-8";

/// Whether it is a value of ORCPT. `utf8`: MAIL had SMTPUTF8.
pub fn is_orcpt(value: &str, utf8: bool) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    if value.len() > ORCPT_OCTETS_MAX || !is_atom(kind) || address.is_empty() {
        return false;
    }
    match kind.eq_ignore_ascii_case(UTF8) {
        true => (utf8 || address.is_ascii()) && embedded(address).is_some(),
        false => xtext::is_printable(address),
    }
}

/// The address type and the address in plain, for a report. Control characters stay as they were written.
pub fn plain(value: &str) -> Option<(&str, String)> {
    let (kind, address) = value.split_once(';')?;
    let address = match kind.eq_ignore_ascii_case(UTF8) {
        true => embedded(address)?,
        false => String::from_utf8(xtext::decoded(address)?).ok()?,
    };
    Some((kind, address))
}

/// The same value for who does not take UTF-8.
pub fn in_ascii(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_ascii() { out.push(c) } else { out.push_str(&format!("\\x{{{:X}}}", u32::from(c))) }
    }
    out
}

/// RFC 5322 section 3.2.3.
fn is_atom(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
}

/// Takes the embedded characters out of `\x{HEX}`; control characters stay in it. `None` when the text
/// breaks the grammar.
fn embedded(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '\\' {
            let (hex, behind) = rest.strip_prefix("\\x{")?.split_once('}')?;
            let character = hexpoint(hex)?;
            if character.is_control() {
                out.push_str(&rest[..rest.len() - behind.len()]);
            } else {
                out.push(character);
            }
            rest = behind;
            continue;
        }
        if matches!(c, ' ' | '+' | '=') || c.is_control() {
            return None;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

/// Two to six hexadecimal digits in upper case without needless zeros, of a character that cannot stand
/// for itself.
fn hexpoint(hex: &str) -> Option<char> {
    let digits_ok = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if !digits_ok || !(2..=6).contains(&hex.len()) || (hex.len() > 2 && hex.starts_with('0')) {
        return None;
    }
    let character = char::from_u32(u32::from_str_radix(hex, 16).ok()?)?;
    let stands_for_itself = matches!(character, '!'..='~') && !matches!(character, '+' | '=' | '\\');
    (character != '\0' && !stands_for_itself).then_some(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn original_recipients_obey_their_grammar() {
        let long = |octets: usize| format!("rfc822;{}", "a".repeat(octets - 7));
        for (value, without, with) in [
            ("rfc822;bob@x.example", true, true),
            ("RFC822;bob+2Bbox@x.example", true, true),
            ("x400;/C=us/", false, false),
            ("x400;/C+3Dus/", true, true),
            ("rfc822;Bob+20Smith@x", true, true),
            ("rfc822;a+0D+0AX:@x", false, false),
            ("rfc822;a+00@x", false, false),
            ("rfc822;jo+C3+B6@x", false, false),
            ("rfc822;jö@x", false, false),
            ("utf-8;bob@x.example", true, true),
            ("utf-8;j\\x{F6}@x", true, true),
            ("UTF-8;j\\x{1F600}\\x{20}\\x{2B}\\x{5C}@x", true, true),
            ("utf-8;jö@x", false, true),
            ("utf-8;a+b@x", false, false),
            ("utf-8;a\\x{41}@x", false, false),
            ("utf-8;a\\x{D800}@x", false, false),
            ("utf-8;a\\x{110000}@x", false, false),
            ("utf-8;a\\x{f6}@x", false, false),
            ("utf-8;a\\x{0F6}@x", false, false),
            ("utf-8;a\\x{00}@x", false, false),
            ("utf-8;a\\x{F6", false, false),
            ("utf-8;a\\F6}", false, false),
            ("bob@x.example", false, false),
            (";bob@x", false, false),
            ("rfc 822;bob@x", false, false),
            ("rfc822;", false, false),
            (&long(500), true, true),
            (&long(501), false, false),
        ] {
            assert_eq!((is_orcpt(value, false), is_orcpt(value, true)), (without, with), "{value}");
        }
    }

    #[test]
    fn every_form_can_be_told_and_passed_on() {
        for (value, kind, address, ascii) in [
            ("rfc822;a+2Bb@x", "rfc822", "a+b@x", "rfc822;a+2Bb@x"),
            ("utf-8;j\\x{F6}@x", "utf-8", "jö@x", "utf-8;j\\x{F6}@x"),
            ("utf-8;jö@x", "utf-8", "jö@x", "utf-8;j\\x{F6}@x"),
            ("utf-8;a\\x{0D}\\x{85}b", "utf-8", "a\\x{0D}\\x{85}b", "utf-8;a\\x{0D}\\x{85}b"),
        ] {
            assert_eq!(plain(value), Some((kind, address.to_owned())), "{value}");
            assert_eq!(in_ascii(value), ascii);
            assert!(is_orcpt(&in_ascii(value), false));
        }
    }
}
