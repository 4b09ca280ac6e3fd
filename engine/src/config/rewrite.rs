//! `[srs]` and `[route.rewrite]`.
//!
//! Tables and keys are read here, once, so that a bad file is found by `sluice check` and not by a message.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::document::{At, Section};
use super::read::path;
use super::value::{self, Wrong};
use crate::policy::SenderPattern;
use crate::rewrite::Rules;
use crate::rewrite::map::{FILE_BYTES_MAX, Map};
use crate::rewrite::srs::{self, Srs};

const DAY: Duration = Duration::from_secs(86_400);
/// Octets of the file of keys.
const KEYS_BYTES_MAX: u64 = 64 << 10;
/// Fields that this relay, or a reader of the message, cannot do without.
const NEVER_REMOVED: [&str; 6] =
    ["Received", "From", "Date", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"];

/// With the line where it begins.
pub(super) struct RewriteDraft {
    pub rules: Rules,
    pub srs: Option<At<bool>>,
}

pub(super) fn srs(mut section: Section<'_>) -> Option<Arc<Srs>> {
    let present = section.is_present();
    if present {
        section.demand("domain", "a domain whose mail comes to this relay, such as srs.winery.example");
        section.demand("keys_file", "a file of keys, one a line");
    }
    let domain = section.text("domain", value::domain);
    let file = section.text("keys_file", path);
    let valid = section.duration("valid", DAY..=srs::VALID_MAX).map_or(21 * DAY, |at| at.value);
    let hash = srs::HASH_OCTETS_MIN as u32..=srs::HASH_OCTETS_MAX as u32;
    let hash_octets = section.count("hash_octets", hash).map_or(8, |at| at.value as usize);
    let file = file.and_then(|file| {
        if !section.reads_files() {
            return Some(vec![String::new()]);
        }
        let keys = text_of(&file.value, KEYS_BYTES_MAX).and_then(|text| srs::keys(&text));
        keys.map_err(|wrong| fault(&section, &file, "keys_file", &wrong)).ok()
    });
    section.finish();
    Some(Arc::new(Srs::new(domain?.value, &file?, valid, hash_octets)))
}

pub(super) fn rewrite(mut section: Section<'_>) -> Option<RewriteDraft> {
    let present = section.is_present();
    let srs = section.flag("srs").filter(|at| at.value);
    let verp = section.list("verp", sender_pattern).unwrap_or_default();
    let delimiters = section.text("verp_delimiters", delimiters).map_or(['+', '='], |at| at.value);
    let masquerade = section.list("masquerade", masked).unwrap_or_default();
    let except = section.list("masquerade_except", local_part).unwrap_or_default();
    let masquerade_recipients = section.flag("masquerade_recipients").is_some_and(|at| at.value);
    let senders = map(&mut section, "senders");
    let recipients = map(&mut section, "recipients");
    let strip_received = section.flag("strip_received").is_some_and(|at| at.value);
    let removed = section.list("remove_headers", removed).unwrap_or_default();
    let added = section.list("add_headers", added).unwrap_or_default();
    section.finish();
    fn values<T>(list: Vec<At<T>>) -> Vec<T> {
        list.into_iter().map(|at| at.value).collect()
    }
    let rules = Rules {
        srs: None,
        verp: values(verp),
        verp_delimiters: delimiters,
        masquerade: values(masquerade),
        masquerade_except: values(except),
        masquerade_recipients,
        senders,
        recipients,
        strip_received,
        remove_headers: values(removed),
        add_headers: values(added),
        inside: Default::default(),
    };
    present.then_some(RewriteDraft { rules, srs })
}

fn map(section: &mut Section<'_>, key: &'static str) -> Map {
    let Some(file) = section.text(key, path) else { return Map::default() };
    if !section.reads_files() {
        return Map::default();
    }
    let read = text_of(&file.value, FILE_BYTES_MAX).and_then(|text| Map::read(&text));
    read.unwrap_or_else(|wrong| {
        fault(section, &file, key, &wrong);
        Map::default()
    })
}

fn fault(section: &Section<'_>, file: &At<std::path::PathBuf>, key: &str, wrong: &str) {
    section.fault(file.line, key, format!("{} {wrong}", file.value.display()));
}

fn text_of(file: &Path, bytes_max: u64) -> Result<String, Wrong> {
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(bytes_max + 1).read_to_string(&mut text));
    match read {
        Err(error) => {
            Err(format!("cannot be read ({error}); allowed: a file that the relay's user may read"))
        }
        Ok(_) if text.len() as u64 > bytes_max => {
            Err(format!("is too long; allowed: at most {}", value::show_size(bytes_max)))
        }
        Ok(_) => Ok(text),
    }
}

fn sender_pattern(text: &str) -> Result<SenderPattern, Wrong> {
    let pattern = SenderPattern::read(text).filter(|pattern| *pattern != SenderPattern::Any);
    pattern.ok_or_else(|| {
        format!("\"{text}\" is not a sender; allowed: news@winery.example, @lists.winery.example")
    })
}

fn delimiters(text: &str) -> Result<[char; 2], Wrong> {
    let characters: Vec<char> = text.chars().collect();
    match characters[..] {
        [front, at] if "+-=_".contains(front) && "=-_+".contains(at) => Ok([front, at]),
        _ => Err(format!("\"{text}\" is not two delimiters; allowed: two of + - = _, such as \"+=\"")),
    }
}

fn masked(text: &str) -> Result<String, Wrong> {
    match text.strip_prefix('!') {
        Some(rest) => value::domain(rest).map(|name| format!("!{name}")),
        None => value::domain(text),
    }
}

fn local_part(text: &str) -> Result<String, Wrong> {
    let good = !text.is_empty() && !text.contains(['@', ' ']) && !text.contains(char::is_control);
    let wrong = || format!("\"{text}\" is not the part of an address in front of the @; allowed: root");
    if good { Ok(text.to_lowercase()) } else { Err(wrong()) }
}

fn removed(text: &str) -> Result<String, Wrong> {
    field_name(text)?;
    match NEVER_REMOVED.iter().find(|never| never.eq_ignore_ascii_case(text)) {
        Some(&"Received") => Err(
            "\"Received\" is what loops are noticed by; allowed: strip_received = true, for those of internal hops"
                .to_owned(),
        ),
        Some(never) => Err(format!("\"{never}\" is a field that no message can do without; allowed: others")),
        None => Ok(text.to_owned()),
    }
}

fn field_name(text: &str) -> Result<(), Wrong> {
    let good =
        !text.is_empty() && text.len() <= 76 && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    let wrong = || format!("\"{text}\" is not the name of a field; allowed: X-Originating-IP");
    if good { Ok(()) } else { Err(wrong()) }
}

fn added(text: &str) -> Result<String, Wrong> {
    let wrong = || {
        format!(
            "\"{}\" is not a field; allowed: \"Name: value\" in printable ASCII, up to 900 characters",
            text.escape_debug()
        )
    };
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    field_name(name).map_err(|_| wrong())?;
    let printable = value.bytes().all(|b| (b' '..=b'~').contains(&b));
    if !printable || value.trim().is_empty() || text.len() > 900 {
        return Err(wrong());
    }
    Ok(format!("{name}: {}", value.trim()))
}
