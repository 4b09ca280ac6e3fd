//! Making changes and undoing them. Each is written down before it is made and looked at after.

use super::record::{Entry, Record};
use super::{Done, Report};
use crate::host::Host;
use crate::knob::{Step, same_mask};
use crate::mounts;
use std::io;
use std::path::Path;
use std::process::Command;

impl Report {
    /// Makes the changes. `record` takes what undoes them; where that cannot be written, nothing more is changed.
    pub fn apply(&self, host: &Host, record: &Path) -> Vec<Done> {
        let mut done = Vec::new();
        let unwritten = |error: io::Error| {
            Done::Failed(format!("{}: {error}; nothing more is changed", record.display()))
        };
        let mut written = match Record::read(record) {
            Ok(written) => written,
            Err(error) => return vec![unwritten(error)],
        };
        for (knob, step) in self.steps() {
            let earlier = match written.note(knob.name, step) {
                Ok(earlier) => earlier,
                Err(error) => {
                    done.push(unwritten(error));
                    break;
                }
            };
            let (what, is_changed) = change(host, step);
            done.push(what);
            if !is_changed && let Err(error) = written.take_back(step, earlier) {
                done.push(unwritten(error));
                break;
            }
        }
        done
    }
}

/// Puts back what the record says was there, the last change first: of the knobs of these names, or of all.
///
/// # Errors
/// The record cannot be read.
pub fn undo(host: &Host, record: &Path, only: &[String]) -> io::Result<Vec<Done>> {
    let mut written = Record::read(record)?;
    let chosen = |entry: &&Entry| only.is_empty() || only.contains(&entry.knob);
    let entries: Vec<Entry> = written.entries.iter().rev().filter(chosen).cloned().collect();
    let mut done = Vec::new();
    for entry in &entries {
        let what = put_back(host, &entry.step);
        let is_over = !matches!(what, Done::Failed(_));
        done.push(what);
        if is_over && let Err(error) = written.forget(entry) {
            done.push(Done::Failed(format!("{}: {error}", record.display())));
            break;
        }
    }
    done.extend(written.strange.iter().map(|line| {
        let name = record.display();
        Done::Failed(format!("{name} has a line that says nothing: \"{line}\"; take it out by hand"))
    }));
    Ok(done)
}

fn put_back(host: &Host, step: &Step) -> Done {
    let (place, _, wanted) = step.parts();
    let left = match step {
        Step::Write { path, .. } => match host.read(path) {
            None => Some(format!("{place} is not there any more")),
            Some(now) if !means(path, &now, wanted) => {
                Some(format!("{place} is {now} and not {wanted}: somebody else has changed it"))
            }
            Some(_) => None,
        },
        Step::Remount { mount, .. } => match mounts::at(host, mount) {
            None => Some(format!("{place} is not mounted any more")),
            Some(now) if !now.holds(wanted) => {
                Some(format!("{place} is not mounted with {wanted}: somebody else has changed it"))
            }
            Some(_) => None,
        },
    };
    left.map_or_else(|| change(host, &step.back()).0, Done::LeftAlone)
}

/// Makes one change, and looks whether it is there; `false`: it is not, and what was there before is.
fn change(host: &Host, step: &Step) -> (Done, bool) {
    let (place, found, wanted) = step.parts();
    let changed = match step {
        Step::Write { path, .. } => write(host, path, wanted),
        Step::Remount { mount, .. } => remount(host, mount, found, wanted),
    };
    let Err(refused) = changed else { return (Done::Changed(format!("{place}: {found} -> {wanted}")), true) };
    let Step::Write { path, .. } = step else { return (Done::Failed(refused.sentence), false) };
    let is_back = || host.read(path).is_none_or(|now| means(path, &now, found));
    // A value that was taken in part is not left there.
    let is_as_before = is_back() || host.write(path, found).is_ok() && is_back();
    let sentence = refused.sentence;
    match (refused.is_managed && is_as_before, is_as_before) {
        (true, _) => (Done::LeftAlone(format!("{place}: the kernel spreads this interrupt itself")), false),
        (false, true) => (Done::Failed(sentence), false),
        (false, false) => (Done::Failed(format!("{sentence}, and {found} cannot be put back")), true),
    }
}

struct Refused {
    sentence: String,
    /// An interrupt that the kernel keeps the affinity of.
    is_managed: bool,
}

fn write(host: &Host, path: &str, wanted: &str) -> Result<(), Refused> {
    let refused =
        |is_managed, why| Refused { sentence: format!("{path} does not take {wanted}: {why}"), is_managed };
    host.write(path, wanted).map_err(|error| {
        let is_managed = error.raw_os_error() == Some(libc::EIO) && path.starts_with("/proc/irq/");
        refused(is_managed, error.to_string())
    })?;
    let now = host.read(path).unwrap_or_default();
    match means(path, &now, wanted) {
        true => Ok(()),
        false => Err(refused(false, format!("it is {now} after that"))),
    }
}

fn remount(host: &Host, mount: &str, found: &str, wanted: &str) -> Result<(), Refused> {
    let refused = |why: String| {
        let sentence = format!("{mount} does not take {wanted}: {why}");
        Refused { sentence, is_managed: false }
    };
    let holds = |option: &str| mounts::at(host, mount).is_some_and(|mount| mount.holds(option));
    if !holds(found) {
        return Err(refused(format!("it is not mounted with {found} any more")));
    }
    let output = Command::new("mount").args(["--options-source", "mtab", "-o", &how(wanted), mount]).output();
    match output {
        Ok(output) if !output.status.success() => {
            Err(refused(super::one_line(String::from_utf8_lossy(&output.stderr).trim())))
        }
        Ok(_) if holds(wanted) => Ok(()),
        Ok(_) => Err(refused("it is as before".into())),
        Err(error) => Err(refused(format!("mount: {error}"))),
    }
}

/// Options of the mount alone are set there (`bind`), so that the file system's stay as they are; with mtab as the
/// source, what fstab says besides stays out.
fn how(wanted: &str) -> String {
    match wanted {
        "noatime" => "remount,bind,noatime".into(),
        "relatime" | "strictatime" => format!("remount,bind,atime,{wanted}"),
        other => format!("remount,{other}"),
    }
}

/// Whether a file that shows `now` holds `value`: kernels show some values in a form of their own.
pub(super) fn means(path: &str, now: &str, value: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    words(now) == words(value)
        || now.contains(&format!("[{value}]"))
        || path.ends_with("_cpus") && same_mask(now, value)
}
