//! Which segment to empty, and whether it is worth it. Pure.
//!
//! What can be won is the difference between the octets that could be used again when nothing held a
//! sealed segment any more, and those that can be now. Compaction begins when that is more than twice the
//! octets that waiting messages need there, plus [`SLACK_SEGMENTS`]; below, nothing is moved. So disk use
//! stays within that and the segments that are idle, active or damaged.
//!
//! Then: the oldest segment that alone gives back twice what is moved for it, those included that it keeps
//! from use by being there; else the oldest, because all of them together pay.

use std::collections::BTreeSet;

/// Segments that may be kept from use without anything being done about it.
pub(crate) const SLACK_SEGMENTS: u64 = 4;
/// The same while room is short.
pub(crate) const SLACK_SEGMENTS_HURRIED: u64 = 1;
/// Segments looked at one by one, each at the cost of a walk through the figures.
const LOOKED_AT_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Sealed, and somebody needs something in it.
    Held,
    /// Sealed, and nobody does.
    Dead,
    /// Active or damaged.
    Fixed,
}

/// A segment, as far as this matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    pub sequence: u64,
    pub bytes: u64,
    /// Octets that waiting messages need, in whole blocks.
    pub live: u64,
    /// The oldest segment that it speaks of; the rule is in `segments`.
    pub refers_to: u64,
    pub standing: Standing,
}

/// `figures` in the order of the log. Gives the sequence of the segment to empty, never one of
/// `passed_over`: those could not be emptied.
pub(crate) fn pick(figures: &[Figure], passed_over: &BTreeSet<u64>, slack_bytes: u64) -> Option<u64> {
    let movable = |of: &Figure| of.standing == Standing::Held && !passed_over.contains(&of.sequence);
    let now = usable(figures, |_| false);
    let live: u64 = figures.iter().filter(|of| movable(of)).map(|of| of.live).sum();
    let won = usable(figures, movable) - now;
    if won <= 2 * live + slack_bytes {
        return None;
    }
    let candidates = || figures.iter().filter(|of| movable(of));
    let pays =
        |of: &&Figure| usable(figures, |other| other.sequence == of.sequence) - now >= 2 * of.live.max(1);
    candidates().take(LOOKED_AT_MAX).find(pays).or_else(|| candidates().next()).map(|of| of.sequence)
}

/// Octets that could be used again, one segment after the other, if those that `freed` names were dead.
fn usable(figures: &[Figure], freed: impl Fn(&Figure) -> bool) -> u64 {
    let (mut bytes, mut kept) = (0, 0);
    for figure in figures {
        let dead = figure.standing == Standing::Dead || freed(figure);
        if dead && figure.refers_to > kept {
            bytes += figure.bytes;
        } else {
            kept = figure.sequence;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::Standing::{Dead, Fixed, Held};
    use super::*;
    use crate::segments::REFERS_TO_NONE as NONE;

    const BYTES: u64 = 100;

    #[test]
    fn the_oldest_segment_that_pays_is_emptied_when_the_bound_is_passed() {
        type Row<'a> = (&'a str, &'a [(u64, u64, Standing)], &'a [u64], Option<u64>);
        let table: &[Row<'_>] = &[
            ("nothing there", &[], &[], None),
            ("within the slack", &[(10, NONE, Held), (0, 1, Dead), (0, 2, Dead), (0, 3, Dead)], &[], None),
            (
                "one message pins five",
                &[(10, NONE, Held), (0, 1, Dead), (0, 2, Dead), (0, 3, Dead), (0, 4, Dead), (0, 5, Fixed)],
                &[],
                Some(1),
            ),
            (
                "what is dead and free by itself is no reason",
                &[
                    (90, NONE, Held),
                    (0, NONE, Dead),
                    (0, NONE, Dead),
                    (0, NONE, Dead),
                    (0, NONE, Dead),
                    (0, NONE, Dead),
                    (0, NONE, Dead),
                ],
                &[],
                None,
            ),
            ("a full backlog is left alone", &[(90, NONE, Held); 9], &[], None),
            ("nearly finished segments, oldest first", &[(10, NONE, Held); 9], &[], Some(1)),
            (
                "a full one is left out when a later one pays",
                &[
                    (90, NONE, Held),
                    (5, NONE, Held),
                    (5, NONE, Held),
                    (5, NONE, Held),
                    (5, NONE, Held),
                    (5, NONE, Held),
                    (5, NONE, Held),
                    (5, NONE, Held),
                ],
                &[],
                Some(2),
            ),
            (
                "two full ones that pin only together",
                &[
                    (90, NONE, Held),
                    (90, NONE, Held),
                    (0, 1, Dead),
                    (0, 1, Dead),
                    (0, 1, Dead),
                    (0, 1, Dead),
                    (0, 1, Dead),
                    (0, 1, Dead),
                    (0, 1, Dead),
                ],
                &[],
                Some(1),
            ),
            ("what is passed over is not tried", &[(10, NONE, Held); 9], &[1, 2], Some(3)),
            (
                "what only a damaged one pins cannot be won",
                &[
                    (0, NONE, Fixed),
                    (10, NONE, Held),
                    (0, 1, Dead),
                    (0, 1, Dead),
                    (0, 1, Dead),
                    (0, 1, Dead),
                    (0, 1, Dead),
                ],
                &[],
                None,
            ),
            (
                "nor what only one passed over pins",
                &[(10, NONE, Held), (0, 1, Dead), (0, 2, Dead), (0, 3, Dead), (0, 4, Dead), (0, 5, Dead)],
                &[1],
                None,
            ),
        ];
        for (what, rows, passed_over, expected) in table {
            let figures: Vec<Figure> = (1..)
                .zip(*rows)
                .map(|(sequence, &(live, refers_to, standing))| Figure {
                    sequence,
                    bytes: BYTES,
                    live,
                    refers_to,
                    standing,
                })
                .collect();
            let passed_over = passed_over.iter().copied().collect();
            assert_eq!(pick(&figures, &passed_over, SLACK_SEGMENTS * BYTES), *expected, "{what}");
        }
    }
}
