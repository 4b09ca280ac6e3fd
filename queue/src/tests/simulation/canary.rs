//! The simulation finds every deliberate fault of `crate::canary`. A test that cannot fail shows nothing.

use super::simulate;
use crate::canary::{self, Canary};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds in which each must be found.
const SEEDS_MAX: u64 = 60;

/// Silences it even when an assertion ends the test.
struct Silence;

impl Drop for Silence {
    fn drop(&mut self) {
        canary::set(None);
    }
}

/// How many seeds it took.
fn seeds_to_find(canary: Canary) -> Option<u64> {
    let _silence = Silence;
    canary::set(Some(canary));
    (1..=SEEDS_MAX).find(|seed| catch_unwind(AssertUnwindSafe(|| simulate(*seed))).is_err())
}

macro_rules! canaries {
    ($($name:ident: $canary:ident,)*) => { $(
        #[test]
        fn $name() {
            let seeds = seeds_to_find(Canary::$canary).expect("the simulation finds it");
            println!("{:?}: found in seed {seeds}", Canary::$canary);
        }
    )* };
}

canaries! {
    an_answer_before_the_write_is_found: AnswersEarly,
    a_write_error_that_is_ignored_is_found: IgnoresWriteErrors,
    a_directory_that_is_not_synced_is_found: ForgetsDirectories,
    a_seal_that_is_forgotten_is_found: ForgetsSeals,
    a_segment_recycled_too_early_is_found: RecyclesEarly,
    a_checksum_that_is_skipped_is_found: SkipsChecksums,
    what_an_earlier_life_left_is_found: ReadsOldLives,
    ids_given_out_again_are_found: GivesIdsAgain,
    a_move_that_forgets_states_is_found: MovesForgetStates,
}
