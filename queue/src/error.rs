//! What can go wrong at the spool's boundary: whose fault, what scope, lasting or not.

use std::fmt;
use std::io;

/// The kernel's word for a failure, kept for the log and for every later answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What the spool was doing.
    pub doing: &'static str,
    pub os_error: Option<i32>,
    pub text: String,
}

impl Fault {
    pub(crate) fn new(doing: &'static str, error: &io::Error) -> Self {
        Self { doing, os_error: error.raw_os_error(), text: error.to_string() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.text)
    }
}

/// Why something was not made durable. The message (or the outcome) must be taken as not in the spool,
/// though after [`CommitError::Poisoned`] a restart may find it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// No room for another segment. The device's fault, passes when there is room again.
    Full,
    /// A write failed, now or earlier. The device's fault; the whole spool takes nothing until a restart.
    Poisoned(Fault),
    /// The envelope or the message does not fit the format. This message's fault, lasting.
    TooLarge,
    /// The draft lost octets: an append before failed or was given up. This message only, lasting.
    Broken,
    /// The spool is being closed. Passes with the restart.
    Closed,
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no space left for the spool"),
            Self::Poisoned(fault) => write!(f, "the spool takes nothing more until a restart: {fault}"),
            Self::TooLarge => f.write_str("the message does not fit the spool's format"),
            Self::Broken => f.write_str("an earlier part of the message was not written"),
            Self::Closed => f.write_str("the spool is being closed"),
        }
    }
}

impl std::error::Error for CommitError {}

/// Appending fails for the same reasons as committing.
pub type AppendError = CommitError;

/// Why a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// No such message is in the spool (any more).
    Unknown,
    /// Its octets on disk do not verify. This message, lasting.
    Damaged { segment: u64, position: u32 },
    /// The device refused to read. May pass.
    Device(Fault),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no such message in the spool"),
            Self::Damaged { segment, position } => {
                write!(f, "damaged on disk: segment {segment}, offset {position}")
            }
            Self::Device(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// Why a spool cannot be opened at all. Damage is not among it: that is reported in `Recovery`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// A value of `Options` is out of its bounds.
    Options(&'static str),
    /// The spool was written by a later version of this program.
    Newer {
        slot: u32,
        version: u16,
    },
    Device(Fault),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options(what) => f.write_str(what),
            Self::Newer { slot, version } => write!(
                f,
                "segment file {slot:06}.seg has format version {version}; start the version of the \
                 program that wrote it"
            ),
            Self::Device(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}
