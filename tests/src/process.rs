//! Child processes: bounded runs, signals by pid, and what /proc says of them.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Octets of a command's output that the message of a failure shows.
const SHOWN: usize = 4096;

/// Runs a command to its end; its standard input is empty.
///
/// # Panics
/// When it cannot be started or is not done within `limit` (it is killed then).
#[track_caller]
pub fn run(command: &mut Command, limit: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    let stdout = drain(child.stdout.take().expect("piped"));
    let stderr = drain(child.stderr.take().expect("piped"));
    let status = exit_within(&mut child, limit);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (stdout, stderr) = (stdout.join().expect("a reader"), stderr.join().expect("a reader"));
    match status {
        Some(status) => Output { status, stdout, stderr },
        None => panic!(
            "{command:?} was not done within {limit:?}\n{}{}",
            String::from_utf8_lossy(&stdout[stdout.len().saturating_sub(SHOWN)..]),
            String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(SHOWN)..])
        ),
    }
}

/// As [`run`], and the command must succeed; gives its standard output.
#[track_caller]
pub fn run_ok(command: &mut Command, limit: Duration) -> String {
    let output = run(command, limit);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// `None` when the child still runs after `limit`.
pub fn exit_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return Some(status);
        }
        if start.elapsed() >= limit {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal (`"TERM"`, `"HUP"`) to one process.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {pid}");
}

/// CPU time of a process so far, its own and the kernel's for it, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    /// Linux gives these figures in hundredths, whatever the kernel's own tick.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a running process");
    let fields = stat.rsplit_once(')').expect("the name in parentheses").1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
    ticks as f64 / TICKS
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:") * 1024
}

/// The highest resident memory that a process had so far, in bytes.
pub fn resident_peak_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:") * 1024
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a field of /proc/PID/status");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// A process of the test's own, ended with the value: by SIGTERM, and if that is not enough by SIGKILL.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        if exit_within(&mut self.0, Duration::from_secs(5)).is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Starts a process that stays in the foreground. What it prints is thrown away.
///
/// # Panics
/// When it cannot be started.
pub fn launch(command: &mut Command) -> Running {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(quiet.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_gives_output_and_status() {
        let output =
            run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 78"]), crate::wait::SOON);
        assert_eq!(output.status.code(), Some(78));
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    }

    #[test]
    #[should_panic(expected = "was not done within")]
    fn a_run_is_bounded() {
        run(Command::new("sleep").arg("60"), Duration::from_millis(50));
    }

    #[test]
    fn memory_of_this_process_is_known() {
        let resident = resident_bytes(std::process::id());
        assert!(resident > 1 << 20 && resident <= resident_peak_bytes(std::process::id()) + (1 << 20));
    }
}
