//! A TOML text as sections, read key by key; every fault is noted with its line and reading goes on.
//!
//! serde would stop at the first fault and could not tell the key's path, so the typed reading is done
//! here, over the spanned tree of the `toml` crate. Whoever reads a section asks for each of its keys;
//! [`Section::finish`] then refuses what nobody asked for. So the set of known keys is the code itself,
//! and the reference file is tested against it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Fault};
use super::value::{self, Wrong};

/// Faults past this many are not noted: a file that is not a configuration at all must not flood the screen.
const FAULTS_MAX: usize = 100;

/// A value and the line where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub line: usize,
}

/// The faults of one text, and the keys that were asked for.
pub(super) struct Notes {
    origin: String,
    line_starts: Vec<usize>,
    faults: RefCell<Vec<Fault>>,
    asked: RefCell<BTreeSet<String>>,
    purpose: Purpose,
}

/// What a configuration is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Everything that it names must be there.
    Run,
    /// Only to find the spool and to name next hops: the files of certificates are not looked at.
    Queue,
}

impl Notes {
    pub(super) fn new(text: &str, origin: &str, purpose: Purpose) -> Self {
        let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1));
        Self {
            origin: origin.to_owned(),
            line_starts: starts.collect(),
            faults: RefCell::default(),
            asked: RefCell::default(),
            purpose,
        }
    }

    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    pub(super) fn fault(&self, line: usize, key: &str, sentence: impl Into<String>) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < FAULTS_MAX {
            faults.push(Fault { line, key: key.to_owned(), sentence: sentence.into() });
        }
    }

    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults.borrow().is_empty()
    }

    #[cfg(test)]
    /// Every key that the reading code knows, as `section.key`.
    pub(super) fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    /// `None` when nothing was wrong.
    pub(super) fn into_error(self) -> Option<ConfigError> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| fault.line);
        (!faults.is_empty()).then_some(ConfigError { origin: self.origin, faults })
    }
}

/// One table of the file; where the file has none, an empty one.
pub(super) struct Section<'d> {
    notes: &'d Notes,
    path: String,
    table: Option<&'d DeTable<'d>>,
    asked: Vec<&'static str>,
    /// Where its heading stands.
    pub line: usize,
}

/// A value of a section, not yet typed.
struct Found<'d> {
    value: &'d DeValue<'d>,
    key: String,
    line: usize,
}

impl<'d> Section<'d> {
    /// Whether files that are named are looked at.
    pub(super) fn reads_files(&self) -> bool {
        self.notes.purpose() == Purpose::Run
    }

    pub(super) fn root(table: &'d DeTable<'d>, notes: &'d Notes) -> Self {
        Self { notes, path: String::new(), table: Some(table), asked: Vec::new(), line: 1 }
    }

