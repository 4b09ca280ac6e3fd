//! The comparison as a program: each server starts, takes mail and hands it on, in each way of measuring.
//!
//! OpenSMTPD, Exim and Haraka are where the test command has put them; a server that cannot be had or started here is
//! skipped, and says so.

use std::path::PathBuf;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sluice-bench");

/// A range of its own, below those of the commands' defaults and of what the kernel hands out.
const PORT: &str = "25900";

#[test]
fn every_server_is_measured_in_the_short_form() {
    let built = PathBuf::from(PROGRAM).ancestors().nth(2).expect("TARGET/PROFILE/PROGRAM").to_owned();
    let relay = PathBuf::from(PROGRAM).with_file_name("sluice");
    let results = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM)
        .args(["compare", "--quick", "--port", PORT, "--machine", "test", "--relay"])
        .arg(&relay)
        .arg("--unpacked")
        .arg(built.join("interop"))
        .arg("--save")
        .arg(results.path())
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let skipped: Vec<_> = errors.lines().filter(|line| line.starts_with("SKIPPED: ")).collect();
    skipped.iter().for_each(|line| println!("{line}"));
    let missing: Vec<_> =
        text.lines().skip_while(|line| *line != "## Missing").filter(|l| l.starts_with("- ")).collect();
    assert_eq!(missing.len(), skipped.len(), "{text}\n{errors}");
    assert_eq!(output.status.code(), Some(i32::from(!skipped.is_empty())), "{errors}");
    for server in
        ["Sluice", "Postfix, stock", "Postfix, tuned", "Postfix, lean", "OpenSMTPD", "Exim", "Haraka"]
    {
        let measured = text.lines().any(|line| line.starts_with(&format!("| {server} |")) && line.len() > 60);
        let left_out = skipped.iter().any(|line| line.starts_with(&format!("SKIPPED: {server}: ")));
        assert!(measured || left_out, "{server}\n{text}\n{errors}");
    }
    let mut names: Vec<_> =
        std::fs::read_dir(results.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let endings = ["-cpu.svg", "-latency.svg", "-rate.svg", ".json", ".md"];
    assert_eq!(names.len(), endings.len(), "{names:?}");
    for (name, ending) in names.iter().zip(endings) {
        let text = std::fs::read_to_string(name).unwrap();
        assert!(name.to_str().unwrap().ends_with(ending) && !text.is_empty(), "{names:?}");
    }
}

#[test]
fn a_file_that_is_wrong_is_refused_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.toml");
    std::fs::write(&file, "[[scenario]]\nname = \"a\"\nsise = 4096\n").unwrap();
    let output = Command::new(PROGRAM).args(["compare", "--scenarios"]).arg(&file).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("wrong.toml") && errors.contains("unknown field `sise`"), "{errors}");
}
