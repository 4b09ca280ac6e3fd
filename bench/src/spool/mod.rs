//! The spool against its disk.

mod commits;
mod fio;

use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    #[arg(long, value_delimiter = ',', default_value = "1,20,100")]
    pub committers: Vec<usize>,
    #[arg(long, default_value_t = 4096)]
    pub size: usize,
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    #[arg(long, default_value_t = 0)]
    pub cpu: usize,
    #[arg(long, default_value = "2s", value_parser = crate::args::duration)]
    pub time: Duration,
}

pub fn run(options: &Options) -> Result<bool> {
    let dir = options.dir.join(format!("sluice-bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let limit = fio::Limit::prepare(&dir, options.cpu)?;
    for round in 0..options.rounds {
        for bs in [4096, 8192] {
            let f = limit.measure(bs, options.time)?;
            println!("{round} fio {bs}: {:.0}/s {:.1} {:.1}", f.writes_per_second, f.p50_us, f.p99_us);
        }
        let o = options.clone();
        let all = commits::on_a_spool(&dir, options.cpu, async move |spool| {
            commits::warm_up(&spool, o.size).await?;
            let mut all = vec![];
            for c in &o.committers {
                all.push(commits::measure(&spool, *c, o.size, o.time).await?);
            }
            Ok(all)
        })?;
        for f in all {
            println!("{round} spool {:4}: {:.0}/s p50 {:.1} p99 {:.1} cpu {:.1} batches {:.3} written {:.0} batch {}", f.committers, f.messages_per_second, f.p50_us, f.p99_us, f.cpu_us.unwrap_or(0.), f.batches, f.written_bytes, f.batch_bytes());
        }
    }
    drop(limit);
    std::fs::remove_dir_all(&dir)?;
    Ok(true)
}
