//! What a server still has in its queue: the check that a sink which verifies nothing has got everything.

use super::{Kind, Setup};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Messages in the queue of a server that rests. The relay is asked and must be running; the files of the others are
/// counted. Always none of the bare program, which has no queue.
pub fn queued(kind: Kind, setup: &Setup) -> Result<u64> {
    let directory = &setup.directory;
    match kind {
        Kind::Relay => relay(setup),
        Kind::PostfixStock | Kind::PostfixTuned | Kind::PostfixLean => {
            let queues = ["maildrop", "incoming", "active", "deferred", "hold", "corrupt"];
            queues.iter().map(|queue| files(&directory.join("queue").join(queue), &|_| true)).sum()
        }
        // An envelope for each message.
        Kind::OpenSmtpd => files(&directory.join("spool/smtpd/queue"), &|name| name == "message"),
        Kind::Exim => files(&directory.join("spool/input"), &|name| name.ends_with("-H")),
        Kind::Haraka => files(&directory.join("queue"), &|name| !name.starts_with('.')),
        Kind::Bare => Ok(0),
    }
}

fn relay(setup: &Setup) -> Result<u64> {
    let mut command = Command::new(&setup.relay);
    command.args(["queue", "list", "--json", "--config"]).arg(setup.directory.join("relay.toml"));
    let output = command.stdin(Stdio::null()).output().context("the relay's queue")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the relay's queue cannot be listed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.starts_with('{')).count() as u64)
}

/// Files below the directory whose names fit; none where it is not there. One that goes meanwhile does not count.
fn files(directory: &Path, fits: &dyn Fn(&str) -> bool) -> Result<u64> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(0) };
    let mut all = 0;
    for entry in entries {
        let entry = entry.with_context(|| format!("{}", directory.display()))?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all += files(&entry.path(), fits)?,
            Ok(kind) if kind.is_file() => all += u64::from(entry.file_name().to_str().is_some_and(fits)),
            _ => {}
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_where_each_server_keeps_them() {
        for (kind, there, count) in [
            (Kind::PostfixStock, &["queue/active/A", "queue/deferred/B/C", "queue/pid/master"][..], 2),
            (Kind::OpenSmtpd, &["spool/smtpd/queue/1a/1a2b/message", "spool/smtpd/queue/1a/1a2b/0001"], 1),
            (Kind::Exim, &["spool/input/a/1-H", "spool/input/a/1-D", "spool/input/b/2-H"], 2),
            (Kind::Haraka, &["queue/123_1", "queue/.tmp"], 1),
            (Kind::Bare, &["queue/x"], 0),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let setup = Setup::new(directory.path().to_owned(), Path::new("sluice"), 1, 2);
            assert_eq!(queued(kind, &setup).unwrap(), 0, "{kind:?}: nothing is there");
            for file in there {
                let path = directory.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            assert_eq!(queued(kind, &setup).unwrap(), count, "{kind:?}");
        }
    }
}
