//! Changes are made and undone on hosts that are played, by the program and by its script.

use super::change::means;
use super::*;
use crate::host::played;
use crate::plan::Profile;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
const SLOW_START: &str = "/proc/sys/net/ipv4/tcp_slow_start_after_idle";
const FILES: [(&str, &str); 3] = [(SOMAXCONN, "128"), (SLOW_START, "1"), ("/proc/sys/vm/swappiness", "1")];

fn plan() -> Plan {
    let online = vec![0, 1];
    Plan {
        profile: Profile::Small,
        ingest: vec![0],
        delivery: vec![1],
        service: online.clone(),
        online,
        spool: "/var/spool/sluice".into(),
        ..Plan::default()
    }
}

fn look(host: &Host) -> Report {
    Report::look(host, plan(), &[]).expect("all knobs")
}

fn record(directory: &TempDir) -> PathBuf {
    directory.path().join("run/sluice-tune/record")
}

fn values(host: &Host) -> (Option<u64>, Option<u64>) {
    (host.number(SOMAXCONN), host.number(SLOW_START))
}

#[test]
fn what_is_applied_is_there_and_what_is_undone_is_as_before() {
    let (directory, host) = played::host(&FILES);
    let done = look(&host).apply(&host, &record(&directory));
    let changed = ["/proc/sys/net/core/somaxconn: 128 -> 4096", &format!("{SLOW_START}: 1 -> 0")];
    assert_eq!(done, changed.map(|text| Done::Changed(text.into())));
    assert_eq!(values(&host), (Some(4096), Some(0)));
    assert_eq!(look(&host).steps().count(), 0, "a second look finds nothing to do");
    assert_eq!(undo(&host, &record(&directory), &[]).expect("undone").len(), 2);
    assert_eq!(values(&host), (Some(128), Some(1)));
    assert!(!record(&directory).exists());
    assert_eq!(undo(&host, &record(&directory), &[]).expect("nothing to do"), []);
}

#[test]
fn one_knob_is_undone_and_the_others_stay() {
    let (directory, host) = played::host(&FILES);
    look(&host).apply(&host, &record(&directory));
    let undo = |only: &[&str]| {
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        super::undo(&host, &record(&directory), &only).expect("undone").len()
    };
    assert_eq!((undo(&["swappiness"]), values(&host)), (0, (Some(4096), Some(0))));
    assert_eq!((undo(&["slow-start"]), values(&host)), (1, (Some(4096), Some(1))));
    assert_eq!((undo(&[]), values(&host)), (1, (Some(128), Some(1))));
    assert!(known(&["slow-start".into()]).is_ok() && known(&["slow".into()]).is_err());
}

#[test]
fn what_somebody_else_has_changed_since_is_left_alone() {
    let (directory, host) = played::host(&FILES);
    look(&host).apply(&host, &record(&directory));
    host.write(SOMAXCONN, "9999").expect("written");
    let done = undo(&host, &record(&directory), &[]).expect("undone");
    assert!(
        matches!(&done[..], [Done::Changed(_), Done::LeftAlone(text)] if text.contains("9999")),
        "{done:?}"
    );
    assert_eq!(values(&host), (Some(9999), Some(1)));
    assert!(!record(&directory).exists(), "what is somebody else's is not ours to undo");
}

#[test]
fn two_runs_are_undone_to_the_first_state() {
    // What somebody sets in between, and where undoing ends then.
    for (between, end, told) in [(None, 128, 2), (Some("1"), 1, 2)] {
        let (directory, host) = played::host(&FILES);
        look(&host).apply(&host, &record(&directory));
        if let Some(value) = between {
            host.write(SOMAXCONN, value).expect("written");
        }
        let larger = Report::look(&host, Plan { profile: Profile::Large, ..plan() }, &[]).expect("all knobs");
        larger.apply(&host, &record(&directory));
        assert_eq!(host.number(SOMAXCONN), Some(32_768));
        let done = undo(&host, &record(&directory), &[]).expect("undone");
        assert_eq!(done.len(), told, "{done:?}");
        assert!(done.iter().all(|done| matches!(done, Done::Changed(_))), "{done:?}");
        assert_eq!(values(&host), (Some(end), Some(1)), "{between:?}");
    }
}

