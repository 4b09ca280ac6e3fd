//! A tiny executor and short ways to say what the scenarios do.

use super::indexes::compare_readings;
use crate::*;
use futures_lite::future::{block_on, or, pending, poll_fn};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

pub fn number() -> SpoolNumber {
    SpoolNumber::new(3).unwrap()
}

pub fn small() -> Options {
    Options {
        segment_bytes: 64 << 10,
        extent_bytes_max: 8 << 10,
        batch_bytes_max: 32 << 10,
        spare_segments: 1,
        idle_segments_max: 8,
        ..Options::default()
    }
}

/// Runs `body` while the spool's writer runs beside it.
pub fn with_writer<S: Storage, T>(spool: &Spool<S>, body: impl Future<Output = T>) -> T {
    let writer = async {
        spool.writer().await;
        pending().await
    };
    block_on(or(writer, body))
}

/// Opens the spool and runs `body` on it beside the writer. Before, it is opened by indexes and by batches,
/// which must come to the same.
pub fn opened<S: Storage, T, B>(storage: S, options: Options, body: impl FnOnce(Spool<S>, Recovery) -> B) -> T
where
    B: Future<Output = T>,
{
    compare_readings(&storage);
    let (spool, recovery) = block_on(Spool::open(storage, number(), options)).expect("it opens");
    with_writer(&spool.clone(), body(spool, recovery))
}

/// Runs all of them together and gives what they give, in their order.
pub async fn together<'a, T: 'a>(futures: Vec<Pin<Box<dyn Future<Output = T> + 'a>>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Some).collect();
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if let Some(running) = future
                && let Poll::Ready(value) = running.as_mut().poll(context)
            {
                *result = Some(value);
                *future = None;
            }
        }
        match futures.iter().all(Option::is_none) {
            true => Poll::Ready(results.drain(..).flatten().collect()),
            false => Poll::Pending,
        }
    })
    .await
}

pub fn envelope(recipients: usize) -> Arc<Envelope> {
    Arc::new(Envelope {
        sender: "sender@out.example".into(),
        recipients: (0..recipients).map(|at| Recipient::new(format!("person{at}@winery.example"))).collect(),
        body: Body::SevenBit,
        arrived_micros: 1_795_000_000_000_000,
        listener: "outside".into(),
        helo: "mx.out.example".into(),
        client: "203.0.113.9".into(),
        ..Envelope::default()
    })
}

/// Octets that tell a message, and a place in it, from any other.
pub fn content(tag: u64, bytes: usize) -> Vec<u8> {
    let mut octets = Vec::with_capacity(bytes + 16);
    while octets.len() < bytes {
        let place = octets.len() as u64;
        octets.extend_from_slice(&tag.to_le_bytes());
        octets.extend_from_slice(&(place ^ tag.rotate_left(17)).to_le_bytes());
    }
    octets.truncate(bytes);
    octets
}

pub const NOW: u64 = 1_795_000_000_000_000;

pub async fn deliver_in<S: Storage>(
    spool: &Spool<S>,
    octets: &[u8],
    recipients: usize,
) -> Result<Stored, CommitError> {
    let mut draft = spool.begin(NOW);
    for piece in octets.chunks(5000) {
        spool.append(&mut draft, piece).await?;
    }
    spool.commit(draft, envelope(recipients), ContentFlags::default()).await
}

pub async fn read_all<S: Storage>(spool: &Spool<S>, id: QueueId) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    loop {
        let more = spool.read(id, all.len() as u64, usize::MAX).await?;
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

pub fn outcome(recipient: u32, kind: OutcomeKind) -> Outcome {
    Outcome { recipient, kind, attempts: 1, notified: false, at_micros: NOW, text: format!("{kind:?}") }
}

pub fn delivered(recipients: usize) -> Vec<Outcome> {
    (0..recipients as u32).map(|at| outcome(at, OutcomeKind::Delivered)).collect()
}
