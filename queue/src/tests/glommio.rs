//! The same on a real file system, through the ring.

use super::harness::*;
use crate::*;
use ::glommio::LocalExecutorBuilder;

pub fn on_ring<T: Send + 'static>(body: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let executor = LocalExecutorBuilder::default();
    executor.spawn(async move || body().await).expect("io_uring is there").join().expect("it ends")
}

fn options() -> Options {
    Options { segment_bytes: 128 << 10, extent_bytes_max: 16 << 10, ..Options::default() }
}

#[test]
fn a_spool_on_disk_is_found_again_by_a_relay_and_by_a_look_from_outside() {
    found_again(tempfile::tempdir().unwrap());
}

/// No direct I/O there; glommio goes without it by itself.
#[test]
fn a_spool_on_tmpfs_is_found_again_too() {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(dir) => found_again(dir),
        Err(error) => eprintln!("SKIPPED: /dev/shm cannot be used: {error}"),
    }
}

#[test]
fn a_hundred_sessions_share_writes_on_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard-0003");
    on_ring(async move || {
        let storage = GlommioStorage::new(&path).unwrap();
        let (spool, _) =
            Spool::open(storage, number(), Options { segment_bytes: 4 << 20, ..Options::default() })
                .await
                .unwrap();
        let writer = ::glommio::spawn_local({
            let spool = spool.clone();
            async move { spool.writer().await }
        });
        let sessions: Vec<_> = (0..100u64)
            .map(|session| {
                let spool = spool.clone();
                ::glommio::spawn_local(async move {
                    for round in 0..20 {
                        let octets = content(session * 100 + round, 4096);
                        let id = deliver_in(&spool, &octets, 1).await.unwrap().id;
                        assert_eq!(read_all(&spool, id).await.unwrap(), octets);
                        spool.record(id, delivered(1));
                    }
                })
            })
            .collect();
        for session in sessions {
            session.await;
        }
        let stats = spool.stats();
        assert_eq!((stats.commits, stats.messages), (2000, 0));
        assert!(stats.batches * 4 < stats.commits, "{stats:?}");
        spool.close().await.unwrap();
        writer.await;
    });
    assert_eq!(inspect(&dir.path().join("shard-0003"), number()).unwrap().recovery.messages, 0);
}

fn found_again(dir: tempfile::TempDir) {
    let path = dir.path().join("shard-0003");
    let ids = on_ring({
        let path = path.clone();
        async move || {
            let storage = GlommioStorage::new(&path).unwrap();
            assert_eq!(
                GlommioStorage::new(&path).err().map(|error| error.kind()),
                Some(std::io::ErrorKind::WouldBlock)
            );
            let (spool, _) = Spool::open(storage, number(), options()).await.unwrap();
            let writer = ::glommio::spawn_local({
                let spool = spool.clone();
                async move { spool.writer().await }
            });
            let mut ids = Vec::new();
            for tag in 0..40u64 {
                let octets = content(tag, 10_000 * (tag as usize % 4) + 7);
                let stored = deliver_in(&spool, &octets, 1).await.unwrap();
                assert_eq!(read_all(&spool, stored.id).await.unwrap(), octets);
                ids.push((tag, stored.id));
            }
            let (finished, kept): (Vec<_>, Vec<_>) = ids.into_iter().partition(|(tag, _)| *tag < 30);
            finished.iter().for_each(|(_, id)| spool.record(*id, delivered(1)));
            spool.sync().await.unwrap();
            drop(spool);
            drop(writer);
            kept
        }
    });
    let look = inspect(&path, number()).unwrap();
    assert_eq!(look.recovery.damages, []);
    assert_eq!(look.live(None, 99), ids.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    on_ring(async move || {
        let storage = GlommioStorage::new(&path).unwrap();
        let (spool, recovery) = Spool::open(storage, number(), options()).await.unwrap();
        assert_eq!((recovery.messages, recovery.damages), (ids.len(), vec![]));
        for (tag, id) in ids {
            let octets = content(tag, 10_000 * (tag as usize % 4) + 7);
            assert_eq!(read_all(&spool, id).await.unwrap(), octets);
        }
        spool.close().await.unwrap();
    });
}
