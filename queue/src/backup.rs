//! The copy of a queue in a directory: generations, of which one counts. The format is in `BACKUP.md`.
//!
//! Blocks, and belongs on a thread that may; never on a shard. What is to be copied says the [`Needed`] of
//! a snapshot that the caller keeps alive until [`Destination::write`] has returned.
//!
//! Invariant: `DIR/current` names a whole generation, or does not exist. It is changed once in a call, by a
//! rename, when everything that the new generation has is durable; only then the former one is removed.

mod copy;
mod manifest;

pub use manifest::{
    MANIFEST_BYTES_MAX, MANIFEST_VERSION, Manifest, ManifestError, ManifestSegment, ManifestSpool,
};

use crate::id::SpoolNumber;
use crate::snapshot::{Condition, Needed, NeededSegment};
use crate::storage::file_name;
use copy::Copier;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

const LOCK: &str = "lock";
const CURRENT: &str = "current";
const CURRENT_NEW: &str = "current.new";
const GENERATION: &str = "generation-";
const MANIFEST: &str = "manifest";
/// What a file system puts in the root of a new one.
const LOST_AND_FOUND: &str = "lost+found";

/// Why there is no new copy. The former one is as it was.
#[derive(Debug)]
pub enum BackupError {
    /// The directory must be named by its whole path, without `..` in a part that does not exist.
    Relative(PathBuf),
    /// The directory lies in the spool.
    InsideSpool(PathBuf),
    /// The directory holds something that is no backup.
    NotABackup { dir: PathBuf, found: String },
    /// Somebody else writes it, or restores from it.
    Busy(PathBuf),
    /// The manifest of the former copy is of a later version.
    Newer(PathBuf, ManifestError),
    /// A segment is not where the spool said it is.
    Changed(PathBuf),
    /// The caller did not want it any more.
    GivenUp,
    /// The kernel refused.
    Io { doing: &'static str, path: PathBuf, error: io::Error },
}

impl BackupError {
    fn io(doing: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), error }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relative(dir) => write!(f, "{} must be a whole path", dir.display()),
            Self::InsideSpool(dir) => {
                write!(f, "{} lies in the spool; a backup must lie outside of it", dir.display())
            }
            Self::NotABackup { dir, found } => write!(
                f,
                "{} is not empty and no backup (there is {found:?}); name another directory",
                dir.display()
            ),
            Self::Busy(dir) => {
                write!(f, "another backup to {} or a restore from it is running", dir.display())
            }
            Self::Newer(dir, error) => write!(f, "{}: {error}", dir.display()),
            Self::Changed(path) => write!(f, "{} is not the segment that the spool means", path.display()),
            Self::GivenUp => f.write_str("the backup was given up"),
            Self::Io { doing, path, error } => write!(f, "{doing} {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BackupError {}

/// How a file came into a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Shares its blocks with the spool's file, and is another file.
    Cloned,
    /// Is the spool's file.
    Linked,
    Copied,
    /// Was in the former copy.
    Kept,
}

/// Files, and the octets of them that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub files: u64,
    pub bytes: u64,
}

/// What a call has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub cloned: Amount,
    pub linked: Amount,
    pub copied: Amount,
    pub kept: Amount,
    /// Octets that the device refused to read. They are zeros in the copy, and damage there.
    pub unreadable_bytes: u64,
    /// The generation, and its manifest.
    pub generation: u64,
    pub manifest: Manifest,
}

/// What the manifest says besides.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Version of the program.
    pub product: String,
    pub host: String,
    pub began_micros: u64,
}

/// A directory that a backup may be written to, with its lock.
pub struct Destination {
    dir: PathBuf,
    _lock: File,
    /// The generation that counts, and its manifest when that could be read.
    former: Option<(u64, Option<Manifest>)>,
}

