//! The decision table of recovery: what to do where the log does not go on. Pure data.
//!
//! Asked at a place where a batch should start or has failed to verify. What makes the difference between
//! a crash and damage is whether that batch can have been acknowledged: a later segment exists only when
//! every batch before it was durable, and a later batch says up to where all were durable when it was made.
//!
//! A second table says whether a segment is taken by its index or by its batches.

/// What is at the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No batch header of this life of the segment.
    NoHeader,
    /// A valid header, and a record that does not verify.
    BadRecord,
}

/// Where the segment stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Last,
    Earlier,
}

/// What later batches in the same segment say of the one that is missing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Later {
    /// There is none.
    None,
    /// There is one, made before the missing one was durable.
    InFlight,
    /// There is one, made when the missing one was durable.
    Proves,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The log ends here and nothing was lost. Seal it here.
    End,
    /// The log ends here; what is unfinished was never acknowledged. Seal it here.
    Cut,
    /// Damage. Report it, keep the records that verify, go on behind it.
    Mend,
    /// Damage: the seal is missing. Report it, nothing more is readable.
    Stop,
}

struct Row {
    label: &'static str,
    found: Found,
    standing: Standing,
    later: Later,
    verdict: Verdict,
}

const fn row(label: &'static str, found: Found, standing: Standing, later: Later, verdict: Verdict) -> Row {
    Row { label, found, standing, later, verdict }
}

#[rustfmt::skip]
const TABLE: [Row; 12] = [
    row("L1 end of the log",                       Found::NoHeader,  Standing::Last,    Later::None,     Verdict::End),
    row("L2 a batch in flight was lost",           Found::NoHeader,  Standing::Last,    Later::InFlight, Verdict::Cut),
    row("L3 a durable batch is gone",              Found::NoHeader,  Standing::Last,    Later::Proves,   Verdict::Mend),
    row("L4 torn tail",                            Found::BadRecord, Standing::Last,    Later::None,     Verdict::Cut),
    row("L5 a batch in flight was torn",           Found::BadRecord, Standing::Last,    Later::InFlight, Verdict::Cut),
    row("L6 a durable batch is damaged",           Found::BadRecord, Standing::Last,    Later::Proves,   Verdict::Mend),
    row("E1 the seal is gone",                     Found::NoHeader,  Standing::Earlier, Later::None,     Verdict::Stop),
    row("E2 a batch is gone, others follow",       Found::NoHeader,  Standing::Earlier, Later::InFlight, Verdict::Mend),
    row("E3 a durable batch is gone",              Found::NoHeader,  Standing::Earlier, Later::Proves,   Verdict::Mend),
    row("E4 the last batch is damaged",            Found::BadRecord, Standing::Earlier, Later::None,     Verdict::Mend),
    row("E5 a batch is damaged, others follow",    Found::BadRecord, Standing::Earlier, Later::InFlight, Verdict::Mend),
    row("E6 a durable batch is damaged",           Found::BadRecord, Standing::Earlier, Later::Proves,   Verdict::Mend),
];

pub(super) fn decide(found: Found, standing: Standing, later: Later) -> Verdict {
    let wanted = |row: &&Row| row.found == found && row.standing == standing && row.later == later;
    let row = TABLE.iter().find(wanted).expect("the table has a row for every combination");
    debug_assert!(!row.label.is_empty());
    row.verdict
}

/// What a segment's last block, and what it leads to, say of its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// No footer of this life of this segment.
    NoFooter,
    /// A footer by a program that knew types, kinds or tags that this one does not.
    Later,
    /// A footer that verifies, with places or batches that this segment cannot have.
    Astray,
    /// A footer that verifies, and an index that does not.
    BadIndex,
    /// Both verify.
    GoodIndex,
}

/// How a segment is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By its index.
    Index,
    /// Batch by batch.
    Walk,
    /// Batch by batch, and the report counts an index that could not be used.
    WalkAndCount,
}

/// Damage keeps a segment from its index: it is to be seen at every start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Soundness {
    Sound,
    /// The file is too short, or the start was asked to read the batches.
    Doubtful,
}

struct Road {
    label: &'static str,
    evidence: Evidence,
    soundness: Soundness,
    way: Way,
}

const fn road(label: &'static str, evidence: Evidence, soundness: Soundness, way: Way) -> Road {
    Road { label, evidence, soundness, way }
}

