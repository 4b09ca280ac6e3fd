//! CPU time and memory of processes, read from /proc and the cgroup file system, and processes that end with us.
//!
//! A [`Group`] is a set of processes whose CPU time is known to the nanosecond, those included that have already
//! ended: a cgroup (v1 cpuacct or v2) where one can be made, else the tree below its first process in /proc, where
//! ended children count once their parent has reaped them and times have the kernel's 10 ms grain. There the processes
//! that we started are to be reaped by [`Group::reap`], which looks at what they took before it is gone.

use anyhow::{Context as _, Result, ensure};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Grain of the times in /proc/PID/stat: USER_HZ, 100 on every architecture that io_uring runs on.
const TICK: Duration = Duration::from_millis(10);
/// After this a process that was asked to end is killed.
const END_WAIT: Duration = Duration::from_secs(15);

/// User and system time of this process so far, over its living threads.
pub fn own_cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| nanos_on_cpu(&task.path().join("schedstat"))).sum()
}

/// The same of the calling thread.
pub fn thread_cpu() -> Duration {
    nanos_on_cpu(Path::new("/proc/thread-self/schedstat")).unwrap_or_default()
}

fn nanos_on_cpu(schedstat: &Path) -> Option<Duration> {
    let text = fs::read_to_string(schedstat).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

enum Account {
    /// Directory of the cgroup, and whether it is of the second version.
    Cgroup(PathBuf, bool),
    Tree,
}

/// A set of processes with one account of CPU time and memory.
pub struct Group {
    account: Account,
    roots: Vec<u32>,
    /// Without a cgroup: CPU time of those that [`Group::reap`] has reaped.
    reaped: RefCell<BTreeMap<u32, Duration>>,
}

impl Group {
    pub fn new(name: &str) -> Group {
        let account = cgroup_parent()
            .and_then(|(parent, second)| {
                let directory = parent.join(format!("sluice-bench-{}-{name}", std::process::id()));
                fs::create_dir(&directory).ok().map(|()| Account::Cgroup(directory, second))
            })
            .unwrap_or(Account::Tree);
        Group::with(account)
    }

    fn with(account: Account) -> Group {
        Group { account, roots: Vec::new(), reaped: RefCell::default() }
    }

    /// How the CPU time is counted, for the report.
    pub fn method(&self) -> &'static str {
        match self.account {
            Account::Cgroup(_, false) => "cgroup v1 cpuacct",
            Account::Cgroup(_, true) => "cgroup v2 cpu.stat",
            Account::Tree => "/proc/PID/stat of the process tree",
        }
    }

    /// Starts a program in the group; `settle` has the last word on its standard streams and so on.
    pub fn start(
        &mut self,
        program: &Path,
        arguments: &[String],
        settle: impl FnOnce(&mut Command),
    ) -> Result<Child> {
        let mut command = match &self.account {
            // The shell enters the group and becomes the program, so no instruction of it runs outside.
            Account::Cgroup(directory, _) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
                shell.arg(directory.join("cgroup.procs")).arg(program);
                shell
            }
            Account::Tree => Command::new(program),
        };
        command.args(arguments);
        settle(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        self.roots.push(child.id());
        Ok(child)
    }

    /// User and system time of all its processes, ended ones included.
    pub fn cpu(&self) -> Duration {
        match &self.account {
            Account::Cgroup(directory, false) => fs::read_to_string(directory.join("cpuacct.usage"))
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .map_or(Duration::ZERO, Duration::from_nanos),
            Account::Cgroup(directory, true) => fs::read_to_string(directory.join("cpu.stat"))
                .ok()
                .and_then(|text| text.lines().find_map(|l| l.strip_prefix("usage_usec ")?.parse().ok()))
                .map_or(Duration::ZERO, Duration::from_micros),
            Account::Tree => {
                let reaped: Duration = self.reaped.borrow().values().sum();
                reaped + self.members().into_iter().filter_map(cpu_with_children).sum::<Duration>()
            }
        }
    }

    /// Whether a process that was started in the group has ended, and how. Its CPU time stays in the account.
    pub fn reap(&self, child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
        if matches!(self.account, Account::Tree) {
            // Until it is reaped its times can be read; a process whose first thread alone has ended shows the same
            // state, and is not reaped below.
            let has_ended = stat_fields(child.id()).is_none_or(|fields| fields[0] == "Z");
            if !has_ended {
                return Ok(None);
            }
            let cpu = cpu_with_children(child.id());
            let status = child.try_wait()?;
            if let (Some(_), Some(cpu)) = (status, cpu) {
                self.reaped.borrow_mut().entry(child.id()).or_insert(cpu);
            }
            return Ok(status);
        }
        child.try_wait()
    }

    /// Living processes.
    pub fn members(&self) -> Vec<u32> {
        match &self.account {
            Account::Cgroup(directory, _) => fs::read_to_string(directory.join("cgroup.procs"))
                .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
                .unwrap_or_default(),
            Account::Tree => descendants(&self.roots),
        }
    }

    /// Memory in use now.
    pub fn memory(&self) -> Memory {
        self.members()
            .into_iter()
            .filter_map(memory_of)
            .fold(Memory::default(), |sum, one| Memory { rss: sum.rss + one.rss, pss: sum.pss + one.pss })
    }

    /// The resident set size alone, and nothing of what is shared: a look that costs its processes nothing.
    pub fn resident(&self) -> Memory {
        Memory { rss: self.members().into_iter().filter_map(resident_of).sum(), pss: 0 }
    }

    /// Kills what is left of it, by process id, and gives up the account.
    pub fn end(&mut self) {
        let deadline = Instant::now() + END_WAIT;
        // One that has ended and is not yet reaped (Z) cannot be killed any more.
        let runs = |pid: &u32| stat_fields(*pid).is_some_and(|fields| fields[0] != "Z");
        loop {
            let members: Vec<u32> = self.members().into_iter().filter(runs).collect();
            if members.is_empty() || Instant::now() > deadline {
                break;
            }
            for pid in members {
                send_signal(pid, "KILL");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.roots.clear();
        if let Account::Cgroup(directory, _) = &self.account {
            // A group empties a moment after its last process has been reaped.
            while fs::remove_dir(directory).is_err() && directory.exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Octets of memory of a set of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pages that each has mapped; shared ones count as often as they are shared.
    pub rss: u64,
    /// Shared pages divided among those who share them: what the set costs the machine.
    pub pss: u64,
}

impl Memory {
    pub fn max(self, other: Memory) -> Memory {
        Memory { rss: self.rss.max(other.rss), pss: self.pss.max(other.pss) }
    }
}

fn memory_of(pid: u32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    Some(Memory { rss: field("Rss:")?, pss: field("Pss:")? })
}

/// The second field of /proc/PID/statm, in pages of 4 KiB (x86-64, and as arm64 is mostly built).
fn resident_of(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(text.split_whitespace().nth(1)?.parse::<u64>().ok()? * 4096)
}

/// Lets this process, and those that it starts, open so many files; prlimit changes the limits of another process, its
/// parent here.
pub fn raise_open_files(descriptors: usize) -> Result<()> {
    let status = Command::new("prlimit")
        .arg(format!("--pid={}", std::process::id()))
        .arg(format!("--nofile={descriptors}:{descriptors}"))
        .status()
        .context("cannot run prlimit")?;
    ensure!(
        status.success(),
        "the limit of open files cannot be set to {descriptors}; run it as root, or with fewer idle sessions"
    );
    Ok(())
}

/// Asks a child to end (SIGTERM), waits, and kills it if it does not.
pub fn end_child(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    send_signal(child.id(), "TERM");
    if wait_child(child, END_WAIT).is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Waits for a child to end by itself; `None` when it did not in time.
pub fn wait_child(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            _ => return None,
        }
    }
}

fn send_signal(pid: u32, name: &str) {
    let _ = Command::new("/bin/sh")
        .args(["-c", "kill -s \"$0\" \"$1\" 2>/dev/null", name, &pid.to_string()])
        .status();
}

/// Where a group can be made: the cpuacct controller of version 1, else version 2.
fn cgroup_parent() -> Option<(PathBuf, bool)> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let find = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let fits = fields.len() > 3 && fields[2] == kind;
            (fits && (option.is_empty() || fields[3].split(',').any(|o| o == option)))
                .then(|| PathBuf::from(fields[1]))
        })
    };
    find("cgroup", "cpuacct")
        .map(|path| (path, false))
        .or_else(|| find("cgroup2", "").map(|path| (path, true)))
}

