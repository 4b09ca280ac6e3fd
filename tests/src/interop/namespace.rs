//! Servers that Debian will not install beside Postfix: unpacked by the test command, run in namespaces of their own.
//!
//! A mount namespace gives such a server the users, the certificates and the empty directories that its package would
//! have made, seen by nobody else; a process namespace ends with the server, and all of its children with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{is_root, skipped};

/// Where the test command has unpacked a Debian package: `interop/PACKAGE` below the build directory. `None`, said
/// loudly, when the test must stop because it is not there or cannot be run.
pub fn unpacked(package: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("the test's own path");
    let target = own.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    let directory = target.join("interop").join(package);
    if !directory.is_dir() {
        skipped(&format!("{package} is not unpacked in {}; tests/run does that", directory.display()));
        return None;
    }
    if !is_root() {
        skipped(&format!("{package} runs in namespaces of its own, which only root may make"));
        return None;
    }
    Some(directory)
}

/// What a server finds in its own name space.
pub struct Namespace<'a> {
    /// Where its files and this script go.
    pub directory: &'a Path,
    /// System users that it needs, by name; each with a group of the same name.
    pub users: &'a [&'a str],
    /// Files and directories that stand in for others: (what, where).
    pub bound: &'a [(PathBuf, &'a str)],
    /// Directories that are empty there.
    pub empty: &'a [&'a str],
    /// Further directories to make, with mode 0711.
    pub made: &'a [&'a str],
}

/// The first number for users that exist in no real file.
const UID_FIRST: u32 = 62_100;

impl Namespace<'_> {
    pub fn uid(number: usize) -> u32 {
        UID_FIRST + number as u32
    }

    /// Starts a command line there, output and errors into `output`.
    pub fn start(&self, command: &[&str], output: fs::File) -> Child {
        let (mut users, mut groups) = (
            fs::read_to_string("/etc/passwd").unwrap_or_default(),
            fs::read_to_string("/etc/group").unwrap_or_default(),
        );
        for (number, user) in self.users.iter().enumerate() {
            let uid = Self::uid(number);
            users += &format!("{user}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n");
            groups += &format!("{user}:x:{uid}:\n");
        }
        let mut script = "set -e\n".to_owned();
        let mut bind = |what: &Path, place: &str| {
            script += &format!("mount --bind '{}' '{place}'\n", what.display());
        };
        for (name, text, place) in [("passwd", users, "/etc/passwd"), ("group", groups, "/etc/group")] {
            let file = self.directory.join(name);
            fs::write(&file, text).expect("a file");
            bind(&file, place);
        }
        self.bound.iter().for_each(|(what, place)| bind(what, place));
        for place in self.empty {
            script += &format!("mount -t tmpfs -o mode=0755 tmpfs '{place}'\n");
        }
        for place in self.made {
            script += &format!("mkdir -p -m 711 '{place}'\n");
        }
        // The shell stays as the first process of the namespace: a server that gives up root would no longer be told of
        // its parent's end, but it ends with this one.
        script += "\"$@\" &\nwait $!\n";
        let file = self.directory.join("start.sh");
        fs::write(&file, script).expect("a file");
        Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child=KILL",
                "sh",
            ])
            .arg(&file)
            .args(command)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file"))
            .stderr(output)
            .spawn()
            .expect("unshare starts")
    }
}

/// A process that ends with the value.
pub struct Ending(pub Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