#[rustfmt::skip]
const ROADS: [Road; 10] = [
    road("S1 not sealed, or without an index",     Evidence::NoFooter,   Soundness::Sound,    Way::Walk),
    road("S2 an index of a later version",         Evidence::Later,      Soundness::Sound,    Way::Walk),
    road("S3 a footer that does not belong here",  Evidence::Astray,     Soundness::Sound,    Way::WalkAndCount),
    road("S4 an index that does not verify",       Evidence::BadIndex,   Soundness::Sound,    Way::WalkAndCount),
    road("S5 an index",                            Evidence::GoodIndex,  Soundness::Sound,    Way::Index),
    road("D1 doubtful, without an index",          Evidence::NoFooter,   Soundness::Doubtful, Way::Walk),
    road("D2 doubtful, an index of a later version", Evidence::Later,    Soundness::Doubtful, Way::Walk),
    road("D3 doubtful, a footer from elsewhere",   Evidence::Astray,     Soundness::Doubtful, Way::Walk),
    road("D4 doubtful, an index that does not verify", Evidence::BadIndex, Soundness::Doubtful, Way::Walk),
    road("D5 doubtful, an index that verifies",    Evidence::GoodIndex,  Soundness::Doubtful, Way::Walk),
];

pub(super) fn way(evidence: Evidence, soundness: Soundness) -> Way {
    let wanted = |road: &&Road| road.evidence == evidence && road.soundness == soundness;
    let road = ROADS.iter().find(wanted).expect("the table has a row for every combination");
    debug_assert!(!road.label.is_empty());
    road.way
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combinations() -> impl Iterator<Item = (Found, Standing, Later)> {
        [Found::NoHeader, Found::BadRecord].into_iter().flat_map(|found| {
            [Standing::Last, Standing::Earlier].into_iter().flat_map(move |standing| {
                [Later::None, Later::InFlight, Later::Proves]
                    .into_iter()
                    .map(move |later| (found, standing, later))
            })
        })
    }

    #[test]
    fn every_combination_has_exactly_one_row_and_every_label_is_its_own() {
        assert_eq!(combinations().count(), TABLE.len());
        for (found, standing, later) in combinations() {
            let rows =
                TABLE.iter().filter(|row| (row.found, row.standing, row.later) == (found, standing, later));
            assert_eq!(rows.count(), 1, "{found:?} {standing:?} {later:?}");
        }
        let mut labels: Vec<_> = TABLE.iter().map(|row| &row.label[..2]).collect();
        labels.dedup();
        assert_eq!(labels.len(), TABLE.len());
    }

    #[test]
    fn the_written_format_has_every_row() {
        let written = include_str!("../../FORMAT.md");
        for row in &TABLE {
            assert!(written.contains(&row.label[..2]), "{} is not in FORMAT.md", row.label);
        }
    }

    fn evidences() -> impl Iterator<Item = (Evidence, Soundness)> {
        use Evidence::*;
        [NoFooter, Later, Astray, BadIndex, GoodIndex].into_iter().flat_map(|evidence| {
            [Soundness::Sound, Soundness::Doubtful].into_iter().map(move |soundness| (evidence, soundness))
        })
    }

    #[test]
    fn every_evidence_of_an_index_has_exactly_one_row_and_every_label_is_its_own() {
        assert_eq!(evidences().count(), ROADS.len());
        for of in evidences() {
            assert_eq!(
                ROADS.iter().filter(|road| (road.evidence, road.soundness) == of).count(),
                1,
                "{of:?}"
            );
        }
        let labels: std::collections::BTreeSet<_> = ROADS.iter().map(|road| &road.label[..2]).collect();
        assert_eq!(labels.len(), ROADS.len());
        let written = include_str!("../../FORMAT.md");
        for label in labels {
            assert!(written.contains(label), "{label} is not in FORMAT.md");
        }
    }

    /// The argument, as conditions.
    #[test]
    fn an_index_counts_only_when_all_of_it_verifies_and_nothing_is_doubtful() {
        for (evidence, soundness) in evidences() {
            let good = evidence == Evidence::GoodIndex && soundness == Soundness::Sound;
            assert_eq!(way(evidence, soundness) == Way::Index, good, "{evidence:?} {soundness:?}");
            let lost = matches!(evidence, Evidence::Astray | Evidence::BadIndex);
            let counts = lost && soundness == Soundness::Sound;
            assert_eq!(way(evidence, soundness) == Way::WalkAndCount, counts, "{evidence:?} {soundness:?}");
        }
    }

    /// The argument that the table must agree with, written as conditions.
    #[test]
    fn only_what_nobody_was_told_of_is_cut_without_a_report() {
        for (found, standing, later) in combinations() {
            let may_be_acknowledged = standing == Standing::Earlier || later == Later::Proves;
            let verdict = decide(found, standing, later);
            let reported = matches!(verdict, Verdict::Mend | Verdict::Stop);
            assert_eq!(reported, may_be_acknowledged, "{found:?} {standing:?} {later:?}");
            let more_to_read = found == Found::BadRecord || later != Later::None;
            assert_eq!(verdict == Verdict::Mend, reported && more_to_read);
            let nothing_there = found == Found::NoHeader && later == Later::None;
            assert_eq!(verdict == Verdict::End, !reported && nothing_there);
        }
    }
}
