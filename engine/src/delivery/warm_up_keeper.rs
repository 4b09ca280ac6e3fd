//! Keeps what source addresses that are warmed up have sent today over a restart.
//!
//! The counts are the file `warm-up.json` in the spool's directory. It is read before the shards start, written on the
//! service thread a second after a change at the latest, and by the main thread when the last message has ended; a
//! crash loses that second. It is written whole beside the old one and put in its place by a rename. A file that
//! cannot be used is said so, and the day begins anew.

use super::shard::Common;
use super::warm_up::WarmUps;
use crate::config::Config;
use crate::mta_sts::keeper::write_whole;
use crate::observe::log;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// The file in the spool's directory.
const FILE: &str = "warm-up.json";
/// A longer one is not read: that would be ten thousand addresses.
const FILE_OCTETS_MAX: u64 = 1 << 20;
/// How often what has changed is written, and what a crash loses at most.
const WRITE_PAUSE: Duration = Duration::from_secs(1);
/// At the stop: a disk that hangs does not hold it up.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

pub struct WarmUpKeeper {
    common: Arc<Common>,
    path: PathBuf,
    /// What the file has. One writes at a time.
    written: Mutex<Vec<u8>>,
}

impl WarmUpKeeper {
    /// Takes over what an earlier run has counted. `None` where no address is warmed up.
    pub fn open(config: &Config, common: &Arc<Common>) -> Option<Arc<Self>> {
        if common.warm_ups.is_empty() {
            return None;
        }
        let path = config.spool.path.join(FILE);
        read(&path, &common.warm_ups);
        let written = Mutex::new(common.warm_ups.encode());
        Some(Arc::new(Self { common: common.clone(), path, written }))
    }

    /// As long as the relay runs.
    pub async fn write_changes(self: Arc<Self>) {
        let mut told = false;
        loop {
            tokio::time::sleep(WRITE_PAUSE).await;
            let keeper = self.clone();
            match tokio::task::spawn_blocking(move || keeper.write()).await {
                Ok(Err(error)) if !told => {
                    told = true;
                    log::note("service", &format!("warning: {}: {error}", self.path.display()));
                }
                Ok(Ok(())) => told = false,
                _ => {}
            }
        }
    }

    /// Writes what was counted since.
    fn write(&self) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let octets = self.common.warm_ups.encode();
        if *written != octets {
            write_whole(&self.path, &octets)?;
            *written = octets;
        }
        Ok(())
    }

    /// Writes what would be lost at the stop.
    pub fn write_last(self: &Arc<Self>) {
        let (keeper, (done, is_done)) = (self.clone(), mpsc::channel());
        let started = std::thread::Builder::new().name("warm-up".into()).spawn(move || {
            let _ = done.send(keeper.write());
        });
        let ended = started.and_then(|_| {
            is_done.recv_timeout(STOP_PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        });
        if let Err(error) = ended {
            log::note("main", &format!("warning: {}: {error}", self.path.display()));
        }
    }
}

fn read(path: &Path, warm_ups: &WarmUps) {
    let mut octets = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(FILE_OCTETS_MAX + 1).read_to_end(&mut octets));
    let restored = match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => Err(error.to_string()),
        Ok(len) if len as u64 > FILE_OCTETS_MAX => Err("it is too long".into()),
        Ok(_) => warm_ups.restore(&octets),
    };
    if let Err(error) = restored {
        let path = path.display();
        log::note("main", &format!("warning: {path}: {error}; [[warm_up]] counts today's messages anew"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::wall_micros;
    use crate::config::WarmUp;
    use std::net::IpAddr;

    const SOURCE: &str = "192.0.2.1";

    fn config(spool: &Path) -> Config {
        let mut config = Config::demonstration();
        config.spool.path = spool.to_owned();
        let source = SOURCE.parse().unwrap();
        config.warm_ups = vec![WarmUp { source, began_day: 0, schedule: vec![5; 400 * 366] }];
        config
    }

    fn sends(common: &Common, tries: usize) -> usize {
        let source: IpAddr = SOURCE.parse().unwrap();
        (0..tries).filter(|_| common.warm_ups.take(source, wall_micros())).count()
    }

    #[test]
    fn a_run_goes_on_where_the_last_one_wrote_and_a_file_that_is_damaged_is_none() {
        let spool = std::env::temp_dir().join(format!("sluice-warm-up-{}", std::process::id()));
        std::fs::create_dir_all(&spool).unwrap();
        let config = config(&spool);
        let file = spool.join(FILE);
        let open = || {
            let common = Common::new(&config);
            (WarmUpKeeper::open(&config, &common).expect("an address is warmed up"), common)
        };
        let (keeper, common) = open();
        keeper.write().unwrap();
        assert!(!file.exists(), "nothing was sent");
        assert_eq!(sends(&common, 2), 2);
        keeper.write().unwrap();
        assert_eq!(sends(&common, 1), 1);
        let (keeper, after_a_crash) = open();
        assert_eq!(sends(&after_a_crash, 9), 3, "what was not written is lost, and no more");
        keeper.write_last();
        assert_eq!(sends(&open().1, 9), 0);
        assert!(!spool.join("warm-up.new").exists());
        std::fs::write(&file, b"{\"version\":1,\"addr").unwrap();
        let (keeper, common) = open();
        assert_eq!(sends(&common, 9), 5);
        keeper.write().unwrap();
        assert_eq!(sends(&open().1, 9), 0, "it is whole again");
        std::fs::write(&file, vec![b' '; FILE_OCTETS_MAX as usize + 1]).unwrap();
        assert_eq!(sends(&open().1, 9), 5);
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        let (keeper, common) = open();
        assert_eq!(sends(&common, 9), 5);
        assert!(keeper.write().is_err());
        let mut none = config.clone();
        none.warm_ups.clear();
        assert!(WarmUpKeeper::open(&none, &Common::new(&none)).is_none());
        std::fs::remove_dir_all(&spool).unwrap();
    }
}
