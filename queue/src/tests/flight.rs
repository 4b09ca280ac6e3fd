//! Several batches in flight: the device finishes them in any order, stops between any two, or fails one.

use super::harness::*;
use crate::*;
use futures_lite::future::{block_on, or, poll_once, yield_now};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

/// Storage on which batches land when the test says so. Headers and seals land at once.
#[derive(Clone, Default)]
struct Held {
    memory: MemoryStorage,
    writes: Rc<RefCell<Vec<HeldWrite>>>,
    holding: Rc<Cell<bool>>,
    /// Nothing can be created.
    broken: Rc<Cell<bool>>,
}

struct HeldWrite {
    landed: Rc<Cell<Option<bool>>>,
    file: Rc<<MemoryStorage as Storage>::File>,
    position: u64,
    octets: Vec<u8>,
}

struct HeldFile {
    file: Rc<<MemoryStorage as Storage>::File>,
    storage: Held,
}

impl Held {
    fn in_flight(&self) -> usize {
        self.writes.borrow().len()
    }

    /// The device is done with the write number `at`.
    async fn land(&self, at: usize) {
        let (file, position, octets, landed) = {
            let writes = self.writes.borrow();
            let write = &writes[at];
            (write.file.clone(), write.position, write.octets.clone(), write.landed.clone())
        };
        file.write(position, octets).await.unwrap();
        landed.set(Some(true));
    }

    fn fail(&self, at: usize) {
        self.writes.borrow()[at].landed.set(Some(false));
    }
}

impl Storage for Held {
    type File = HeldFile;

    async fn list(&self) -> io::Result<Vec<u32>> {
        self.memory.list().await
    }

    async fn create(&self, slot: u32, bytes: u64) -> io::Result<HeldFile> {
        if self.broken.get() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let file = Rc::new(self.memory.create(slot, bytes).await?);
        Ok(HeldFile { file, storage: self.clone() })
    }

    async fn open(&self, slot: u32) -> io::Result<HeldFile> {
        Ok(HeldFile { file: Rc::new(self.memory.open(slot).await?), storage: self.clone() })
    }

    async fn remove(&self, slot: u32) -> io::Result<()> {
        self.memory.remove(slot).await
    }

    async fn sync_dir(&self) -> io::Result<()> {
        self.memory.sync_dir().await
    }
}

impl SegmentFile for HeldFile {
    type Buffer = Vec<u8>;
    type Bytes = Vec<u8>;

    fn buffer(&self, len: usize) -> Vec<u8> {
        self.file.buffer(len)
    }

    async fn write(&self, position: u64, octets: Vec<u8>) -> io::Result<()> {
        if !self.storage.holding.get() {
            return self.file.write(position, octets).await;
        }
        let landed = Rc::new(Cell::new(None));
        let write = HeldWrite { landed: landed.clone(), file: self.file.clone(), position, octets };
        self.storage.writes.borrow_mut().push(write);
        loop {
            match landed.get() {
                Some(true) => return Ok(()),
                Some(false) => return Err(io::Error::from_raw_os_error(libc::EIO)),
                None => yield_now().await,
            }
        }
    }

    async fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        self.file.read(position, len).await
    }

    async fn size(&self) -> io::Result<u64> {
        self.file.size().await
    }
}

const BATCHES: usize = 3;

type Answers = Rc<RefCell<Vec<Result<QueueId, CommitError>>>>;

/// Gives everybody the turns that they need to come to rest.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

