//! The same on a real file system, through the ring.

use super::harness::*;
use crate::*;
use ::glommio::LocalExecutorBuilder;

fn on_ring<T: Send + 'static>(body: impl AsyncFnOnce() -> T + Send + 'static) -> T {
    let executor = LocalExecutorBuilder::default();
    executor.spawn(async move || body().await).expect("io_uring is there").join().expect("it ends")
}

fn options() -> Options {
    Options { segment_bytes: 128 << 10, extent_bytes_max: 16 << 10, ..Options::default() }
}

#[test]
fn a_spool_on_disk_is_found_again_by_a_relay_and_by_a_look_from_outside() {
    let dir = tempfile::tempdir().unwrap();
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
