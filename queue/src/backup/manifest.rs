//! The manifest of a backup: what is in it, as text. Pure; the lines are in `BACKUP.md`.
//!
//! Whoever reads one holds it against its checksum first, so a manifest counts as a whole or not at all.

use crate::id::{QueueId, SpoolNumber};
use crate::lineage::Lineage;
use crate::snapshot::Condition;
use crc32c::crc32c;
use std::fmt::{self, Write};

/// The version that this program writes, and the latest that it reads.
pub const MANIFEST_VERSION: u32 = 1;
/// Octets of a manifest that is read: about a million segments. Prevents: memory by a file of rubbish.
pub const MANIFEST_BYTES_MAX: u64 = 96 << 20;
const WORD_MAX: usize = 255;

/// What is in a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Version of the program that wrote it.
    pub product: String,
    pub host: String,
    pub began_micros: u64,
    pub completed_micros: u64,
    pub spools: Vec<ManifestSpool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestSpool {
    pub spool: SpoolNumber,
    /// `None` of a spool of format version 1 that was stopped.
    pub lineage: Option<Lineage>,
    /// The instant of the copy.
    pub at_micros: u64,
    pub batch: u64,
    pub messages: u64,
    pub live_bytes: u64,
    /// Open at the instant, rising.
    pub drafts: Vec<QueueId>,
    pub segments: Vec<ManifestSegment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestSegment {
    pub sequence: u64,
    pub salt: u64,
    /// Octets of the file, and how many of them count.
    pub bytes: u64,
    pub octets: u64,
    pub condition: Condition,
}

/// Why a text is not taken for a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// Written by a program that knows more.
    Newer(u32),
    /// The line, from 1; 0 when the whole does not verify.
    Malformed(usize),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer(version) => {
                write!(
                    f,
                    "the backup has format version {version}; use the version of the program that wrote it"
                )
            }
            Self::Malformed(0) => {
                f.write_str("the manifest is not whole or was changed: its checksum does not agree")
            }
            Self::Malformed(line) => write!(f, "the manifest cannot be read at line {line}"),
        }
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    pub fn encode(&self) -> String {
        let mut text = format!(
            "sluice-backup {MANIFEST_VERSION}\nproduct {}\nhost {}\nbegan {}\n",
            word(&self.product),
            word(&self.host),
            self.began_micros
        );
        let mut lines = 0;
        for of in &self.spools {
            let lineage = of.lineage.map_or_else(|| "0".repeat(32), |lineage| lineage.to_string());
            let _ = writeln!(
                text,
                "spool {} {lineage} {} {} {} {}",
                of.spool.get(),
                of.at_micros,
                of.batch,
                of.messages,
                of.live_bytes
            );
            for id in &of.drafts {
                let _ = writeln!(text, "draft {id}");
            }
            for segment in &of.segments {
                let ManifestSegment { sequence, salt, bytes, octets, condition } = segment;
                let _ =
                    writeln!(text, "segment {sequence} {salt:016x} {bytes} {octets} {}", name(*condition));
            }
            lines += 1 + of.segments.len();
        }
        let crc = crc32c(text.as_bytes());
        let _ = writeln!(text, "complete {} {lines} {crc:08x}", self.completed_micros);
        text
    }

    /// # Errors
    /// See [`ManifestError`].
    pub fn decode(text: &str) -> Result<Self, ManifestError> {
        let first = text.lines().next().and_then(|line| line.strip_prefix("sluice-backup "));
        match first.and_then(|version| version.parse().ok()) {
            Some(MANIFEST_VERSION) => {}
            Some(version) if version > MANIFEST_VERSION => return Err(ManifestError::Newer(version)),
            _ => return Err(ManifestError::Malformed(1)),
        }
        let (body, last) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once('\n'))
            .ok_or(ManifestError::Malformed(0))?;
        let last: Vec<&str> = last.split(' ').collect();
        let ["complete", completed, lines, crc] = last[..] else { return Err(ManifestError::Malformed(0)) };
        let body = &text[..body.len() + 1];
        if u32::from_str_radix(crc, 16) != Ok(crc32c(body.as_bytes())) {
            return Err(ManifestError::Malformed(0));
        }
        let mut manifest = Self { completed_micros: completed.parse().unwrap_or(0), ..Self::default() };
        let mut counted = 0;
        for (at, line) in body.lines().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            let taken = manifest.take(&words).ok_or(ManifestError::Malformed(at + 1))?;
            counted += taken as usize;
        }
        match lines.parse() == Ok(counted) {
            true => Ok(manifest),
            false => Err(ManifestError::Malformed(0)),
        }
    }

    /// Whether the line is one of those that are counted.
    fn take(&mut self, words: &[&str]) -> Option<bool> {
        match *words {
            ["product", product] => self.product = product.into(),
            ["host", host] => self.host = host.into(),
            ["began", micros] => self.began_micros = micros.parse().ok()?,
            ["spool", spool, lineage, at, batch, messages, live] => self.spools.push(ManifestSpool {
                spool: spool.parse().ok().and_then(SpoolNumber::new)?,
                lineage: Lineage::from_octets(hex(lineage)?),
                at_micros: at.parse().ok()?,
                batch: batch.parse().ok()?,
                messages: messages.parse().ok()?,
                live_bytes: live.parse().ok()?,
                drafts: Vec::new(),
                segments: Vec::new(),
            }),
            ["draft", id] => self.spools.last_mut()?.drafts.push(id.parse().ok()?),
            ["segment", sequence, salt, bytes, octets, condition] => {
                let segment = ManifestSegment {
                    sequence: sequence.parse().ok()?,
                    salt: u64::from_str_radix(salt, 16).ok()?,
                    bytes: bytes.parse().ok()?,
                    octets: octets.parse().ok()?,
                    condition: condition_of(condition)?,
                };
                let spool = self.spools.last_mut()?;
                let rises = spool.segments.last().is_none_or(|last| last.sequence < segment.sequence);
                if segment.octets > segment.bytes || !rises {
                    return None;
                }
                spool.segments.push(segment);
            }
            ["spool" | "segment", ..] => return None,
            _ => return Some(false),
        }
        Some(matches!(words[0], "spool" | "segment"))
    }

    /// The segment, when this backup has it.
    pub fn segment(&self, spool: SpoolNumber, sequence: u64) -> Option<&ManifestSegment> {
        let spool = self.spools.iter().find(|of| of.spool == spool)?;
        let at = spool.segments.binary_search_by_key(&sequence, |of| of.sequence).ok()?;
        Some(&spool.segments[at])
    }
}