/// Three messages in three batches, all in flight; `then` is told what has been answered when it asks.
fn three_in_flight(then: impl AsyncFnOnce(Held, Answers, Spool<Held>)) {
    let storage = Held::default();
    let (spool, _) = block_on(Spool::open(storage.clone(), number(), small())).unwrap();
    let answers = Rc::new(RefCell::new(Vec::new()));
    let commits = async {
        // The header of the first segment is written before anything is held.
        deliver_in(&spool, b"first", 1).await.unwrap();
        storage.holding.set(true);
        let mut commits: Vec<_> = (0..BATCHES as u64)
            .map(|at| {
                let (spool, answers) = (spool.clone(), answers.clone());
                Box::pin(async move {
                    let stored = deliver_in(&spool, &content(at, 6000), 1).await;
                    answers.borrow_mut().push(stored.map(|stored| stored.id));
                })
            })
            .collect();
        for (at, commit) in commits.iter_mut().enumerate() {
            // One after the other, so that each is a batch of its own.
            while storage.in_flight() <= at {
                assert!(poll_once(&mut *commit).await.is_none());
                yield_now().await;
            }
        }
        let commits = commits.into_iter().map(|commit| commit as std::pin::Pin<Box<dyn Future<Output = ()>>>);
        let body = then(storage.clone(), answers.clone(), spool.clone());
        let all = together(commits.collect());
        or(async { drop((all.await, std::future::pending::<()>().await)) }, body).await;
    };
    with_writer(&spool, commits);
}