impl Destination {
    /// Takes `dir`, which is absent, empty, or a backup, for copies of `spool`, the directory of all its
    /// spools; removes what an interrupted call left there.
    ///
    /// # Errors
    /// See [`BackupError`]; nothing that counts has been changed.
    pub fn open(dir: &Path, spool: &Path) -> Result<Self, BackupError> {
        let dir = real(dir)?;
        let spool = spool.canonicalize().map_err(|error| BackupError::io("reading", spool, error))?;
        if dir.starts_with(&spool) {
            return Err(BackupError::InsideSpool(dir));
        }
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => sync_dir(dir.parent().unwrap_or(Path::new("/")))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(BackupError::io("creating", &dir, error)),
        }
        let (_, stranger) = look(&dir)?;
        let current = dir.join(CURRENT);
        if let Some(found) = stranger.filter(|_| fs::symlink_metadata(&current).is_err()) {
            return Err(BackupError::NotABackup { dir, found });
        }
        let lock =
            lock(&dir, OpenOptions::new().create(true).truncate(false).write(true).mode(0o600), false)?;
        let former = match fs::symlink_metadata(&current).is_ok() {
            true => former(&current)?,
            false => None,
        };
        for number in look(&dir)?.0 {
            if former.as_ref().is_none_or(|(counts, _)| *counts != number) {
                remove(&dir.join(generation_name(number)))?;
            }
        }
        Ok(Self { dir, _lock: lock, former })
    }

    /// Writes the next generation and makes it count. `go_on` is called with the octets copied since its last
    /// call, at least once a file; when it says `false` the call ends with [`BackupError::GivenUp`].
    ///
    /// # Errors
    /// See [`BackupError`]. The former generation counts, and what was written of the new one is gone or,
    /// where that failed too, counts for nothing.
    pub fn write(
        &mut self,
        spool: &Path,
        needed: &[Needed],
        origin: &Origin,
        clock: &dyn Fn() -> u64,
        go_on: &dyn Fn(u64) -> bool,
    ) -> Result<Written, BackupError> {
        let number = self.former.as_ref().map_or(1, |(number, _)| number + 1);
        let generation = self.dir.join(generation_name(number));
        let written = self.fill(&generation, spool, needed, origin, clock, go_on).and_then(|mut written| {
            if !go_on(0) {
                return Err(BackupError::GivenUp);
            }
            written.generation = number;
            self.switch(number)?;
            Ok(written)
        });
        match &written {
            Ok(written) => {
                let former = self.former.replace((number, Some(written.manifest.clone())));
                if let Some((former, _)) = former {
                    // If it cannot be removed now, the next call does it.
                    let _ = remove(&self.dir.join(generation_name(former)));
                }
            }
            Err(_) => drop(remove(&generation)),
        }
        written
    }

    fn fill(
        &self,
        generation: &Path,
        spool: &Path,
        needed: &[Needed],
        origin: &Origin,
        clock: &dyn Fn() -> u64,
        go_on: &dyn Fn(u64) -> bool,
    ) -> Result<Written, BackupError> {
        create_dir(generation)?;
        let mut copier = Copier { clones: true, links: true, go_on, unreadable: 0 };
        let mut written = Written::default();
        let mut spools = Vec::with_capacity(needed.len());
        for of in needed {
            spools.push(self.fill_spool(generation, spool, of, &mut copier, &mut written)?);
        }
        written.unreadable_bytes = copier.unreadable;
        written.manifest = Manifest {
            product: origin.product.clone(),
            host: origin.host.clone(),
            began_micros: origin.began_micros,
            completed_micros: clock(),
            spools,
        };
        let path = generation.join(MANIFEST);
        let failed = |error: io::Error| BackupError::io("writing", &path, error);
        let mut file = copy::create(&path).map_err(failed)?;
        file.write_all(written.manifest.encode().as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        sync_dir(generation)?;
        Ok(written)
    }

    fn fill_spool(
        &self,
        generation: &Path,
        spool: &Path,
        needed: &Needed,
        copier: &mut Copier<'_>,
        written: &mut Written,
    ) -> Result<ManifestSpool, BackupError> {
        let name = shard_name(needed.spool);
        let (from, to) = (spool.join(&name), generation.join(&name));
        create_dir(&to)?;
        let mut segments = Vec::with_capacity(needed.segments.len());
        for of in &needed.segments {
            let unreadable = copier.unreadable;
            let (mut segment, way) = self.fill_segment(&from, &to, needed.spool, of, copier)?;
            if copier.unreadable > unreadable {
                segment.condition = Condition::Damaged;
            }
            let amount = match way {
                Way::Cloned => &mut written.cloned,
                Way::Linked => &mut written.linked,
                Way::Copied => &mut written.copied,
                Way::Kept => &mut written.kept,
            };
            amount.files += 1;
            amount.bytes += segment.octets;
            segments.push(segment);
            if !(copier.go_on)(0) {
                return Err(BackupError::GivenUp);
            }
        }
        sync_dir(&to)?;
        Ok(ManifestSpool {
            spool: needed.spool,
            lineage: needed.lineage,
            at_micros: needed.at_micros,
            batch: needed.batch,
            messages: needed.messages,
            live_bytes: needed.live_bytes,
            drafts: needed.drafts.clone(),
            segments,
        })
    }

    fn fill_segment(
        &self,
        from: &Path,
        to: &Path,
        spool: SpoolNumber,
        of: &NeededSegment,
        copier: &mut Copier<'_>,
    ) -> Result<(ManifestSegment, Way), BackupError> {
        let source = from.join(file_name(of.slot));
        let header = copy::header(&source).map_err(|error| BackupError::io("reading", &source, error))?;
        let Some(header) =
            header.filter(|header| header.sequence == of.sequence && header.spool == spool.get())
        else {
            return Err(BackupError::Changed(source));
        };
        let name = u32::try_from(of.sequence).map(file_name);
        let name = name.map_err(|_| BackupError::Changed(source.clone()))?;
        let target = to.join(&name);
        let segment = ManifestSegment {
            sequence: of.sequence,
            salt: header.salt,
            bytes: of.bytes,
            octets: of.octets,
            condition: of.condition,
        };
        if let Some(former) = self.former_file(spool, &segment, &name)
            && fs::hard_link(&former, &target).is_ok()
        {
            return Ok((segment, Way::Kept));
        }
        let whole = of.condition != Condition::Open;
        let way = copier.place(&source, &target, of.bytes, of.octets, whole)?;
        Ok((segment, way))
    }

    /// The file of the former generation that is this very segment, with nothing added since.
    fn former_file(&self, spool: SpoolNumber, segment: &ManifestSegment, name: &str) -> Option<PathBuf> {
        let (number, Some(manifest)) = self.former.as_ref()? else { return None };
        if segment.condition == Condition::Damaged
            || manifest.segment(spool, segment.sequence) != Some(segment)
        {
            return None;
        }
        let path = self.dir.join(generation_name(*number)).join(shard_name(spool)).join(name);
        let whole = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == segment.bytes);
        let header = copy::header(&path).ok().flatten()?;
        (whole && header.sequence == segment.sequence && header.salt == segment.salt).then_some(path)
    }

    /// From here on the new generation counts.
    fn switch(&self, number: u64) -> Result<(), BackupError> {
        let (new, current) = (self.dir.join(CURRENT_NEW), self.dir.join(CURRENT));
        let failed = |error: io::Error| BackupError::io("writing", &current, error);
        sync_dir(&self.dir)?;
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        std::os::unix::fs::symlink(generation_name(number), &new).map_err(failed)?;
        fs::rename(&new, &current).map_err(failed)?;
        // Should this fail, either generation may count after a crash. Both are whole until the next call.
        let _ = sync_dir(&self.dir);
        Ok(())
    }
}

