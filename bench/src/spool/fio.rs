//! What the disk itself can do: fio writing as the spool writes, one write at a time.
//!
//! O_DIRECT and O_DSYNC through io_uring, depth 1, over a file whose blocks have all been written before, as those of
//! a recycled segment have. Runs fio as a process of its own, on the CPU that the spool runs on.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Octets of the file; as many as a few segments.
const FILE_BYTES: usize = 256 << 20;

/// One size of write, in microseconds from submission to completion.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub block_bytes: usize,
    pub writes_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// A file to write over, removed at the end.
pub struct Limit {
    path: PathBuf,
    cpu: usize,
}

impl Limit {
    /// Writes the file, so that later writes find their blocks in place.
    pub fn prepare(directory: &Path, cpu: usize) -> Result<Limit> {
        ensure!(
            Command::new("fio").arg("--version").output().is_ok(),
            "fio is missing; install the package fio"
        );
        let path = directory.join("fio.dat");
        let mut file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let limit = Limit { path, cpu };
        let piece = vec![0x5a; 1 << 20];
        for _ in 0..FILE_BYTES / piece.len() {
            file.write_all(&piece)?;
        }
        file.sync_all()?;
        Ok(limit)
    }

    pub fn measure(&self, block_bytes: usize, time: Duration) -> Result<Figures> {
        let output = Command::new("fio")
            .arg("--name=limit")
            .arg(format!("--filename={}", self.path.display()))
            .arg(format!("--size={FILE_BYTES}"))
            .arg(format!("--bs={block_bytes}"))
            .arg(format!("--runtime={}ms", time.as_millis()))
            .arg(format!("--cpus_allowed={}", self.cpu))
            .args(["--rw=write", "--direct=1", "--sync=dsync", "--ioengine=io_uring", "--iodepth=1"])
            .args(["--time_based", "--lat_percentiles=1", "--clat_percentiles=0", "--output-format=json"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .context("cannot run fio")?;
        if !output.status.success() {
            bail!("fio failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        parse(block_bytes, &String::from_utf8_lossy(&output.stdout))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The figures of fio's JSON, before which it may print notes.
fn parse(block_bytes: usize, text: &str) -> Result<Figures> {
    let json = text.find('{').map_or("", |at| &text[at..]);
    let all: Value = serde_json::from_str(json).context("fio's answer is no JSON")?;
    let write = &all["jobs"][0]["write"];
    let number =
        |value: &Value, what: &str| value.as_f64().with_context(|| format!("fio did not tell {what}"));
    let percentile = |at: &str| number(&write["lat_ns"]["percentile"][at], at).map(|nanos| nanos / 1e3);
    Ok(Figures {
        block_bytes,
        writes_per_second: number(&write["iops"], "iops")?,
        p50_us: percentile("50.000000")?,
        p99_us: percentile("99.000000")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_percentiles_are_read_from_fios_answer() {
        let text = r#"fio: a note
            {"jobs": [{"write": {"iops": 14000.5,
                "lat_ns": {"percentile": {"50.000000": 56000, "99.000000": 112500}}}}]}"#;
        let figures = parse(4096, text).unwrap();
        assert_eq!((figures.writes_per_second, figures.p50_us, figures.p99_us), (14_000.5, 56.0, 112.5));
        for text in ["", "fio: failed", "{}", r#"{"jobs": [{"write": {"iops": 1}}]}"#] {
            assert!(parse(4096, text).is_err(), "{text}");
        }
    }
}
