//! All knobs together: look at the host, say what is to be changed, print it as a script, change it, undo it.
//!
//! Each change is written down before it is made (kind, place, value found, value wanted), so that whatever
//! happens in between can be undone; after it the place is read again. Undoing leaves alone what somebody else
//! has changed since.

use crate::host::Host;
use crate::knob::{Finding, Knob, Step, same_mask};
use crate::knobs;
use crate::plan::Plan;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

/// What was found, knob by knob.
pub struct Report {
    pub plan: Plan,
    pub items: Vec<(&'static Knob, Vec<Finding>)>,
}

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    Changed(String),
    /// Undoing: somebody else has changed it since, or it never was changed.
    LeftAlone(String),
    Failed(String),
}

impl Report {
    /// Looks at the knobs of these names, or at all of them. Changes nothing.
    ///
    /// # Errors
    /// A name that no knob has.
    pub fn look(host: &Host, plan: Plan, only: &[String]) -> Result<Self, String> {
        if let Some(unknown) = only.iter().find(|name| knobs::all().all(|knob| knob.name != **name)) {
            let names: Vec<_> = knobs::all().map(|knob| knob.name).collect();
            return Err(format!("there is no knob {unknown}; there are {}", names.join(", ")));
        }
        let chosen = knobs::all().filter(|knob| only.is_empty() || only.iter().any(|name| name == knob.name));
        let items = chosen.map(|knob| (knob, (knob.check)(host, &plan))).collect();
        Ok(Self { plan, items })
    }

    fn findings(&self) -> impl Iterator<Item = (&'static Knob, &Finding)> {
        self.items.iter().flat_map(|(knob, findings)| findings.iter().map(|finding| (*knob, finding)))
    }

    /// The changes, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.findings().flat_map(|(_, finding)| match finding {
            Finding::Wrong { steps, .. } => steps.as_slice(),
            _ => &[],
        })
    }

    /// A line for each finding.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (knob, finding) in self.findings() {
            let (word, sentence) = match finding {
                Finding::Fine(sentence) => ("ok", sentence),
                Finding::Wrong { sentence, .. } => ("CHANGE", sentence),
                Finding::Advice(sentence) => ("BY HAND", sentence),
                Finding::Absent(sentence) => ("-", sentence),
            };
            let _ = writeln!(text, "{word:<8} {:<20} {sentence}", knob.name);
        }
        text
    }

    /// A shell script that makes the changes, and undoes them: `sh FILE apply`, `sh FILE undo`.
    pub fn script(&self, host_name: &str) -> String {
        let mut apply = String::new();
        for (knob, finding) in self.findings() {
            match finding {
                Finding::Wrong { sentence, steps } => {
                    let _ = writeln!(
                        apply,
                        "    # {}: {}\n    # {}",
                        knob.name,
                        knob.purpose,
                        one_line(sentence)
                    );
                    steps.iter().for_each(|step| apply.push_str(&command(step, true)));
                }
                Finding::Advice(sentence) => {
                    let _ = writeln!(apply, "    # {}, by hand: {}", knob.name, one_line(sentence));
                }
                Finding::Fine(_) | Finding::Absent(_) => {}
            }
        }
        let steps: Vec<&Step> = self.steps().collect();
        let undo: String = steps.iter().rev().map(|step| command(step, false)).collect();
        format!(
            "#!/bin/sh\n\
             # The settings of {host_name} for the relay (profile {}): sh THIS-FILE apply, sh THIS-FILE undo.\n\
             # Nothing of it outlives a boot; sluice-tune.service applies it at each one.\n\
             failed=0\n\
             put() {{\n    printf '%s\\n' \"$2\" > \"$1\" || {{ echo \"$1 does not take $2\" >&2; failed=1; }}\n}}\n\
             remount() {{\n    mount -o \"remount,$2\" \"$1\" || {{ echo \"$1 does not take $2\" >&2; failed=1; }}\n}}\n\
             case \"${{1:-}}\" in\n\
             apply)\n{apply}    :\n    ;;\n\
             undo)\n{undo}    :\n    ;;\n\
             *)\n    echo \"usage: sh $0 apply|undo\" >&2\n    exit 64\n    ;;\n\
             esac\n\
             exit $failed\n",
            self.plan.profile.name()
        )
    }

    /// Makes the changes. `record` takes what undoes them.
    ///
    /// # Errors
    /// The record cannot be written; then the change that it was for has not been made.
    pub fn apply(&self, host: &Host, record: &Path) -> io::Result<Vec<Done>> {
        let mut done = Vec::new();
        let mut file = None;
        for step in self.steps() {
            if file.is_none() {
                record.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                file = Some(File::options().append(true).create(true).open(record)?);
            }
            let file = file.as_mut().expect("opened above");
            file.write_all(line(step).as_bytes())?;
            file.sync_data()?;
            done.push(change(host, step));
        }
        Ok(done)
    }
}

