//! The same steps as `grammar`, in instructions as callgrind counts them: no noise, whatever else the machine does.
//!
//! `cargo bench -p sluice-bench --bench instructions`; needs valgrind, and says so when it is not there. It starts
//! itself under callgrind twice for each step, with a few rounds and with twice as many, so that what does not
//! belong to the step falls out of the difference.

mod corpus;

use corpus::{LINES, contents, decode, decode_smtp_proto, read_lines, read_lines_smtp_proto};
use std::hint::black_box;
use std::process::Command;

const ROUNDS: u64 = 20;

/// What is counted: its name, its octets, itself.
type Step = (String, usize, Box<dyn FnMut() -> usize>);

fn steps() -> Vec<Step> {
    let octets = LINES.iter().map(|line| line.len()).sum();
    let mut steps: Vec<Step> = vec![
        ("command lines".into(), octets, Box::new(|| read_lines(LINES))),
        ("command lines, smtp-proto".into(), octets, Box::new(|| read_lines_smtp_proto(LINES))),
    ];
    for (name, wire) in contents() {
        let (octets, other, mut message) = (wire.len(), wire.clone(), Vec::with_capacity(1 << 17));
        steps.push((name.into(), octets, Box::new(move || decode(black_box(&wire)))));
        let decode = move || decode_smtp_proto(black_box(&other), &mut message);
        steps.push((format!("{name}, smtp-proto"), octets, Box::new(decode)));
    }
    steps
}

/// Instructions of a run with so many rounds of this step; `None` without valgrind.
fn count(step: usize, rounds: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("the own path"))
        .args([step.to_string(), rounds.to_string()])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let collected = collected.unwrap_or_else(|| panic!("valgrind says: {said}")).1;
    Some(collected.trim().parse().expect("a number"))
}

fn main() {
    let mut numbers = std::env::args().skip(1).map_while(|argument| argument.parse::<u64>().ok());
    if let (Some(step), Some(rounds)) = (numbers.next(), numbers.next()) {
        let (.., run) = &mut steps()[step as usize];
        return (0..rounds).for_each(|_| assert!(black_box(run()) > 0));
    }
    println!("| step | octets | instructions | per octet |\n|---|---:|---:|---:|");
    for (number, (name, octets, _)) in steps().iter().enumerate() {
        let Some((few, more)) = count(number, ROUNDS).zip(count(number, 2 * ROUNDS)) else {
            return println!("valgrind is not installed: apt-get install valgrind");
        };
        let instructions = (more - few) / ROUNDS;
        println!("| {name} | {octets} | {instructions} | {:.3} |", instructions as f64 / *octets as f64);
    }
}
