//! The attackers: one thread with a tokio runtime, a small task for each connection.
//!
//! Idle and slow ones come from many addresses, as from a botnet, the flood of connections from a single one. A
//! connection that the relay ends is opened again after a second. All close with a reset, so that no port of theirs
//! waits in TIME_WAIT.
//!
//! The thread runs at nice 19: attackers would be other machines, and are not to take the CPU that relay and normal
//! client share.

use serde::Serialize;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{interval, sleep, timeout};

/// The address that floods.
const FLOODER: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 1);
/// Connections that ask for recipients, each from an address of its own.
const GUESSERS: usize = 20;
/// Recipients in one group (RFC 2920).
const GROUP: usize = 10;
/// Connections are opened over this time.
const OPENING: Duration = Duration::from_secs(8);
const AGAIN: Duration = Duration::from_secs(1);
const ATTEMPT: Duration = Duration::from_secs(5);
/// Attempts of the flood that may be open at a time; more are not made, and counted as not made.
const ATTEMPTS_MAX: usize = 2_000;

/// How much of each attack.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub idle: usize,
    pub slow: usize,
    /// Attempts a second.
    pub connects: usize,
    /// Recipients a second.
    pub recipients: usize,
}

/// What the attackers did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    /// Idle and slow connections that stand now.
    pub held: u64,
    /// Idle and slow ones that the relay ended or refused.
    pub ended: u64,
    /// Octets of content that slow ones sent.
    pub octets: u64,
    /// Attempts of the flood that were greeted, refused with a reply, and failed otherwise.
    pub greeted: u64,
    pub refused: u64,
    pub failed: u64,
    /// Recipients refused.
    pub recipients: u64,
}

impl Counts {
    /// What was counted since; `held` is as it is now.
    pub fn since(self, before: &Counts) -> Counts {
        Counts {
            held: self.held,
            ended: self.ended - before.ended,
            octets: self.octets - before.octets,
            greeted: self.greeted - before.greeted,
            refused: self.refused - before.refused,
            failed: self.failed - before.failed,
            recipients: self.recipients - before.recipients,
        }
    }
}

#[derive(Default)]
struct Shared {
    held: AtomicU64,
    ended: AtomicU64,
    octets: AtomicU64,
    greeted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    recipients: AtomicU64,
    over: Notify,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The calling thread takes what CPU the others leave (nice 19). Told by its number: the library has no such call.
fn yield_to_others() {
    let task = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    let number = task.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let done = std::process::Command::new("renice")
        .args(["-n", "19", "-p", &number])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status();
    if !done.is_ok_and(|status| status.success()) {
        eprintln!("the attackers cannot be given nice 19 (renice); they compete with the relay for the CPU");
    }
}

/// A running attack. Dropping it resets all its connections.
pub struct Attack {
    scale: Scale,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    pub fn start(target: SocketAddr, scale: Scale, addresses: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new().name("attack".into()).spawn({
            let shared = shared.clone();
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a runtime");
                yield_to_others();
                runtime.block_on(async {
                    spawn_all(target, scale, addresses, &shared);
                    shared.over.notified().await;
                });
            }
        });
        Self { scale, shared, thread: Some(thread.expect("a thread")) }
    }

    /// Whether all connections stand that are to be held, or the relay has begun to refuse them.
    pub fn is_complete(&self) -> bool {
        let counts = self.counts();
        counts.held + counts.ended >= (self.scale.idle + self.scale.slow) as u64
    }

    pub fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        Counts {
            held: of(&shared.held),
            ended: of(&shared.ended),
            octets: of(&shared.octets),
            greeted: of(&shared.greeted),
            refused: of(&shared.refused),
            failed: of(&shared.failed),
            recipients: of(&shared.recipients),
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.shared.over.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The n-th address of the botnet, within 127.100.0.0/14.
fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 100, (number / 250) as u8, (1 + number % 250) as u8)
}

fn spawn_all(target: SocketAddr, scale: Scale, addresses: usize, shared: &Arc<Shared>) {
    let held = scale.idle + scale.slow;
    for number in 0..held {
        let (from, shared) = (address(number % addresses), shared.clone());
        // In mixed order, so that the slow ones do not come last.
        let slow = number * scale.slow / held != (number + 1) * scale.slow / held;
        let begin = OPENING.mul_f64(number as f64 / held as f64);
        tokio::spawn(async move {
            sleep(begin).await;
            loop {
                let _ = match slow {
                    true => send_slowly(target, from, &shared).await,
                    false => stay_idle(target, from, &shared).await,
                };
                count(&shared.ended);
                sleep(AGAIN).await;
            }
        });
    }
    if scale.connects > 0 {
        tokio::spawn(flood(target, scale.connects, shared.clone()));
    }
    if scale.recipients > 0 {
        for number in 0..GUESSERS {
            let each = Duration::from_secs_f64((GUESSERS * GROUP) as f64 / scale.recipients as f64);
            let (from, shared) = (address(addresses + number), shared.clone());
            tokio::spawn(async move {
                let mut pace = interval(each);
                loop {
                    let _ = guess(target, from, &mut pace, &shared).await;
                    pace.tick().await;
                }
            });
        }
    }
}

