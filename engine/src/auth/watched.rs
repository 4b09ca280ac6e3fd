//! A file that is read again when it has changed.
//!
//! Lives on the service thread. It is looked at once a second at most, when somebody asks; one that cannot be
//! read or is wrong leaves what was read before.

use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Watched<T> {
    path: PathBuf,
    octets_max: u64,
    parse: fn(&str) -> Result<T, String>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamp: Option<Stamp>,
    looked: Instant,
    /// What was wrong when it was read last, so that it is told once.
    trouble: Option<String>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp(metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// The text of a file of at most so many octets.
pub(super) fn text(path: &Path, octets_max: u64) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).and_then(|file| file.take(octets_max + 1).read_to_string(&mut text));
    match file {
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        Ok(_) if text.len() as u64 > octets_max => {
            Err(format!("{} is longer than {octets_max} octets", path.display()))
        }
        Ok(_) => Ok(text),
    }
}

impl<T> Watched<T> {
    /// Reads it for the first time.
    pub fn open(path: &Path, octets_max: u64, parse: fn(&str) -> Result<T, String>) -> Result<Self, String> {
        let stamp = std::fs::metadata(path).ok().map(|metadata| stamp(&metadata));
        let value = read(path, octets_max, parse)?;
        let state = State { value: Arc::new(value), stamp, looked: Instant::now(), trouble: None };
        Ok(Self { path: path.to_owned(), octets_max, parse, state: Mutex::new(state) })
    }

    /// What it says now; and a line for the log when that is news.
    pub fn get(&self, at_once: bool) -> (Arc<T>, Option<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !at_once && state.looked.elapsed() < LOOK {
            return (state.value.clone(), None);
        }
        state.looked = Instant::now();
        let found = std::fs::metadata(&self.path).ok().map(|metadata| stamp(&metadata));
        let news = if found == state.stamp && state.trouble.is_none() && !at_once {
            None
        } else {
            state.stamp = found;
            match read(&self.path, self.octets_max, self.parse) {
                Ok(value) => {
                    state.value = Arc::new(value);
                    state.trouble = None;
                    Some(format!("{} was read again", self.path.display()))
                }
                Err(trouble) => {
                    let told = state.trouble.as_ref() == Some(&trouble);
                    state.trouble = Some(trouble.clone());
                    (!told).then(|| format!("error: {trouble}; what was read before holds"))
                }
            }
        };
        (state.value.clone(), news)
    }
}

fn read<T>(path: &Path, octets_max: u64, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    parse(&text(path, octets_max)?).map_err(|wrong| format!("{}: {wrong}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u32, String> {
        text.trim().parse().map_err(|_| "not a number".into())
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_changes_nothing() {
        let path = std::env::temp_dir().join(format!("sluice-watched-{}", std::process::id()));
        std::fs::write(&path, "1").unwrap();
        let watched = Watched::open(&path, 10, number).unwrap();
        assert_eq!(watched.get(false), (Arc::new(1), None));
        std::fs::write(&path, "22").unwrap();
        let (value, news) = watched.get(true);
        assert!(*value == 22 && news.unwrap().ends_with("was read again"));
        for bad in ["x", "12345678901"] {
            std::fs::write(&path, bad).unwrap();
            let (value, news) = watched.get(true);
            assert!(*value == 22 && news.unwrap().starts_with("error: "), "{bad}");
            assert_eq!(watched.get(true).1, None, "{bad} is told once");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*watched.get(true).0, 22);
        assert!(Watched::open(&path, 10, number).is_err());
    }
}