    /// The full name of one of its keys.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the file has this table.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    pub(super) fn fault(&self, line: usize, key: &str, sentence: impl Into<String>) {
        self.notes.fault(line, &self.key(key), sentence);
    }

    /// Notes a fault where the key is absent.
    pub(super) fn demand(&self, key: &str, allowed: &str) {
        if !self.has(key) {
            self.fault(self.line, key, format!("is missing; allowed: {allowed}"));
        }
    }

    /// Notes a fault where a list is there and has nothing in it. Lists whose items were wrong are not empty.
    pub(super) fn refuse_empty(&self, key: &str) {
        let Some(Some(DeValue::Array(items))) = self.table.map(|table| table.get(key).map(|at| at.get_ref()))
        else {
            return;
        };
        if items.is_empty() {
            let line = self
                .table
                .and_then(|table| table.get(key))
                .map_or(self.line, |at| self.notes.line(at.span().start));
            self.fault(line, key, "is empty; allowed: at least one");
        }
    }

    /// `[key]`, or `key = { … }`.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'d> {
        let mut section =
            Section { notes: self.notes, path: self.key(key), table: None, asked: vec![], line: self.line };
        if let Some(found) = self.find(key) {
            section.line = found.line;
            match found.value {
                DeValue::Table(table) => section.table = Some(table),
                other => self.mistyped(&found.key, found.line, other, &format!("a table, [{}]", found.key)),
            }
        }
        section
    }

    /// `[[key]]`, in the order of the file.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'d>> {
        let Some(found) = self.find(key) else { return Vec::new() };
        let allowed = format!("tables, each under its own [[{}]]", found.key);
        let DeValue::Array(items) = found.value else {
            self.mistyped(&found.key, found.line, found.value, &allowed);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items.iter() {
            let line = self.notes.line(item.span().start);
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section {
                    notes: self.notes,
                    path: found.key.clone(),
                    table: Some(table),
                    asked: Vec::new(),
                    line,
                }),
                other => self.mistyped(&found.key, line, other, &allowed),
            }
        }
        sections
    }

    /// Whether a list is there whose first item is a table.
    pub(super) fn holds_tables(&self, key: &str) -> bool {
        let value = self.table.and_then(|table| table.get(key));
        let Some(DeValue::Array(items)) = value.map(|at| at.get_ref()) else { return false };
        items.iter().next().is_some_and(|item| matches!(item.get_ref(), DeValue::Table(_)))
    }

    /// A string in one of the notations of `value.rs`. `None`: absent, or wrong and noted.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<At<T>> {
        let found = self.find(key)?;
        let DeValue::String(text) = found.value else {
            self.mistyped(&found.key, found.line, found.value, "a string in quotes");
            return None;
        };
        self.note(&found.key, found.line, read(text))
    }

    /// A list of such strings; the wrong ones are noted and left out. `None`: absent, or no list.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<At<T>>> {
        let found = self.find(key)?;
        let allowed = "a list of strings, [\"…\", \"…\"]";
        let DeValue::Array(items) = found.value else {
            self.mistyped(&found.key, found.line, found.value, allowed);
            return None;
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items.iter() {
            let line = self.notes.line(item.span().start);
            match item.get_ref() {
                DeValue::String(text) => values.extend(self.note(&found.key, line, read(text))),
                other => self.mistyped(&found.key, line, other, allowed),
            }
        }
        Some(values)
    }

    /// One word of a fixed set.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<At<T>> {
        self.text(key, |text| {
            let word = words.iter().find(|(word, _)| *word == text);
            let allowed = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            word.map(|(_, value)| *value)
                .ok_or_else(|| format!("\"{text}\" is not a value; allowed: {}", allowed()))
        })
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<At<Duration>> {
        self.text(key, |text| value::duration(text, &range))
    }

    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<At<u64>> {
        self.text(key, |text| value::size(text, &range))
    }

    pub(super) fn count(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<At<u32>> {
        let found = self.find(key)?;
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = found.value else {
            self.mistyped(&found.key, found.line, found.value, &allowed);
            return None;
        };
        let digits = integer.as_str().replace('_', "");
        let number = u32::from_str_radix(&digits, integer.radix()).ok().filter(|n| range.contains(n));
        self.note(
            &found.key,
            found.line,
            number.ok_or_else(|| format!("{integer} is out of range; allowed: {allowed}")),
        )
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<At<bool>> {
        let found = self.find(key)?;
        match found.value {
            DeValue::Boolean(value) => Some(At { value: *value, line: found.line }),
            other => {
                self.mistyped(&found.key, found.line, other, "true, false");
                None
            }
        }
    }

    /// Refuses the keys that nobody asked for.
    pub(super) fn finish(self) {
        for name in self.table.into_iter().flat_map(|table| table.keys()) {
            let unknown: &str = name.get_ref();
            if self.asked.contains(&unknown) {
                continue;
            }
            let sentence = match nearest(unknown, &self.asked) {
                Some(known) => format!("is not a key; did you mean {known}?"),
                None => format!("is not a key; allowed: {}", self.asked.join(", ")),
            };
            self.fault(self.notes.line(name.span().start), unknown, sentence);
        }
    }

    fn find(&mut self, key: &'static str) -> Option<Found<'d>> {
        self.asked.push(key);
        let path = self.key(key);
        self.notes.asked.borrow_mut().insert(path.clone());
        let (name, value) = self.table?.get_key_value(key)?;
        Some(Found { value: value.get_ref(), key: path, line: self.notes.line(name.span().start) })
    }

    fn note<T>(&self, key: &str, line: usize, read: Result<T, Wrong>) -> Option<At<T>> {
        match read {
            Ok(value) => Some(At { value, line }),
            Err(wrong) => {
                self.notes.fault(line, key, wrong);
                None
            }
        }
    }

    fn mistyped(&self, key: &str, line: usize, found: &DeValue<'_>, allowed: &str) {
        let found = match found {
            DeValue::String(text) => format!("found the string \"{text}\""),
            DeValue::Integer(number) => format!("found the number {number}"),
            DeValue::Float(number) => format!("found the number {number}"),
            DeValue::Boolean(value) => format!("found {value}"),
            DeValue::Datetime(_) => "found a date".to_owned(),
            DeValue::Array(_) => "found a list".to_owned(),
            DeValue::Table(_) => "found a table".to_owned(),
        };
        self.notes.fault(line, key, format!("{found}; allowed: {allowed}"));
    }
}

/// The known key that an unknown one was probably meant to be: at most a third of its letters differ.
fn nearest<'k>(unknown: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|name| (distance(unknown, name), *name)).min()?;
    (near.0 <= near.1.len().div_ceil(3)).then_some(near.1)
}

/// Levenshtein's, on bytes.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate().take(64) {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}