/// Puts back what the record says was there, the last change first, and removes the record when nothing has failed.
///
/// # Errors
/// The record cannot be read or removed.
pub fn undo(host: &Host, record: &Path) -> io::Result<Vec<Done>> {
    let text = match std::fs::read_to_string(record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let steps: Vec<Step> = text.lines().filter_map(step).collect();
    let done: Vec<Done> = steps.iter().rev().map(|step| put_back(host, step)).collect();
    if !done.iter().any(|done| matches!(done, Done::Failed(_))) {
        std::fs::remove_file(record)?;
    }
    Ok(done)
}

fn put_back(host: &Host, step: &Step) -> Done {
    let (place, found, wanted) = parts(step);
    if let Step::Write { path, .. } = step {
        match host.read(path) {
            None => return Done::LeftAlone(format!("{place} is not there any more")),
            Some(now) if !means(path, &now, wanted) => {
                return Done::LeftAlone(format!(
                    "{place} is {now} and not {wanted}: somebody else has changed it"
                ));
            }
            Some(_) => {}
        }
    }
    let back = match step.clone() {
        Step::Write { path, .. } => Step::Write { path, found: wanted.into(), wanted: found.into() },
        Step::Remount { mount, .. } => Step::Remount { mount, found: wanted.into(), wanted: found.into() },
    };
    change(host, &back)
}

/// Makes one change, and looks whether it is there.
fn change(host: &Host, step: &Step) -> Done {
    let (place, found, wanted) = parts(step);
    let changed = match step {
        Step::Write { path, wanted, .. } => {
            host.write(path, wanted).map_err(|error| error.to_string()).and_then(|()| {
                let now = host.read(path).unwrap_or_default();
                match means(path, &now, wanted) {
                    true => Ok(()),
                    false => Err(format!("it is {now} after that")),
                }
            })
        }
        Step::Remount { mount, wanted, .. } => remount(mount, wanted),
    };
    match changed {
        Ok(()) => Done::Changed(format!("{place}: {found} -> {wanted}")),
        Err(error) => Done::Failed(format!("{place} does not take {wanted}: {error}")),
    }
}

fn remount(mount: &str, option: &str) -> Result<(), String> {
    let output = Command::new("mount").args(["-o", &format!("remount,{option}"), mount]).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(one_line(String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("mount: {error}")),
    }
}

/// Whether a file that shows `now` holds `value`: kernels show some values in a form of their own.
fn means(path: &str, now: &str, value: &str) -> bool {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    words(now) == words(value)
        || now.contains(&format!("[{value}]"))
        || path.ends_with("_cpus") && same_mask(now, value)
}

fn parts(step: &Step) -> (&str, &str, &str) {
    match step {
        Step::Write { path, found, wanted } => (path, found, wanted),
        Step::Remount { mount, found, wanted } => (mount, found, wanted),
    }
}

/// A step as a line of the record.
fn line(step: &Step) -> String {
    let kind = match step {
        Step::Write { .. } => "write",
        Step::Remount { .. } => "remount",
    };
    let (place, found, wanted) = parts(step);
    format!("{kind}\t{place}\t{found}\t{wanted}\n")
}

/// A line that is not whole, as a crash may leave it, is none: its change was not made.
fn step(line: &str) -> Option<Step> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [kind, place, found, wanted] = fields[..] else { return None };
    let (place, found, wanted) = (place.to_owned(), found.to_owned(), wanted.to_owned());
    match kind {
        "write" => Some(Step::Write { path: place, found, wanted }),
        "remount" => Some(Step::Remount { mount: place, found, wanted }),
        _ => None,
    }
}

