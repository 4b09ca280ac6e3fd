//! Files a message into a Maildir: written to `tmp`, synced, moved to `new`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The Maildir of a mailbox: `ROOT/DOMAIN/LOCAL-PART`. Whatever could lead out of the root, or is no
/// plain file name, becomes `_`.
pub fn directory(root: &Path, mailbox: &str) -> PathBuf {
    let (local_part, domain) = mailbox.rsplit_once('@').unwrap_or((mailbox, "localhost"));
    root.join(plain(&domain.to_ascii_lowercase())).join(plain(local_part))
}

fn plain(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_+=.".contains(c) { c } else { '_' };
    let name: String = name.chars().take(100).map(safe).collect();
    if name.is_empty() || name.starts_with('.') { format!("_{name}") } else { name }
}

/// Delivers one message; when this returns it is on the disk.
pub fn deliver(directory: &Path, sender: &str, content: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    for part in ["tmp", "new", "cur"] {
        fs::create_dir_all(directory.join(part))?;
    }
    let number = NUMBER.fetch_add(1, Relaxed);
    let name = format!("{}.P{}Q{number}.sluice", crate::clock::wall_micros(), std::process::id());
    let temporary = directory.join("tmp").join(&name);
    let mut file = File::create_new(&temporary)?;
    writeln!(file, "Return-Path: <{sender}>")?;
    // Maildir readers expect the line ends of the host.
    for line in content.split_inclusive(|&c| c == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => file.write_all(line).and_then(|()| file.write_all(b"\n"))?,
            None => file.write_all(line)?,
        }
    }
    file.sync_all()?;
    fs::rename(&temporary, directory.join("new").join(&name))?;
    File::open(directory.join("new"))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mailbox_name_leads_out_of_the_root() {
        let root = Path::new("root");
        for (mailbox, path) in [
            ("bob@inside.test", "root/inside.test/bob"),
            ("Bob@INSIDE.test", "root/inside.test/Bob"),
            ("../../etc@..", "root/_../_.._.._etc"),
            ("\"a/b\"@x", "root/x/_a_b_"),
            ("postmaster", "root/localhost/postmaster"),
            ("@x", "root/x/_"),
        ] {
            assert_eq!(directory(root, mailbox), Path::new(path), "{mailbox}");
        }
    }
}