/// A backup to read from, which nobody replaces meanwhile.
pub struct Source {
    /// The path of a spool: it holds directories `shard-NNNN`.
    pub spool: PathBuf,
    pub manifest: Manifest,
    _lock: Option<File>,
}

impl Source {
    /// Opens `dir` when it is a backup; `None` when it is something else, a spool perhaps. The lock is left
    /// out where the file system or the permissions do not allow one.
    ///
    /// # Errors
    /// It is a backup and cannot be read, or is being written.
    pub fn open(dir: &Path) -> Result<Option<Self>, BackupError> {
        let current = dir.join(CURRENT);
        let is_generation = |name: &Path| name.to_str().and_then(generation_of).is_some();
        if !fs::read_link(&current).is_ok_and(|name| is_generation(&name)) {
            return Ok(None);
        }
        let lock = match lock(dir, OpenOptions::new().read(true), true) {
            Ok(lock) => Some(lock),
            Err(BackupError::Busy(dir)) => return Err(BackupError::Busy(dir)),
            Err(_) => None,
        };
        // The generation itself: the link may be renamed over when there is no lock.
        let spool = current.canonicalize().map_err(|error| BackupError::io("reading", &current, error))?;
        let manifest = read_manifest(&spool)?;
        Ok(Some(Self { spool, manifest, _lock: lock }))
    }
}