async fn connect(target: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_zero_linger()?;
    socket.bind((from, 0).into())?;
    timeout(ATTEMPT, socket.connect(target)).await?
}

/// Counts a connection as held while it lives.
struct Held<'a>(&'a Shared);

impl<'a> Held<'a> {
    fn new(shared: &'a Shared) -> Self {
        count(&shared.held);
        Self(shared)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn stay_idle(target: SocketAddr, from: Ipv4Addr, shared: &Shared) -> io::Result<()> {
    let mut stream = connect(target, from).await?;
    let mut buffer = [0; 128];
    if stream.read(&mut buffer).await? == 0 || !buffer.starts_with(b"220") {
        return Ok(());
    }
    let _held = Held::new(shared);
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn send_slowly(target: SocketAddr, from: Ipv4Addr, shared: &Shared) -> io::Result<()> {
    let mut stream = connect(target, from).await?;
    let mut lines = Lines::default();
    lines.until(&mut stream, b"220 ").await?;
    stream.write_all(b"EHLO slow.example\r\n").await?;
    lines.until(&mut stream, b"250 ").await?;
    stream.write_all(b"MAIL FROM:<slow@source.example>\r\nRCPT TO:<slow@sink.example>\r\nDATA\r\n").await?;
    lines.until(&mut stream, b"354 ").await?;
    let _held = Held::new(shared);
    let (mut reading, mut writing) = stream.split();
    let mut buffer = [0; 128];
    let mut second = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = second.tick() => {
                writing.write_all(b"x").await?;
                count(&shared.octets);
            }
            read = reading.read(&mut buffer) => if read? == 0 { return Ok(()) },
        }
    }
}

async fn flood(target: SocketAddr, connects: usize, shared: Arc<Shared>) {
    const TICKS: usize = 100;
    let open = Arc::new(Semaphore::new(ATTEMPTS_MAX));
    let mut tick = interval(Duration::from_secs(1) / TICKS as u32);
    let mut made = 0;
    for number in 1_usize.. {
        tick.tick().await;
        while made < number * connects / TICKS {
            made += 1;
            let Ok(place) = open.clone().try_acquire_owned() else {
                count(&shared.failed);
                continue;
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                match timeout(ATTEMPT, attempt(target)).await {
                    Ok(Ok(true)) => count(&shared.greeted),
                    Ok(Ok(false)) => count(&shared.refused),
                    _ => count(&shared.failed),
                }
                drop(place);
            });
        }
    }
}

/// Whether the attempt was greeted with 220; false for another reply.
async fn attempt(target: SocketAddr) -> io::Result<bool> {
    let mut stream = connect(target, FLOODER).await?;
    let mut buffer = [0; 128];
    match stream.read(&mut buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(buffer.starts_with(b"220")),
    }
}

/// One connection that asks for recipients until it is ended.
async fn guess(
    target: SocketAddr,
    from: Ipv4Addr,
    pace: &mut tokio::time::Interval,
    shared: &Shared,
) -> io::Result<()> {
    let mut stream = connect(target, from).await?;
    let mut lines = Lines::default();
    lines.until(&mut stream, b"220 ").await?;
    stream.write_all(b"EHLO guess.example\r\n").await?;
    lines.until(&mut stream, b"250 ").await?;
    stream.write_all(b"MAIL FROM:<guess@source.example>\r\n").await?;
    lines.until(&mut stream, b"250 ").await?;
    loop {
        pace.tick().await;
        stream.write_all(b"RCPT TO:<guess@elsewhere.example>\r\n".repeat(GROUP).as_slice()).await?;
        for _ in 0..GROUP {
            lines.until(&mut stream, b"5").await?;
            count(&shared.recipients);
        }
    }
}

/// Replies, line by line.
#[derive(Default)]
struct Lines {
    buffer: Vec<u8>,
}

impl Lines {
    /// Reads up to and with the next line that begins so; 421 ends.
    async fn until(&mut self, stream: &mut TcpStream, beginning: &[u8]) -> io::Result<()> {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.starts_with(beginning) {
                    return Ok(());
                }
                if line.starts_with(b"421") {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn idle_connections_are_held_and_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut open = Vec::new();
            for _ in 0..3 {
                let (mut stream, peer) = listener.accept().unwrap();
                std::io::Write::write_all(&mut stream, b"220 x\r\n").unwrap();
                assert_eq!(peer.ip().to_string().split('.').nth(1), Some("100"));
                open.push(stream);
            }
            // The end of the attack resets them.
            open.iter_mut().all(|stream| !matches!(std::io::Read::read(stream, &mut [0; 8]), Ok(1..)))
        });
        let scale = Scale { idle: 3, slow: 0, connects: 0, recipients: 0 };
        let attack = Attack::start(target, scale, 2);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while attack.counts().held < 3 {
            assert!(std::time::Instant::now() < deadline, "{:?}", attack.counts());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(attack.is_complete());
        drop(attack);
        assert!(server.join().unwrap());
    }

    #[test]
    fn addresses_of_the_botnet_differ() {
        let mut all: Vec<Ipv4Addr> = (0..60_000).map(address).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 60_000);
        assert!(all.iter().all(|address| address.octets()[..2] == [127, 100]));
    }
}
