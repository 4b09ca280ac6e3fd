//! The files in which a Linux host shows and takes its settings, beneath a root: `/`, or a test's own directory.
//!
//! Everything a knob knows it reads here, so that a host of any size can be played by a directory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longer ones are not settings; the list of mounts of a host full of containers is not as long.
const VALUE_BYTES_MAX: u64 = 1024 * 1024;
/// Of a list such as `/proc/net/tcp`: what follows is not looked at.
const LINES_MAX: usize = 1_000_000;

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

    /// A file's text, white space before and after it cut off; `None`: it is not there, or not for us. Octets that
    /// are not UTF-8 are replaced.
    pub fn read(&self, path: &str) -> Option<String> {
        let mut octets = Vec::new();
        File::open(self.path(path)).ok()?.take(VALUE_BYTES_MAX + 1).read_to_end(&mut octets).ok()?;
        let fits = octets.len() as u64 <= VALUE_BYTES_MAX;
        fits.then(|| String::from_utf8_lossy(&octets).trim().to_owned())
    }

    /// The lines of a list that may be long; none where it is not there.
    pub fn lines(&self, path: &str) -> impl Iterator<Item = String> {
        let lines = File::open(self.path(path)).ok().map(|file| BufReader::new(file).lines());
        lines.into_iter().flatten().map_while(Result::ok).take(LINES_MAX)
    }

    /// The set of CPUs that a file names; `None` where it is not there or names none.
    pub fn cpus(&self, path: &str) -> Option<Vec<usize>> {
        crate::cpus::parse(&self.read(path)?)
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

    /// Where a directory is or will be: links of that part of the path which is there are followed.
    pub fn real(&self, path: &str) -> String {
        let ancestors = Path::new(path).ancestors().filter_map(Path::to_str);
        let found = ancestors.filter(|above| !above.is_empty()).find_map(|above| {
            let rest = path.strip_prefix(above)?.trim_start_matches('/');
            Some((self.resolve(above)?, rest))
        });
        match found {
            Some((above, "")) => above,
            Some((above, rest)) => format!("{}/{rest}", above.trim_end_matches('/')),
            None => path.to_owned(),
        }
    }

    /// The running programs of this name (15 octets of it at most), by their numbers.
    pub fn processes(&self, name: &str) -> Vec<String> {
        let is_number = |entry: &String| entry.bytes().all(|octet| octet.is_ascii_digit());
        let is_it = |pid: &String| self.read(&format!("/proc/{pid}/comm")).is_some_and(|comm| comm == name);
        self.entries("/proc").into_iter().filter(is_number).filter(is_it).collect()
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
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use tempfile::TempDir;

    /// A link of the host, whose target is a path of the host too.
    pub fn link(host: &Host, target: &str, link: &str) {
        let link = host.path(link);
        std::fs::create_dir_all(link.parent().expect("below the root")).expect("a directory");
        symlink(host.path(target), link).expect("a link");
    }

    /// As [`host`], from texts that were made.
    pub fn host_of(files: &[(String, String)]) -> (TempDir, Host) {
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
        host(&files)
    }

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

    #[test]
    fn a_directory_that_is_not_there_yet_will_be_behind_the_links_of_those_above_it() {
        let (_directory, host) = played::host(&[("/data/a", "")]);
        played::link(&host, "/data", "/var/spool");
        let table = [
            ("/var/spool/sluice/x", "/data/sluice/x"),
            ("/var/spool", "/data"),
            ("/var/lib/sluice", "/var/lib/sluice"),
            ("/nothing/here", "/nothing/here"),
        ];
        for (path, real) in table {
            assert_eq!(host.real(path), real, "{path}");
        }
    }

    #[test]
    fn octets_that_are_no_utf_8_hide_nothing() {
        let (_directory, host) = played::host(&[]);
        std::fs::write(host.path("/list"), b"a\xff\nb\n").expect("a file");
        assert_eq!(host.read("/list").as_deref(), Some("a\u{fffd}\nb"));
    }
}