/// One word that a line can hold.
fn word(text: &str) -> String {
    let word: String =
        text.chars().take(WORD_MAX).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    if word.is_empty() { "?".into() } else { word }
}

fn hex(text: &str) -> Option<[u8; 16]> {
    let bits = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(bits.to_be_bytes())
}

fn name(condition: Condition) -> &'static str {
    match condition {
        Condition::Sealed => "sealed",
        Condition::Open => "open",
        Condition::Damaged => "damaged",
    }
}

fn condition_of(name: &str) -> Option<Condition> {
    [Condition::Sealed, Condition::Open, Condition::Damaged].into_iter().find(|of| self::name(*of) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let segment = |sequence, octets, condition| ManifestSegment {
            sequence,
            salt: 0x4711_aa00 + sequence,
            bytes: 1 << 26,
            octets,
            condition,
        };
        let spool = |number, segments| ManifestSpool {
            spool: SpoolNumber::new(number).unwrap(),
            lineage: Lineage::from_octets(*b"sixteen octets!\x00").filter(|_| number != 4),
            at_micros: 1_795_000_000_000_000,
            batch: 4711,
            messages: 20,
            live_bytes: 88_064,
            drafts: vec![QueueId::from_bits(77), QueueId::from_bits(4711)],
            segments,
        };
        Manifest {
            product: "0.1.0".into(),
            host: "relay.winery.example".into(),
            began_micros: 1,
            completed_micros: 2,
            spools: vec![
                spool(0, vec![segment(7, 1 << 26, Condition::Sealed), segment(9, 4096, Condition::Open)]),
                spool(4, vec![]),
                spool(5, vec![segment(1, 1 << 26, Condition::Damaged)]),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = manifest().encode();
        assert_eq!(Manifest::decode(&text), Ok(manifest()));
        let found = manifest();
        let found = |spool, sequence| found.segment(SpoolNumber::new(spool).unwrap(), sequence).is_some();
        assert_eq!([found(0, 9), found(0, 8), found(4, 7), found(5, 1)], [true, false, false, true]);
    }

    #[test]
    fn every_cut_and_every_changed_octet_is_noticed() {
        let text = manifest().encode();
        for end in 0..text.len() {
            assert!(Manifest::decode(&text[..end]).is_err(), "cut at {end}");
        }
        let last = text.rfind("complete").unwrap();
        for at in 0..last {
            let mut octets = text.clone().into_bytes();
            octets[at] ^= 1;
            let changed = String::from_utf8(octets).unwrap();
            assert!(Manifest::decode(&changed).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn lines_of_later_kinds_are_stepped_over_and_a_later_version_is_named() {
        let text = manifest().encode();
        let body = text[..text.rfind("complete").unwrap()].replace("began 1\n", "began 1\nmood good\n");
        let text = format!("{body}complete 2 6 {:08x}\n", crc32c(body.as_bytes()));
        assert_eq!(Manifest::decode(&text), Ok(manifest()));
        let newer = text.replacen("sluice-backup 1", "sluice-backup 7", 1);
        assert_eq!(Manifest::decode(&newer), Err(ManifestError::Newer(7)));
    }

    #[test]
    fn lines_that_cannot_be_are_refused_by_number() {
        for (bad, line) in [
            ("spool 9999 00000000000000000000000000000000 1 1 1 1", 3),
            ("spool 1 00 1 1 1 1", 3),
            ("spool 1", 3),
            ("segment 1 0 4096 4096 sealed", 3),
        ] {
            let body = format!("sluice-backup 1\nproduct x\n{bad}\n");
            let text = format!("{body}complete 2 1 {:08x}\n", crc32c(body.as_bytes()));
            assert_eq!(Manifest::decode(&text), Err(ManifestError::Malformed(line)), "{bad}");
        }
    }

    #[test]
    fn a_word_stays_one_word() {
        let odd = Manifest { host: "a b\nspool 1".into(), product: String::new(), ..Manifest::default() };
        let read = Manifest::decode(&odd.encode()).unwrap();
        assert_eq!((read.host.as_str(), read.product.as_str()), ("a?b?spool?1", "?"));
    }
}