fn orders() -> Vec<[usize; BATCHES]> {
    vec![[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
}

#[test]
fn whoever_waits_is_told_in_the_order_of_the_log_whatever_the_order_of_the_device() {
    for order in orders() {
        three_in_flight(async |storage, answers, spool| {
            let mut landed = [false; BATCHES];
            for at in order {
                storage.land(at).await;
                landed[at] = true;
                settle().await;
                let durable = landed.iter().take_while(|landed| **landed).count();
                assert_eq!(answers.borrow().len(), durable, "{order:?}, {landed:?}");
                assert_eq!(spool.messages(), 1 + durable, "the index knows what is durable with all before");
            }
            let ids: Vec<_> = answers.borrow().iter().map(|answer| answer.clone().unwrap()).collect();
            assert!(ids.is_sorted() && spool.live(None, 9)[1..] == ids, "{order:?}");
        });
    }
}

#[test]
fn a_stop_after_any_of_them_leaves_all_that_was_acknowledged_and_a_prefix() {
    for order in orders() {
        for count in 0..=BATCHES {
            three_in_flight(async |storage, answers, _| {
                for at in &order[..count] {
                    storage.land(*at).await;
                }
                settle().await;
                let acknowledged = answers.borrow().len();
                let (spool, recovery) =
                    Spool::open(storage.memory.snapshot(), number(), small()).await.unwrap();
                assert_eq!(recovery.damages, [], "{order:?}, {count} landed");
                let prefix = (0..BATCHES).take_while(|at| order[..count].contains(at)).count();
                assert_eq!(
                    (spool.messages(), acknowledged),
                    (1 + prefix, prefix),
                    "{order:?}, {count} landed"
                );
                for (at, id) in spool.live(None, 9)[1..].iter().enumerate() {
                    assert!(read_all(&spool, *id).await.unwrap() == content(at as u64, 6000));
                }
            });
        }
    }
}

#[test]
fn the_failure_of_one_in_flight_acknowledges_none_of_those_behind_and_takes_nothing_more() {
    for failing in 0..BATCHES {
        for before in 0..=failing {
            three_in_flight(async |storage, answers, spool| {
                for at in 0..before {
                    storage.land(at).await;
                }
                settle().await;
                // Those behind are done; they must not be taken for acknowledged.
                for at in failing + 1..BATCHES {
                    storage.land(at).await;
                }
                storage.fail(failing);
                settle().await;
                let answers = answers.take();
                let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.is_ok());
                assert_eq!((good.len(), bad.len()), (before, BATCHES - before), "{failing} {before}");
                let all_poisoned = bad.iter().all(|bad| matches!(bad, Err(CommitError::Poisoned(_))));
                assert!(all_poisoned && spool.fault().is_some());
                let writes = storage.in_flight();
                assert!(deliver_in(&spool, b"x", 1).await.is_err());
                assert_eq!(storage.in_flight(), writes, "nothing was tried again");
            });
        }
    }
}

#[test]
fn a_small_batch_gathers_until_those_in_flight_have_landed_and_a_close_waits_for_all() {
    three_in_flight(async |storage, answers, spool| {
        let little = deliver_in(&spool, b"little", 1);
        let closing = async {
            settle().await;
            assert_eq!(storage.in_flight(), BATCHES, "too small to join");
            for at in [2, 0, 1] {
                storage.land(at).await;
            }
            while storage.in_flight() == BATCHES {
                yield_now().await;
            }
            assert_eq!(answers.borrow().len(), BATCHES);
            storage.holding.set(false);
            storage.land(BATCHES).await;
        };
        let (little, ()) = futures_lite::future::zip(little, closing).await;
        little.unwrap();
        spool.close().await.unwrap();
        let (_, recovery) = Spool::open(storage.memory.snapshot(), number(), small()).await.unwrap();
        assert_eq!((recovery.cut, recovery.damages.len()), (None, 0), "sealed behind all of them");
    });
}

/// Segments are created for reservations, beside the writer. Before, the next write that landed found its
/// waiters gone and ended the shard.
#[test]
fn what_is_in_flight_when_something_else_fails_is_told_and_harms_nobody_when_it_lands() {
    for order in orders() {
        for before in 0..=BATCHES {
            three_in_flight(async |storage, answers, spool| {
                for at in &order[..before] {
                    storage.land(*at).await;
                }
                settle().await;
                let durable = answers.borrow().len();
                storage.broken.set(true);
                let failed = spool.reserve(1 << 20, 100).await;
                assert!(matches!(failed, Err(CommitError::Poisoned(_))));
                settle().await;
                assert_eq!(answers.borrow().len(), BATCHES, "nobody waits any longer");
                for at in &order[before..] {
                    storage.land(*at).await;
                    settle().await;
                }
                let good = answers.borrow().iter().filter(|answer| answer.is_ok()).count();
                assert_eq!((good, spool.messages()), (durable, 1 + durable), "{order:?} {before}");
                let (spool, recovery) =
                    Spool::open(storage.memory.snapshot(), number(), small()).await.unwrap();
                assert_eq!((recovery.damages.len(), spool.messages()), (0, 1 + BATCHES));
            });
        }
    }
}

/// The same while the writer takes another segment into use: what waits for it is not written any more.
#[test]
fn a_batch_that_waits_for_a_segment_when_something_else_fails_is_not_written() {
    let storage = Held::default();
    let (spool, _) = block_on(Spool::open(storage.clone(), number(), small())).unwrap();
    with_writer(&spool, async {
        let mut before = Vec::new();
        while spool.left_in_active() != 0 || before.is_empty() {
            let left = spool.left_in_active() as usize;
            if (1..16 << 10).contains(&left) {
                break;
            }
            before.push(deliver_in(&spool, &content(1, 7000), 1).await.unwrap().id);
        }
        storage.holding.set(true);
        let octets = content(2, 20_000);
        let mut commit = Box::pin(deliver_in(&spool, &octets, 1));
        let (mut landed, mut header) = (0, false);
        // The seal, then the header of the next segment: while that is written something else fails.
        while !header {
            assert!(poll_once(&mut commit).await.is_none());
            settle().await;
            if storage.in_flight() > landed {
                header = storage.writes.borrow()[landed].position == 0;
                if header {
                    spool.poison(Fault::new("a test", &io::Error::from_raw_os_error(libc::EIO)));
                }
                storage.land(landed).await;
                landed += 1;
            }
        }
        settle().await;
        assert!(matches!(commit.await, Err(CommitError::Poisoned(_))));
        assert_eq!(
            (storage.in_flight(), spool.live(None, 99)),
            (landed, before),
            "no batch behind the header"
        );
    });
}
