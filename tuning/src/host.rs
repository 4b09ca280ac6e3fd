//! The files in which a Linux host shows and takes its settings, beneath a root: `/`, or a test's own directory.
//!
//! Everything a knob knows it reads here, so that a host of any size can be played by a directory.

use std::io;
use std::path::{Path, PathBuf};

/// Longer ones are not settings.
const VALUE_BYTES_MAX: u64 = 64 * 1024;

pub struct Host {
    root: PathBuf,
}

impl Host {
    /// The one that this process runs on.
    pub fn this() -> Self {
        Self::at("/")
    }

    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where an absolute path of the host is for this process.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text, white space before and after it cut off; `None`: it is not there, or not for us.
    pub fn read(&self, path: &str) -> Option<String> {
        let path = self.path(path);
        let length = std::fs::metadata(&path).ok()?.len();
        let text = (length <= VALUE_BYTES_MAX).then(|| std::fs::read_to_string(path).ok())??;
        Some(text.trim().to_owned())
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// # Errors
    /// Those of the file system: no permission, or a value that the kernel does not take.
    pub fn write(&self, path: &str, value: &str) -> io::Result<()> {
        std::fs::write(self.path(path), format!("{value}\n"))
    }

    /// The names in a directory, in order (numbers by value); none where it is not there.
    pub fn entries(&self, path: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_by(|one, other| by_number(one).cmp(&by_number(other)));
        names
    }

    pub fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Where links lead to, as an absolute path of the host.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let found = std::fs::canonicalize(self.path(path)).ok()?;
        let root = std::fs::canonicalize(&self.root).ok()?;
        let below = found.strip_prefix(root).ok()?;
        Some(Path::new("/").join(below).to_str()?.to_owned())
    }
}

/// `rx-10` comes after `rx-9`.
fn by_number(name: &str) -> (&str, u64, &str) {
    let digits = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    let (word, number) = name.split_at(digits);
    (word, number.parse().unwrap_or(0), name)
}

#[cfg(test)]
pub(crate) mod played {
    //! Hosts that are played.

    use super::Host;
    use std::path::Path;
    use tempfile::TempDir;

    /// A host with these files.
    pub fn host(files: &[(&str, &str)]) -> (TempDir, Host) {
        let directory = TempDir::new().expect("a directory");
        let host = Host::at(directory.path());
        for (path, text) in files {
            let path = host.path(path);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a directory");
            std::fs::write(path, format!("{text}\n")).expect("a file");
        }
        (directory, host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let (_directory, host) =
            played::host(&[("/q/rx-10/a", ""), ("/q/rx-9/a", ""), ("/q/tx-0/a", ""), ("/q/rx-0/a", "")]);
        assert_eq!(host.entries("/q"), ["rx-0", "rx-9", "rx-10", "tx-0"]);
        assert_eq!(host.entries("/absent"), [""; 0]);
    }

    #[test]
    fn what_is_not_there_or_is_no_number_is_none() {
        let (_directory, host) = played::host(&[("/proc/sys/a", "12"), ("/proc/sys/b", "twelve")]);
        assert_eq!((host.number("/proc/sys/a"), host.number("/proc/sys/b")), (Some(12), None));
        assert_eq!(host.read("/proc/sys/c"), None);
        assert_eq!(host.resolve("/proc/sys/a").as_deref(), Some("/proc/sys/a"));
    }
}