#[test]
fn a_value_that_the_kernel_does_not_take_is_told_and_not_undone_later() {
    let (directory, host) = played::host(&FILES);
    let report = look(&host);
    fs::remove_file(host.path(SOMAXCONN)).expect("removed");
    fs::create_dir(host.path(SOMAXCONN)).expect("nobody can write that");
    let done = report.apply(&host, &record(&directory));
    assert!(
        matches!(&done[..], [Done::Failed(text), Done::Changed(_)] if text.starts_with(SOMAXCONN)),
        "{done:?}"
    );
    let text = fs::read_to_string(record(&directory)).expect("a record");
    assert!(text.contains(SLOW_START) && !text.contains(SOMAXCONN), "{text}");
}

/// As the kernel does with a mask of which it takes a part only: a device that keeps what it likes.
#[test]
fn a_value_that_is_taken_in_part_is_taken_back() {
    let (directory, host) = played::host(&[(SLOW_START, "1")]);
    let report = look(&host);
    // Whatever is written to the null device, nothing is there.
    fs::remove_file(host.path(SLOW_START)).expect("removed");
    std::os::unix::fs::symlink("/dev/null", host.path(SLOW_START)).expect("a link");
    let done = report.apply(&host, &record(&directory));
    let [Done::Failed(text)] = &done[..] else { panic!("{done:?}") };
    assert!(text.contains("it is  after that, and 1 cannot be put back"), "{text}");
    let text = fs::read_to_string(record(&directory)).expect("a record");
    assert!(text.contains(SLOW_START), "it is not as it was, so it can be undone still");
}

#[test]
fn without_a_record_nothing_is_changed_and_that_is_told() {
    let (directory, host) = played::host(&FILES);
    let file = directory.path().join("file");
    fs::write(&file, "").expect("a file");
    let done = look(&host).apply(&host, &file.join("record"));
    assert!(
        matches!(&done[..], [Done::Failed(text)] if text.contains("nothing more is changed")),
        "{done:?}"
    );
    assert_eq!(host.number(SOMAXCONN), Some(128));
}

#[test]
fn lines_of_a_record_that_say_nothing_are_told_and_stay() {
    let (directory, host) = played::host(&[(SOMAXCONN, "4096"), (SLOW_START, "0")]);
    let text = format!("write\tsomaxconn\t{SOMAXCONN}\t128\t4096\nwrite\tslow-start\t{SLOW_START}\t1");
    let record = directory.path().join("record");
    fs::write(&record, text).expect("written");
    for told in [2, 1] {
        let done = undo(&host, &record, &[]).expect("undone");
        assert_eq!(done.len(), told, "{done:?}");
        assert!(matches!(done.last(), Some(Done::Failed(text)) if text.contains("slow-start")), "{done:?}");
    }
    assert_eq!(values(&host), (Some(128), Some(0)));
    assert_eq!(fs::read_to_string(&record).expect("there").lines().count(), 1);
}

#[test]
fn a_setting_that_is_read_only_is_for_the_containers_host() {
    let mounts = "1 0 0:1 / / rw,relatime - overlay o rw\n2 1 0:2 / /proc/sys ro,relatime - proc proc rw";
    let (_directory, host) = played::host(&[FILES[0], FILES[1], ("/proc/self/mountinfo", mounts)]);
    let report = look(&host);
    assert_eq!(report.steps().count(), 0);
    let table = report.table();
    let told = table
        .lines()
        .filter(|line| line.starts_with("BY HAND") && line.contains("on the host of this container"));
    assert_eq!(told.count(), 2, "{table}");
}

#[test]
fn a_knob_that_does_not_exist_is_refused_with_those_that_do() {
    let (_directory, host) = played::host(&FILES);
    let Err(error) = Report::look(&host, plan(), &["warp".into()]) else { panic!("there is no such knob") };
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

/// A script for a host that is played, run by a shell that takes its user for root.
struct Script {
    file: PathBuf,
}

impl Script {
    fn new(report: &Report, directory: &Path, host_name: &str) -> Self {
        let here = directory.to_str().expect("a name");
        let text = report.script(host_name).replace("'/proc/", &format!("'{here}/proc/"));
        let text = text.replace("'/sys/", &format!("'{here}/sys/"));
        let text = text.replace(RECORD, &format!("{here}{RECORD}")).replace("$(id -u)", "0");
        let file = directory.join("script");
        fs::write(&file, text).expect("written");
        Self { file }
    }

    fn run(&self, word: &str) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } =
            Command::new("sh").arg(&self.file).arg(word).output().expect("a shell");
        (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }
}

fn name() -> String {
    crate::hostname().expect("a name")
}

