//! Where and when a measurement was made, and the files that keep it.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;

pub fn today() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d").to_string()
}

/// The name given, or the host's, fit for a file name.
pub fn machine(name: Option<&str>) -> String {
    let name = name.map_or_else(|| first_line("/proc/sys/kernel/hostname"), str::to_owned);
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// Hardware, kernel and the file system of `directory`.
pub fn sentence(name: Option<&str>, directory: &Path) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": ")).map_or("unknown CPU", |(_, name)| name);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Machine {}: {cpus} × {model}, kernel {}, {} under {}.",
        machine(name),
        first_line("/proc/sys/kernel/osrelease"),
        file_system(directory),
        directory.display(),
    )
}

/// Writes `DATE-NAME.md` and `.json`; a number is added rather than a file of the same day replaced.
pub fn save(directory: &Path, name: &str, text: &str, all: &Value) -> Result<()> {
    let stem = stem(directory, name)?;
    write(directory, &format!("{stem}.md"), text)?;
    write(directory, &format!("{stem}.json"), &serde_json::to_string_pretty(all)?)
}

/// `DATE-NAME`, with a number behind it where such a result is there already. Makes the directory.
pub fn stem(directory: &Path, name: &str) -> Result<String> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let stem = format!("{}-{name}", today());
    let free = |stem: &String| !directory.join(format!("{stem}.md")).exists();
    std::iter::once(stem.clone())
        .chain((2..).map(|number| format!("{stem}-{number}")))
        .find(free)
        .context("no free name")
}

pub fn write(directory: &Path, name: &str, content: &str) -> Result<()> {
    let path = directory.join(name);
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("saved {}", path.display());
    Ok(())
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// Type of the file system that holds the directory, by the longest mount point that leads to it.
fn file_system(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let directory = fs::canonicalize(directory).unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            directory.starts_with(point).then_some((point.len(), kind.to_owned()))
        })
        .max_by_key(|(length, _)| *length)
        .map_or("unknown file system".to_owned(), |(_, kind)| kind)
}
