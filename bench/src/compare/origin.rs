//! Where figures come from: the tree, the programs and the command that made them.

use anyhow::{Result, ensure};
use serde::Serialize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

/// Debian packages whose versions a figure may depend on; those that are unpacked only are in the table of servers.
const PACKAGES: [&str; 8] =
    ["libc6", "libgnutls30", "libssl3", "nodejs", "npm", "openssl", "postfix", "strace"];

/// What the relay's program is made of.
const RELAY: [&str; 6] = ["Cargo.lock", "Cargo.toml", "engine", "queue", "tuning", ":!*.md"];

#[derive(Clone, Debug, Default, Serialize)]
pub struct Origin {
    /// Of the tree in the current directory.
    pub commit: Option<String>,
    /// Files that belong to it differ.
    pub has_changes: Option<bool>,
    /// Of this program.
    pub profile: &'static str,
    pub command: String,
    /// Of the relay's program.
    pub relay_sha256: Option<String>,
    /// The relay's program is older than the last commit that changed it.
    pub relay_is_older: Option<bool>,
    /// `NAME VERSION`.
    pub packages: Vec<String>,
}

impl Origin {
    pub fn of(relay: &Path) -> Self {
        let written = std::fs::metadata(relay).and_then(|metadata| metadata.modified()).ok();
        let written = written.and_then(|time| Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs()));
        let committed = said("git", &[&["log", "-1", "--format=%ct", "--"], &RELAY[..]].concat());
        let committed = committed.and_then(|text| text.parse::<u64>().ok());
        let sum = said("sha256sum", &[&relay.display().to_string()]);
        let format = ["-W", "-f", "${Package} ${Version}\\n"];
        let packages = said("dpkg-query", &[&format[..], &PACKAGES].concat()).unwrap_or_default();
        Origin {
            commit: said("git", &["rev-parse", "HEAD"]).filter(|commit| !commit.is_empty()),
            has_changes: said("git", &["status", "--porcelain", "--untracked-files=no"])
                .map(|text| !text.is_empty()),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            command: std::env::args().map(|word| quoted(&word)).collect::<Vec<_>>().join(" "),
            relay_sha256: sum.and_then(|text| Some(text.split_whitespace().next()?.to_owned())),
            relay_is_older: written.zip(committed).map(|(written, committed)| written < committed),
            packages: packages
                .lines()
                .filter(|line| line.trim_end().contains(' '))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// A paragraph, and the command.
    pub fn markdown(&self) -> String {
        let commit = match (&self.commit, self.has_changes) {
            (Some(commit), Some(true)) => format!("{commit} **with changes that are not committed**"),
            (Some(commit), _) => commit.clone(),
            (None, _) => "unknown".to_owned(),
        };
        let older = if self.relay_is_older == Some(true) {
            ", **older than the last commit that changed it**"
        } else {
            ""
        };
        let relay =
            self.relay_sha256.as_ref().map_or("not there".to_owned(), |sum| sum.chars().take(16).collect());
        format!(
            "Commit {commit}; sluice-bench built as {}; SHA-256 of the relay's program {relay}{older}; {}.\n\n```\n{}\n```\n",
            self.profile,
            self.packages.join(", "),
            self.command
        )
    }
}

/// Figures of a program that was not optimised say nothing and are not kept.
pub fn refuse_debug(relay: &Path) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "--save: sluice-bench is a debug build; build with --release");
    let is_debug = relay.components().any(|part| part.as_os_str() == "debug");
    ensure!(!is_debug, "--save: {} is a debug build; build with --release", relay.display());
    Ok(())
}

/// What a program prints when it succeeds, or partly does.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    // dpkg-query gives what it knows, and fails for what it does not.
    let counts = output.status.success() || program == "dpkg-query";
    counts.then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_can_be_given_to_a_shell_again() {
        for (word, text) in [("--only", "--only"), ("a b", "'a b'"), ("", "''"), ("it's", "'it'\\''s'")] {
            assert_eq!(quoted(word), text);
        }
    }

    #[test]
    fn the_origin_says_what_is_not_there() {
        let origin = Origin::of(Path::new("/nowhere/sluice"));
        assert_eq!((&origin.relay_sha256, origin.relay_is_older), (&None, None));
        let text = Origin {
            relay_is_older: Some(true),
            has_changes: Some(true),
            commit: Some("abc".into()),
            ..origin
        };
        let text = text.markdown();
        assert!(
            text.contains("abc **with changes")
                && text.contains("**older than the last commit that changed it**"),
            "{text}"
        );
    }

    #[test]
    fn a_debug_build_keeps_nothing() {
        let refused = refuse_debug(Path::new("target/debug/sluice")).unwrap_err();
        assert!(refused.to_string().contains("debug build"), "{refused}");
    }
}