#[test]
fn the_script_applies_and_undoes_the_same() {
    let (directory, host) = played::host(&FILES);
    let script = Script::new(&look(&host), directory.path(), &name());
    let (code, told) = script.run("apply");
    assert_eq!((code, values(&host)), (Some(0), (Some(4096), Some(0))), "{told}");
    assert_eq!(told.matches("changed ").count(), 2, "{told}");
    let (code, told) = script.run("undo");
    assert_eq!((code, values(&host)), (Some(0), (Some(128), Some(1))), "{told}");
    assert!(!record(&directory).exists());
    assert_eq!(script.run("").0, Some(64));
}

#[test]
fn what_the_script_applies_the_program_undoes() {
    let (directory, host) = played::host(&FILES);
    let script = Script::new(&look(&host), directory.path(), &name());
    assert_eq!(script.run("apply").0, Some(0));
    let text = fs::read_to_string(record(&directory)).expect("a record");
    // It knows the places by where they are played.
    let here = directory.path().to_str().expect("a name");
    fs::write(record(&directory), text.replace(here, "")).expect("written");
    let done = undo(&host, &record(&directory), &[]).expect("undone");
    assert!(done.iter().all(|done| matches!(done, Done::Changed(_))), "{done:?}");
    assert_eq!((done.len(), values(&host)), (2, (Some(128), Some(1))));
}

#[test]
fn the_script_looks_before_it_changes_and_undoes_only_what_it_has_changed() {
    let (directory, host) = played::host(&FILES);
    let script = Script::new(&look(&host), directory.path(), &name());
    host.write(SOMAXCONN, "777").expect("written");
    host.write(SLOW_START, "0").expect("written");
    let (code, told) = script.run("apply");
    assert_eq!((code, values(&host)), (Some(1), (Some(777), Some(0))), "{told}");
    assert!(told.contains("777 and not 128") && told.contains("is 0 already"), "{told}");
    let (code, told) = script.run("undo");
    assert_eq!((code, values(&host), told.as_str()), (Some(0), (Some(777), Some(0)), ""));

    host.write(SOMAXCONN, "128").expect("written");
    assert_eq!((script.run("apply").0, host.number(SOMAXCONN)), (Some(0), Some(4096)));
    host.write(SOMAXCONN, "9999").expect("written");
    let (code, told) = script.run("undo");
    assert_eq!((code, values(&host)), (Some(0), (Some(9999), Some(0))));
    assert!(told.contains("somebody else"), "{told}");
}

#[test]
fn masks_and_choices_are_compared_by_the_script_as_the_kernel_shows_them() {
    let (directory, host) = played::host(&FILES);
    let script = look(&host).script(&name());
    let functions = &script[..script.find("case \"${1:-}\"").expect("the end of the functions")];
    for (place, one, other, same) in [
        ("/x/scheduler", "[none] mq-deadline", "none", true),
        ("/x/scheduler", "none [mq-deadline]", "none", false),
        ("/x/tcp_rmem", "1\t2\t3", "1 2 3", true),
        ("/x/rps_cpus", "00000000,00000003", "3", true),
        ("/x/rps_cpus", "0000", "0", true),
        ("/x/somaxconn", "00000003", "3", false),
        ("/x/reserved", "", "", true),
    ] {
        let file = directory.path().join("functions");
        fs::write(&file, format!("{functions}\nsame \"$1\" \"$2\" \"$3\"\n")).expect("written");
        let status = Command::new("sh").arg(&file).args([place, one, other]).status().expect("a shell");
        assert_eq!(status.success(), same, "{place} {one} {other}");
    }
}

#[test]
fn the_script_runs_on_the_host_that_it_was_made_for_and_a_name_is_no_command() {
    let (directory, host) = played::host(&FILES);
    let evil = format!("mx\ntouch {}/evil #'; exit 0; '", directory.path().display());
    let script = Script::new(&look(&host), directory.path(), &evil);
    let (code, told) = script.run("apply");
    assert_eq!((code, values(&host)), (Some(65), (Some(128), Some(1))), "{told}");
    assert!(!directory.path().join("evil").exists());
}

#[test]
fn the_script_is_for_root() {
    let (directory, host) = played::host(&FILES);
    let script = Script::new(&look(&host), directory.path(), &name());
    let text =
        fs::read_to_string(&script.file).expect("a script").replace("[ \"0\" -ne 0 ]", "[ 1000 -ne 0 ]");
    fs::write(&script.file, text).expect("written");
    assert_eq!((script.run("apply").0, values(&host)), (Some(77), (Some(128), Some(1))));
}