fn command(step: &Step, forward: bool) -> String {
    let (place, found, wanted) = parts(step);
    let word = match step {
        Step::Write { .. } => "put",
        Step::Remount { .. } => "remount",
    };
    format!("    {word} {} {}\n", quoted(place), quoted(if forward { wanted } else { found }))
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::played;
    use crate::plan::Profile;
    use std::fs;
    use tempfile::TempDir;

    const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
    const SLOW_START: &str = "/proc/sys/net/ipv4/tcp_slow_start_after_idle";
    const FILES: [(&str, &str); 4] = [
        (SOMAXCONN, "128"),
        (SLOW_START, "1"),
        ("/proc/sys/vm/swappiness", "1"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
    ];

    fn plan() -> Plan {
        let online = vec![0, 1];
        let spool = "/var/spool/sluice".to_owned();
        Plan {
            profile: Profile::Small,
            ingest: vec![0],
            delivery: vec![1],
            service: online.clone(),
            online,
            spool,
        }
    }

    fn look(host: &Host) -> Report {
        Report::look(host, plan(), &[]).expect("all knobs")
    }

    fn record(directory: &TempDir) -> std::path::PathBuf {
        directory.path().join("lib/sluice/tune")
    }

    #[test]
    fn what_is_applied_is_there_and_what_is_undone_is_as_before() {
        let (directory, host) = played::host(&FILES);
        let done = look(&host).apply(&host, &record(&directory)).expect("applied");
        let changed = ["/proc/sys/net/core/somaxconn: 128 -> 4096", &format!("{SLOW_START}: 1 -> 0")];
        assert_eq!(done, changed.map(|text| Done::Changed(text.into())));
        assert_eq!((host.number(SOMAXCONN), host.number(SLOW_START)), (Some(4096), Some(0)));
        assert_eq!(look(&host).steps().count(), 0, "a second look finds nothing to do");
        assert_eq!(undo(&host, &record(&directory)).expect("undone").len(), 2);
        assert_eq!((host.number(SOMAXCONN), host.number(SLOW_START)), (Some(128), Some(1)));
        assert!(!record(&directory).exists());
        assert_eq!(undo(&host, &record(&directory)).expect("nothing to do"), []);
    }

    #[test]
    fn what_somebody_else_has_changed_since_is_left_alone() {
        let (directory, host) = played::host(&FILES);
        look(&host).apply(&host, &record(&directory)).expect("applied");
        host.write(SOMAXCONN, "9999").expect("written");
        let done = undo(&host, &record(&directory)).expect("undone");
        assert!(
            matches!(&done[..], [Done::Changed(_), Done::LeftAlone(text)] if text.contains("9999")),
            "{done:?}"
        );
        assert_eq!((host.number(SOMAXCONN), host.number(SLOW_START)), (Some(9999), Some(1)));
    }

    #[test]
    fn two_runs_are_undone_to_the_first_state() {
        let (directory, host) = played::host(&FILES);
        look(&host).apply(&host, &record(&directory)).expect("applied");
        host.write(SOMAXCONN, "1").expect("written");
        look(&host).apply(&host, &record(&directory)).expect("applied again");
        undo(&host, &record(&directory)).expect("undone");
        // The second run found 1, which is not what the first had left: that is where undoing ends.
        assert_eq!((host.number(SOMAXCONN), host.number(SLOW_START)), (Some(1), Some(1)));
    }

    #[test]
    fn a_value_that_the_kernel_does_not_take_is_told_and_the_others_are_changed() {
        let (directory, host) = played::host(&FILES);
        let report = look(&host);
        fs::remove_file(host.path(SOMAXCONN)).expect("removed");
        fs::create_dir(host.path(SOMAXCONN)).expect("nobody can write that");
        let done = report.apply(&host, &record(&directory)).expect("applied");
        assert!(
            matches!(&done[..], [Done::Failed(text), Done::Changed(_)] if text.starts_with(SOMAXCONN)),
            "{done:?}"
        );
    }

    #[test]
    fn without_a_record_nothing_is_changed() {
        let (directory, host) = played::host(&FILES);
        let file = directory.path().join("file");
        fs::write(&file, "").expect("a file");
        assert!(look(&host).apply(&host, &file.join("record")).is_err());
        assert_eq!(host.number(SOMAXCONN), Some(128));
    }

    #[test]
    fn a_record_that_was_cut_off_undoes_what_is_whole() {
        let (directory, host) = played::host(&[(SOMAXCONN, "4096"), (SLOW_START, "0")]);
        let text = format!("write\t{SOMAXCONN}\t128\t4096\nwrite\t{SLOW_START}\t1");
        let record = directory.path().join("record");
        fs::write(&record, text).expect("written");
        assert_eq!(undo(&host, &record).expect("undone").len(), 1);
        assert_eq!((host.number(SOMAXCONN), host.number(SLOW_START)), (Some(128), Some(0)));
    }

    /// The script is run by a shell, on files that are not the host's own.
    #[test]
    fn the_script_applies_and_undoes_the_same() {
        let (directory, host) = played::host(&FILES);
        let here = directory.path().to_str().expect("a name");
        let script = look(&host).script("mx.example").replace("'/proc/", &format!("'{here}/proc/"));
        let file = directory.path().join("script");
        fs::write(&file, &script).expect("written");
        let run =
            |word: &str| Command::new("sh").arg(&file).arg(word).output().expect("a shell").status.code();
        assert_eq!(run("apply"), Some(0), "{script}");
        assert_eq!((host.number(SOMAXCONN), host.number(SLOW_START)), (Some(4096), Some(0)));
        assert_eq!(run("undo"), Some(0));
        assert_eq!((host.number(SOMAXCONN), host.number(SLOW_START)), (Some(128), Some(1)));
        assert_eq!(run(""), Some(64));
    }

    #[test]
    fn a_knob_that_does_not_exist_is_refused_with_those_that_do() {
        let (_directory, host) = played::host(&FILES);
        let Err(error) = Report::look(&host, plan(), &["warp".into()]) else {
            panic!("there is no such knob")
        };
        assert!(error.starts_with("there is no knob warp; there are ") && error.contains("somaxconn"));
        let only = Report::look(&host, plan(), &["somaxconn".into()]).expect("a knob");
        assert_eq!((only.items.len(), only.steps().count()), (1, 1));
    }

    #[test]
    fn values_are_compared_as_the_kernel_shows_them() {
        assert!(means("/x/scheduler", "[none] mq-deadline", "none"));
        assert!(!means("/x/scheduler", "none [mq-deadline]", "none"));
        assert!(means("/x/tcp_rmem", "1\t2\t3", "1 2 3"));
        assert!(means("/x/rps_cpus", "00000000,00000003", "3"));
        assert!(!means("/x/somaxconn", "00000003", "3"));
    }
}
