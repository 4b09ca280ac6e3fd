//! `[dsn]`: what senders are told, and what the postmaster is told.
//!
//! Templates are read here, once, so that a bad one is found by `sluice check`.

use std::path::Path;

use super::document::Section;
use super::read::path;
use super::value::Wrong;
use crate::dsn::template::{TEMPLATE_BYTES_MAX, Template};
use crate::dsn::{FULL_BYTES_MAX, Kind, Language, Texts};

/// The most that `full_bytes_max` can be: a DSN lies in memory while it is made.
const FULL_BYTES_LIMIT: u64 = 10 << 20;

/// What the relay tells of messages that were not delivered, and whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dsn {
    pub texts: Texts,
    /// Without RET the whole message is returned, not only its header. Default false.
    pub full: bool,
    /// Octets of a message that is returned whole. Default 64 KiB.
    pub full_bytes_max: u64,
    pub notify: NotifyPostmaster,
    /// Notices to the postmaster, over all shards. Default 60.
    pub notices_per_hour: u32,
}

impl Default for Dsn {
    fn default() -> Self {
        Self {
            texts: Texts::default(),
            full: false,
            full_bytes_max: FULL_BYTES_MAX as u64,
            notify: NotifyPostmaster { resource: true, software: true, ..NotifyPostmaster::default() },
            notices_per_hour: 60,
        }
    }
}

/// What the postmaster is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyPostmaster {
    /// Copies of DSNs about failures.
    pub bounce: bool,
    /// Notifications that could not be delivered themselves.
    pub double_bounce: bool,
    /// Copies of DSNs about delays.
    pub delay: bool,
    /// No room for new mail.
    pub resource: bool,
    /// A message that was held after faults of the program.
    pub software: bool,
}

pub(super) fn dsn(mut section: Section<'_>) -> Dsn {
    let absent = Dsn::default();
    let languages = section.list("languages", language);
    section.refuse_empty("languages");
    let languages: Vec<Language> = languages.into_iter().flatten().map(|at| at.value).collect();
    let mut texts = if languages.is_empty() { Texts::default() } else { Texts::built_in(&languages) };
    let directory = section.text("templates", path);
    if let Some(directory) = directory.filter(|_| section.reads_files()) {
        for wrong in replace(&mut texts, &directory.value) {
            section.fault(directory.line, "templates", wrong);
        }
    }
    let full = section.choice("return", &[("headers", false), ("full", true)]);
    let bytes_max = section.size("full_bytes_max", 0..=FULL_BYTES_LIMIT);
    let notify = section.list("notify_postmaster", class);
    let per_hour = section.count("notices_per_hour", 0..=10_000);
    section.finish();
    Dsn {
        texts,
        full: full.map_or(absent.full, |at| at.value),
        full_bytes_max: bytes_max.map_or(absent.full_bytes_max, |at| at.value),
        notify: notify.map_or(absent.notify, |classes| {
            let mut notify = NotifyPostmaster::default();
            classes.into_iter().for_each(|set| (set.value)(&mut notify));
            notify
        }),
        notices_per_hour: per_hour.map_or(absent.notices_per_hour, |at| at.value),
    }
}

fn language(text: &str) -> Result<Language, Wrong> {
    Language::read(text).ok_or_else(|| format!("\"{text}\" is not a language; allowed: en, de"))
}

fn class(text: &str) -> Result<fn(&mut NotifyPostmaster), Wrong> {
    Ok(match text {
        "bounce" => |notify| notify.bounce = true,
        "double-bounce" => |notify| notify.double_bounce = true,
        "delay" => |notify| notify.delay = true,
        "resource" => |notify| notify.resource = true,
        "software" => |notify| notify.software = true,
        _ => {
            return Err(format!(
                "\"{text}\" is nothing that is told; allowed: bounce, double-bounce, delay, resource, software"
            ));
        }
    })
}

/// Takes the templates that the directory has; returns what is wrong with it.
fn replace(texts: &mut Texts, directory: &Path) -> Vec<Wrong> {
    if !directory.is_dir() {
        return vec![format!("{} is no directory; allowed: one with templates", directory.display())];
    }
    let mut faults = Vec::new();
    let mut found = false;
    for kind in Kind::ALL {
        let file = directory.join(format!("{}.txt", kind.name()));
        let read = match std::fs::metadata(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Ok(facts) if facts.len() > TEMPLATE_BYTES_MAX as u64 => {
                Err(format!("is too long; allowed: at most {TEMPLATE_BYTES_MAX} octets"))
            }
            _ => std::fs::read(&file).map_err(|error| format!("cannot be read: {error}")),
        };
        found = true;
        let text = read.and_then(|octets| {
            String::from_utf8(octets)
                .map_err(|error| format!("is not UTF-8 from octet {} on", error.utf8_error().valid_up_to()))
        });
        match text.and_then(|text| Template::read(&text)) {
            Ok(template) => texts.set(kind, template),
            Err(wrong) => faults.push(format!("{}: {wrong}", file.display())),
        }
    }
    if !found {
        faults.push(format!(
            "{} has no template; allowed: failed.txt, delayed.txt, relayed.txt, as sluice dsn-template prints them",
            directory.display()
        ));
    }
    faults
}
