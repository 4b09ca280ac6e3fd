//! The host that the relay runs on: what it must have before a start, and what makes the relay faster.
//!
//! **Start checks** ([`start_checks`]), each a file of its own, read one fact of the host and return findings,
//! each one sentence that says what is wrong and what to do. They change nothing, save that they raise this
//! process's soft resource limits as far as the hard ones allow. They run on the main thread, before any shard
//! exists.
//!
//! **Knobs** ([`tune`], [`knob`]) are settings that a relay can run without: check, fix and undo.

mod container;
pub mod cpus;
pub mod host;
pub mod io_uring;
pub mod kernel;
pub mod knob;
mod knobs;
pub mod memlock;
mod mounts;
pub mod nofile;
pub mod notify;
pub mod plan;
mod rlimit;
mod sys;
mod topology;
pub mod tune;

/// CPU numbers are below this; it bounds a list such as `"0-4000000000"` (the kernel's largest NR_CPUS is 8192; nobody relays mail on such a host).
pub const CPUS_MAX: usize = 4096;

/// sysexits: the system lacks something.
pub const EX_OSERR: i32 = 71;
/// sysexits: the configuration is wrong.
pub const EX_CONFIG: i32 = 78;

/// What a start will use.
#[derive(Clone, Debug)]
pub struct Needs<'a> {
    /// Every CPU that a shard is to be pinned to; repeats are fine.
    pub cpus: &'a [usize],
    /// glommio executors: ingest and delivery shards together.
    pub executors: usize,
    /// Inbound sessions, over all ingest shards.
    pub sessions_max: usize,
    /// Files besides sessions: segments, outbound connections, resolver and admin sockets.
    pub files_besides: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The relay cannot start.
    Fatal,
    /// It can, but a bound will be met earlier than configured.
    Warn,
}

/// One thing that is wrong with the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check's name: `kernel`, `io_uring`, `memlock`, `nofile`, `cpus`.
    pub name: &'static str,
    pub severity: Severity,
    /// What is wrong and what to do.
    pub sentence: String,
    /// The sysexits code for a program that ends because of it.
    pub exit: i32,
}

/// All checks of a start, in the order in which they should be mended. Empty: the host is ready.
pub fn start_checks(needs: &Needs<'_>) -> Vec<Finding> {
    let checks =
        [kernel::check(), io_uring::check(), memlock::check(needs), nofile::check(needs), cpus::check(needs)];
    checks.into_iter().flatten().collect()
}

/// The CPUs that this process may run on, ascending; never empty.
pub fn cpus_allowed() -> Vec<usize> {
    match sys::affinity() {
        Ok(cpus) if !cpus.is_empty() => cpus,
        _ => vec![0],
    }
}

/// Keeps the kernel from backing this process's memory with huge pages. An allocator that asks for them has far more
/// memory resident than is used, and for a relay's small buffers they gain nothing.
///
/// # Errors
/// The kernel knows no such switch.
pub fn refuse_huge_pages() -> std::io::Result<()> {
    sys::refuse_huge_pages()
}

/// Lets the calling thread, and those that it starts, run on these CPUs only.
///
/// # Errors
/// None of them exists, or the process may not run there.
pub fn pin(cpus: &[usize]) -> std::io::Result<()> {
    sys::set_affinity(cpus)
}

/// The host's own name, as the kernel has it.
pub fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn fatal(name: &'static str, exit: i32, sentence: String) -> Option<Finding> {
    Some(Finding { name, severity: Severity::Fatal, sentence, exit })
}

fn warn(name: &'static str, sentence: String) -> Option<Finding> {
    Some(Finding { name, severity: Severity::Warn, sentence, exit: EX_OSERR })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modest_start_on_the_first_cpu_is_fine_here_and_an_absent_cpu_is_not() {
        let first = cpus_allowed()[0];
        let needs = Needs { cpus: &[first], executors: 1, sessions_max: 10, files_besides: 10 };
        let cpu_findings =
            |needs: &Needs<'_>| start_checks(needs).iter().filter(|f| f.name == "cpus").count();
        assert_eq!(cpu_findings(&needs), 0);
        assert_eq!(cpu_findings(&Needs { cpus: &[CPUS_MAX - 1], ..needs }), 1);
    }
}
