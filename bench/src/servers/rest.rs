//! What every measurement of a server needs: a free port, a server at rest, a directory that goes with the run.

use crate::process::Group;
use crate::stop::Stop;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A server rests when it used less than [`REST_CPU`] in this time.
const REST_WINDOW: Duration = Duration::from_millis(300);
const REST_CPU: Duration = Duration::from_millis(5);
/// A server that never rests (busy polling) is measured all the same.
const REST_WAIT: Duration = Duration::from_secs(5);
/// Longest time until the port of a server that has ended is free.
const FREE_WAIT: Duration = Duration::from_secs(10);

/// Waits until the group has stopped working; since when it has.
pub fn rest(group: &Group) -> Instant {
    let deadline = Instant::now() + REST_WAIT;
    let (mut since, mut before) = (Instant::now(), group.cpu());
    while since < deadline {
        std::thread::sleep(REST_WINDOW);
        let now = group.cpu();
        if now.saturating_sub(before) < REST_CPU {
            return since;
        }
        (since, before) = (Instant::now(), now);
    }
    since
}

/// Whether something accepts connections on the loopback address.
pub fn accepts(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(1)).is_ok()
}

/// Waits until a server can bind the port, as servers do, with SO_REUSEADDR: that nobody answers on it does not say so.
/// The kernel takes the rings of an ended process down in its own time, and a listener with a pending accept goes with
/// them.
pub fn await_free(port: u16, stop: &Stop) -> Result<()> {
    let deadline = Instant::now() + FREE_WAIT;
    while TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
        ensure!(Instant::now() < deadline, "port {port} is taken; choose others with --port");
        ensure!(!stop.is_set(), "interrupted");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A directory of this run, removed at its end.
pub struct WorkDirectory(PathBuf);

impl WorkDirectory {
    pub fn create(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("sluice-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(WorkDirectory(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_when_it_can_be_bound() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let stop = Stop::default();
        stop.set();
        assert!(await_free(port, &stop).is_err(), "bound");
        drop(taken);
        await_free(port, &stop).unwrap();
    }
}
