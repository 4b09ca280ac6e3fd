//! A server in a name space of its own: one that Debian will not install beside Postfix, unpacked instead, finds the
//! users and directories there that its package would have made, seen by nobody else; and all its processes end with
//! the first one.

use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// The first number for users that exist in no real file.
const UID_FIRST: u32 = 62_100;

/// What it finds there.
#[derive(Default)]
pub struct Namespace<'a> {
    /// System users, by name; each with a group of the same name.
    pub users: &'a [&'a str],
    /// Files and directories that stand in for others: (what, where).
    pub bound: &'a [(PathBuf, &'a str)],
    /// Directories that are empty there, in memory.
    pub empty: &'a [&'a str],
    /// Further directories to make, with mode 0711.
    pub made: &'a [&'a str],
}

impl Namespace<'_> {
    /// The user's number, by its place in `users`.
    pub fn uid(number: usize) -> u32 {
        UID_FIRST + number as u32
    }

    /// The command line that starts `command` there; files for it go into `directory`.
    pub fn arguments(&self, directory: &Path, command: &[String]) -> Result<Vec<String>> {
        let mut users = fs::read_to_string("/etc/passwd")?;
        let mut groups = fs::read_to_string("/etc/group")?;
        for (number, user) in self.users.iter().enumerate() {
            let uid = Self::uid(number);
            users += &format!("{user}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n");
            groups += &format!("{user}:x:{uid}:\n");
        }
        let mut script = "set -e\n".to_owned();
        for place in self.empty {
            script += &format!("mkdir -p '{place}'\nmount -t tmpfs -o mode=0755 tmpfs '{place}'\n");
        }
        let mut bind = |what: &Path, place: &str| {
            script += &format!("mount --bind '{}' '{place}'\n", what.display());
        };
        for (name, text, place) in [("passwd", users, "/etc/passwd"), ("group", groups, "/etc/group")] {
            let file = directory.join(name);
            fs::write(&file, text)?;
            bind(&file, place);
        }
        self.bound.iter().for_each(|(what, place)| bind(what, place));
        for place in self.made {
            script += &format!("mkdir -p -m 711 '{place}'\n");
        }
        // The shell stays as the first process of the name space, which ends with it.
        script += "\"$@\" &\nwait $!\n";
        let file = directory.join("start.sh");
        fs::write(&file, script)?;
        let mut arguments: Vec<String> =
            ["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork"]
                .map(str::to_owned)
                .to_vec();
        arguments.extend(["--kill-child=KILL".to_owned(), "sh".to_owned(), file.display().to_string()]);
        arguments.extend_from_slice(command);
        Ok(arguments)
    }
}