/// Fields of /proc/PID/stat from the state on (field 3), so that a name with blanks does no harm.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

fn cpu_with_children(pid: u32) -> Option<Duration> {
    // utime, stime, cutime, cstime: fields 14 to 17 of the whole line.
    let ticks =
        stat_fields(pid)?.get(11..15)?.iter().filter_map(|field| field.parse::<u32>().ok()).sum::<u32>();
    Some(TICK * ticks)
}

fn descendants(roots: &[u32]) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat_fields(pid)?.get(1)?.parse().ok()?)))
        .collect();
    // A number that has passed on to somebody else's process is not ours any more.
    let ours = |root: &u32| parents.contains(&(*root, std::process::id()));
    let mut found: Vec<u32> = roots.iter().copied().filter(ours).collect();
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Burns CPU in a child of a child, so that ended grandchildren must be counted.
    fn burn(mut group: Group) {
        let work = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; sleep 5";
        let arguments = ["-c".to_owned(), work.to_owned()];
        let mut child = group.start(Path::new("/bin/sh"), &arguments, |_| {}).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while group.cpu() < Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "CPU time of ended children is missing: {:?}", group.cpu());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(group.members().contains(&child.id()));
        assert!(group.memory().rss >= group.memory().pss && group.memory().pss > 0);
        group.end();
        let _ = child.wait();
        assert!(group.members().is_empty());
    }

    #[test]
    fn a_group_counts_children_that_have_ended() {
        burn(Group::new("test"));
    }

    #[test]
    fn a_tree_counts_children_that_have_ended() {
        burn(Group::with(Account::Tree));
    }

    /// The generator of a measurement has ended before its CPU time is asked for.
    fn burn_and_end(mut group: Group) {
        let work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let mut child =
            group.start(Path::new("/bin/sh"), &["-c".to_owned(), work.to_owned()], |_| {}).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while group.reap(&mut child).unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(group.reap(&mut child).unwrap().is_some(), "it has ended for good");
        let cpu = group.cpu();
        assert!(cpu >= Duration::from_millis(50), "{cpu:?}");
        assert_eq!(group.cpu(), cpu);
    }

    #[test]
    fn a_group_counts_what_was_reaped() {
        burn_and_end(Group::new("reaped"));
    }

    #[test]
    fn a_tree_counts_what_was_reaped() {
        burn_and_end(Group::with(Account::Tree));
    }

    #[test]
    fn the_cheap_look_at_memory_is_the_resident_set_size() {
        let mut group = Group::new("resident");
        let mut child = group.start(Path::new("/bin/sleep"), &["5".to_owned()], |_| {}).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_there = |group: &Group| group.memory().rss > 0 && group.resident().rss > 0;
        while !is_there(&group) {
            assert!(Instant::now() < deadline, "{:?} {:?}", group.memory(), group.resident());
            std::thread::sleep(Duration::from_millis(5));
        }
        let (dear, cheap) = (group.memory().rss, group.resident().rss);
        assert!(cheap <= 2 * dear && dear <= 2 * cheap, "{dear} {cheap}");
        group.end();
        let _ = child.wait();
    }

    #[test]
    fn own_cpu_grows_with_work() {
        let before = own_cpu();
        let mut sum = 0u64;
        for n in 0..20_000_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(n));
        }
        assert!(own_cpu() > before);
    }
}
