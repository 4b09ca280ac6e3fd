//! What the hot paths of a message cost, in instructions and allocations, held against `cost.txt`: a path that got
//! slower fails here, whatever else the machine does.
//!
//! `engine/examples/paths.rs` has the paths. callgrind and memcheck count each of them in two runs, with few
//! rounds and with more, so that what does not belong to the path falls out of the difference. The program is
//! optimised, in the development profile, so that no library is built again; `tests/run` does that:
//! `tests/build-paths`.

use std::path::{Path, PathBuf};
use std::process::Command;

use sluice_tests::{is_root, lacks, skipped};

/// Instructions that a path may take over its figure, in percent, before that is a failure.
const SLOWER_PERCENT: f64 = 5.0;
/// Below its figure by more than this the figure is out of date, and would let the path become slow again.
const FASTER_PERCENT: f64 = 15.0;
const FEW: u64 = 50;
const MORE: u64 = 150;

/// A line of `cost.txt`.
struct Budget {
    path: String,
    instructions: f64,
    allocations: f64,
}

fn budgets() -> Vec<Budget> {
    let lines = include_str!("cost.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut word = || words.next().unwrap_or_else(|| panic!("cost.txt: {line}: three words"));
            let path = word().to_owned();
            let mut number = || word().parse().unwrap_or_else(|_| panic!("cost.txt: {line}: numbers"));
            Budget { path, instructions: number(), allocations: number() }
        })
        .collect()
}

/// The program with the paths, where `tests/build-paths` leaves it: beside the directory of this test.
fn paths() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("the own path");
    let built = own.ancestors().nth(2).expect("a target directory").join("examples/paths-optimised");
    built.exists().then_some(built)
}

/// What valgrind says about one run, behind `before`, as a number.
fn count(tool: &[&str], before: &str, program: &Path, path: &str, rounds: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(tool)
        .arg(program)
        .args([path, &rounds.to_string()])
        .output()
        .expect("valgrind starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let found = said.lines().find_map(|line| line.split_once(before));
    let found = found.unwrap_or_else(|| panic!("{path}: valgrind says: {said}")).1;
    let digits: String = found.chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
    digits.replace(',', "").parse().unwrap_or_else(|_| panic!("{path}: valgrind counts {found}"))
}

/// Of one round, to a tenth. `extra`: rounds that are run and not counted as such, as if each did more.
fn per_round(tool: &[&str], before: &str, program: &Path, path: &str, extra: u64) -> f64 {
    let few = count(tool, before, program, path, FEW);
    let more = count(tool, before, program, path, MORE + extra);
    (more.saturating_sub(few) as f64 / (MORE - FEW) as f64 * 10.0).round() / 10.0
}

fn instructions(program: &Path, path: &str, extra: u64) -> f64 {
    let callgrind = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    per_round(&callgrind, "Collected : ", program, path, extra)
}

fn allocations(program: &Path, path: &str, extra: u64) -> f64 {
    per_round(&["--leak-check=no"], "total heap usage: ", program, path, extra)
}

/// What is wrong with what was counted.
fn faults(budget: &Budget, counted: f64, allocated: f64) -> Vec<String> {
    let Budget { path, instructions, allocations } = budget;
    let mut faults = Vec::new();
    let percent = (counted / instructions - 1.0) * 100.0;
    if !(-FASTER_PERCENT..=SLOWER_PERCENT).contains(&percent) {
        faults.push(format!("{path}: {counted:.0} instructions, {percent:+.1} % against cost.txt"));
    }
    if allocated > *allocations {
        faults.push(format!("{path}: {allocated} allocations, {allocations} in cost.txt"));
    }
    faults
}

/// The program, or what to say without it.
fn ready() -> Option<PathBuf> {
    if lacks("valgrind") {
        return None;
    }
    let program = paths();
    if program.is_none() {
        assert!(!is_root(), "the hot paths are not built; the test command builds them, run tests/run");
        skipped("the hot paths are not built: tests/build-paths");
    }
    program
}

/// The guard itself: a path that does a tenth more in each round is found, by its instructions and its allocations.
#[test]
fn a_hot_path_that_became_a_tenth_slower_would_be_found() {
    let Some(program) = ready() else { return };
    let tenth = (MORE - FEW) / 10;
    let budget = budgets().into_iter().find(|budget| budget.path == "client").expect("a path of cost.txt");
    let faults = faults(
        &budget,
        instructions(&program, &budget.path, tenth),
        allocations(&program, &budget.path, tenth),
    );
    assert_eq!(faults.len(), 2, "{faults:?}");
}

#[test]
fn no_hot_path_has_become_slower() {
    let Some(program) = ready() else { return };
    let mut wrong = Vec::new();
    println!("# path          instructions   allocations");
    for budget in budgets() {
        let counted = instructions(&program, &budget.path, 0);
        let allocated = allocations(&program, &budget.path, 0);
        println!("{:<15} {counted:>12.0} {allocated:>13}", budget.path);
        wrong.extend(faults(&budget, counted, allocated));
    }
    assert!(
        wrong.is_empty(),
        "{}\nWhere that is meant, put the figures above into tests/tests/cost.txt.",
        wrong.join("\n")
    );
}
