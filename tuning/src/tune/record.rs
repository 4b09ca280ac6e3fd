//! What was changed, as a file that undoes it: one line for each place, with the knob's name, what was found there
//! and what was wanted. It lies where a boot clears it, for a boot forgets the changes, too.
//!
//! The file is always whole: each change of it is a new file that takes the old one's place. A line that is none of
//! ours stays as it is and is told of.

use crate::knob::Step;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Where the record is unless somebody says otherwise.
pub const RECORD: &str = "/run/sluice-tune/record";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub knob: String,
    pub step: Step,
}

pub(super) struct Record {
    path: PathBuf,
    /// In the order of the changes.
    pub entries: Vec<Entry>,
    /// Lines that nobody can undo.
    pub strange: Vec<String>,
}

impl Record {
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut record = Self { path: path.to_owned(), entries: Vec::new(), strange: Vec::new() };
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(record),
            other => other?,
        };
        for line in text.lines() {
            match entry(line) {
                Some(entry) => drop(record.add(entry)),
                None => record.strange.push(line.to_owned()),
            }
        }
        Ok(record)
    }

    /// Before a change. Returns what stood there for the same place, for [`Self::take_back`].
    ///
    /// # Errors
    /// It cannot be written; then the change must not be made.
    pub fn note(&mut self, knob: &str, step: &Step) -> io::Result<Option<Entry>> {
        let earlier = self.add(Entry { knob: knob.to_owned(), step: step.clone() });
        self.save()?;
        Ok(earlier)
    }

    /// After a change that was not made.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn take_back(&mut self, step: &Step, earlier: Option<Entry>) -> io::Result<()> {
        self.entries.retain(|entry| !same_place(&entry.step, step));
        self.entries.extend(earlier);
        self.save()
    }

    /// # Errors
    /// It cannot be written.
    pub fn forget(&mut self, entry: &Entry) -> io::Result<()> {
        self.entries.retain(|other| other != entry);
        self.save()
    }

    /// One entry for each place. What was found first counts, unless somebody else has changed it in between: then
    /// his value is where undoing ends.
    fn add(&mut self, mut entry: Entry) -> Option<Entry> {
        let at = self.entries.iter().position(|other| same_place(&other.step, &entry.step));
        let earlier = at.map(|at| self.entries.remove(at));
        if let Some(earlier) = &earlier
            && earlier.step.parts().2 == entry.step.parts().1
        {
            let (Step::Write { found, .. } | Step::Remount { found, .. }) = &mut entry.step;
            earlier.step.parts().1.clone_into(found);
        }
        self.entries.push(entry);
        earlier
    }

    fn save(&self) -> io::Result<()> {
        if self.entries.is_empty() && self.strange.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
        }
        self.path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let mut file = File::create(&name)?;
        let strange = self.strange.iter().map(|line| format!("{line}\n"));
        let text: String = strange.chain(self.entries.iter().map(|entry| line(entry) + "\n")).collect();
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(name, &self.path)
    }
}

/// Two changes of one setting. A mount has two: what reading it writes, and what deleting on it does.
fn same_place(one: &Step, other: &Step) -> bool {
    let deletes = |option: &str| option.ends_with("discard");
    match (one, other) {
        (Step::Write { path, .. }, Step::Write { path: other, .. }) => path == other,
        (Step::Remount { mount, wanted, .. }, Step::Remount { mount: other, wanted: option, .. }) => {
            mount == other && deletes(wanted) == deletes(option)
        }
        _ => false,
    }
}

fn line(Entry { knob, step }: &Entry) -> String {
    let kind = match step {
        Step::Write { .. } => "write",
        Step::Remount { .. } => "remount",
    };
    let (place, found, wanted) = step.parts();
    format!("{kind}\t{knob}\t{place}\t{found}\t{wanted}")
}

fn entry(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [kind, knob, place, found, wanted] = fields[..] else { return None };
    let (place, found, wanted) = (place.to_owned(), found.to_owned(), wanted.to_owned());
    let step = match kind {
        "write" => Step::Write { path: place, found, wanted },
        "remount" => Step::Remount { mount: place, found, wanted },
        _ => return None,
    };
    Some(Entry { knob: knob.to_owned(), step })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn entries(lines: &[&str]) -> (Vec<String>, Vec<String>) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("record");
        std::fs::write(&path, lines.join("\n")).expect("written");
        let record = Record::read(&path).expect("read");
        record.save().expect("written");
        let again = Record::read(&path).expect("read again");
        assert_eq!((&record.entries, &record.strange), (&again.entries, &again.strange));
        (record.entries.iter().map(line).collect(), record.strange)
    }

    #[test]
    fn a_place_has_one_entry_that_leads_to_what_was_there_first() {
        let table: [(&[&str], &[&str]); 5] = [
            (&["write\tk\t/a\t1\t2", "write\tk\t/a\t2\t3"], &["write\tk\t/a\t1\t3"]),
            (&["write\tk\t/a\t1\t2", "write\tk\t/a\t9\t2"], &["write\tk\t/a\t9\t2"]),
            (&["write\tk\t/a\t1\t2", "write\tl\t/b\t2\t3"], &["write\tk\t/a\t1\t2", "write\tl\t/b\t2\t3"]),
            (
                &["remount\tk\t/v\trelatime\tnoatime", "remount\tk\t/v\tdiscard\tnodiscard"],
                &["remount\tk\t/v\trelatime\tnoatime", "remount\tk\t/v\tdiscard\tnodiscard"],
            ),
            (&["write\tk\t/a\t\t2", "write\tk\t/a\t2\t3"], &["write\tk\t/a\t\t3"]),
        ];
        for (lines, expected) in table {
            assert_eq!(
                entries(lines),
                (expected.iter().map(ToString::to_string).collect(), vec![]),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn lines_that_nobody_can_undo_stay() {
        for strange in ["write\tk\t/a\t1", "erase\tk\t/a\t1\t2", "write\tk\t/a\t1\t2\t3", "x"] {
            let (entries, found) = entries(&[strange, "write\tk\t/b\t1\t2"]);
            assert_eq!((entries.len(), found), (1, vec![strange.to_owned()]));
        }
    }
}