/// `dir` as it really is; its last parts need not exist.
fn real(dir: &Path) -> Result<PathBuf, BackupError> {
    if !dir.is_absolute() {
        return Err(BackupError::Relative(dir.to_owned()));
    }
    for known in dir.ancestors() {
        match known.canonicalize() {
            Ok(real) => {
                let rest = dir.strip_prefix(known).expect("it is an ancestor");
                let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
                return match plain {
                    true if rest.as_os_str().is_empty() => Ok(real),
                    true => Ok(real.join(rest)),
                    false => Err(BackupError::Relative(dir.to_owned())),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(BackupError::io("reading", known, error)),
        }
    }
    Err(BackupError::Relative(dir.to_owned()))
}

/// The generations in a directory, and the name of something that does not belong there.
fn look(dir: &Path) -> Result<(Vec<u64>, Option<String>), BackupError> {
    let failed = |error: io::Error| BackupError::io("reading", dir, error);
    let (mut generations, mut stranger) = (Vec::new(), None);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        match generation_of(&name) {
            Some(number) => generations.push(number),
            None if [LOCK, CURRENT, CURRENT_NEW, LOST_AND_FOUND].contains(&&*name) => {}
            None => stranger = Some(name.into_owned()),
        }
    }
    Ok((generations, stranger))
}

fn lock(dir: &Path, options: &OpenOptions, shared: bool) -> Result<File, BackupError> {
    let path = dir.join(LOCK);
    let file = options.open(&path).map_err(|error| BackupError::io("opening", &path, error))?;
    let locked = if shared { file.try_lock_shared() } else { file.try_lock() };
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackupError::Busy(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(BackupError::io("locking", &path, error)),
    }
}

/// The generation that counts. A manifest that does not verify is as good as none: all is copied anew.
fn former(current: &Path) -> Result<Option<(u64, Option<Manifest>)>, BackupError> {
    let name = fs::read_link(current).ok();
    let number = name.as_deref().and_then(Path::to_str).and_then(generation_of);
    let Some(number) = number else {
        let dir = current.parent().unwrap_or(current).to_owned();
        return Err(BackupError::NotABackup { dir, found: CURRENT.into() });
    };
    match read_manifest(current) {
        Ok(manifest) => Ok(Some((number, Some(manifest)))),
        Err(newer @ BackupError::Newer(..)) => Err(newer),
        Err(_) => Ok(Some((number, None))),
    }
}

fn read_manifest(generation: &Path) -> Result<Manifest, BackupError> {
    let path = generation.join(MANIFEST);
    let failed = |error: io::Error| BackupError::io("reading", &path, error);
    let file = File::open(&path).map_err(failed)?;
    let mut text = String::new();
    file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Manifest::decode(&text).map_err(|error| match error {
        ManifestError::Newer(_) => BackupError::Newer(path.clone(), error),
        ManifestError::Malformed(_) => failed(io::Error::new(io::ErrorKind::InvalidData, error)),
    })
}

fn generation_name(number: u64) -> String {
    format!("{GENERATION}{number:06}")
}

fn generation_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix(GENERATION)?.parse().ok()?;
    (generation_name(number) == name).then_some(number)
}

/// The directory of a spool, below the one of all spools.
pub fn shard_name(spool: SpoolNumber) -> String {
    format!("shard-{:04}", spool.get())
}

fn create_dir(path: &Path) -> Result<(), BackupError> {
    DirBuilder::new().mode(0o700).create(path).map_err(|error| BackupError::io("creating", path, error))
}

fn sync_dir(path: &Path) -> Result<(), BackupError> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(|error| BackupError::io("syncing", path, error))
}

fn remove(generation: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(generation) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BackupError::io("removing", generation, error))
        }
        _ => Ok(()),
    }
}
