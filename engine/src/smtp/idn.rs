//! Internationalized domain names (RFC 5890, RFC 6531 section 3.3): U-labels to A-labels.
//!
//! Pure. Only names with other characters than ASCII come here; all others are compared as they are. A
//! name is mapped before it is encoded (UTS 46), so that every way to write a domain has the one form by
//! which policy and routes know it.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// The name with A-labels, in lower case; `None` when it is no domain name.
///
/// The result has letters, digits, hyphens and dots only, whatever the name has.
pub fn a_labels(name: &str) -> Option<String> {
    let ascii =
        Uts46::new().to_ascii(name.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Verify);
    ascii.ok().map(|ascii| ascii.into_owned()).filter(|ascii| super::path::is_domain(ascii))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_domain_has_one_form() {
        for (name, expected) in [
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("BÜCHER.Example", Some("xn--bcher-kva.example")),
            ("bu\u{308}cher.example", Some("xn--bcher-kva.example")),
            ("xn--bcher-kva.ünder.example", Some("xn--bcher-kva.xn--nder-zra.example")),
            ("例え。テスト", Some("xn--r8jz45g.xn--zckzah")),
            ("ｗｉｎｅｒｙ.example", Some("winery.example")),
            ("a\u{200b}ü.example", Some("xn--a-eha.example")),
            ("ü..example", None),
            ("ü.example.", None),
            (".ü", None),
            ("-ü.example", None),
            ("ü_x.example", None),
            ("ü x.example", None),
            ("ü／x.example", None),
            ("\u{202e}ü.example", None),
            ("ü\u{fffd}.example", None),
        ] {
            assert_eq!(a_labels(name).as_deref(), expected, "{name}");
        }
        assert_eq!(a_labels(&format!("{}ü.example", "a".repeat(60))), None, "the label is too long");
    }
}
