//! A TCP proxy that makes the way long: each direction has a delay and a window that grows as TCP's does, and may have
//! a rate, and stalls in place of lost segments.
//!
//! For each connection two threads per direction: one reads and stamps, one waits and writes. Octets leave the window
//! when an acknowledgement could have come back, twice the delay after they were read. So a connection begins slowly
//! (RFC 6928: ten segments) and doubles with each round trip, up to [`WINDOW_MAX`], as over a real way without loss.
//! What it does not show: several connections that share a bottleneck, and slow start after idleness.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// RFC 6928: ten segments.
const WINDOW_FIRST: usize = 14_600;
/// What Linux lets a socket grow to by default (tcp_wmem); bounds the memory of a connection, too.
const WINDOW_MAX: usize = 4 << 20;
const READ_OCTETS: usize = 64 << 10;
/// Reads on their way to a sink that does not take them; bounds the memory of a direction.
const PIECES_MAX: usize = 256;
/// How long a stalled segment is late: the least retransmission time-out of Linux.
const STALL: Duration = Duration::from_millis(200);
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Connections at a time; a further one is closed. Prevents threads without end.
const CONNECTIONS_MAX: u64 = 256;

/// What the way is like.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// One direction: half a round trip.
    pub delay: Duration,
    /// Octets a second of each direction of a connection; 0: no limit.
    pub rate: u64,
    /// Every so many-th read of a direction is late by 200 ms, and all behind it; 0: none.
    pub stall_every: u64,
}

/// A running proxy. Dropping it closes the listener and, with their peers, the connections.
pub struct Proxy {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on 127.0.0.1 and this port (0: a free one), and connects to `to`.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(port: u16, to: SocketAddr, way: Way) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicU64::new(0));
        let acceptor = thread::spawn({
            let (stopping, connections) = (stopping.clone(), connections.clone());
            move || accept(&listener, to, way, &stopping, &connections)
        });
        Ok(Proxy { address, stopping, connections, acceptor: Some(acceptor) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.address, CONNECT_WAIT);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, way: Way, stopping: &AtomicBool, connections: &AtomicU64) {
    let open = Arc::new(AtomicU64::new(0));
    for client in listener.incoming() {
        if stopping.load(Ordering::Relaxed) {
            return;
        }
        let Ok(client) = client else { continue };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        connections.fetch_add(1, Ordering::Relaxed);
        open.fetch_add(1, Ordering::Relaxed);
        let open = open.clone();
        thread::spawn(move || {
            let _ = carry(&client, to, way);
            let _ = client.shutdown(Shutdown::Both);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// One connection, until both directions have ended.
fn carry(client: &TcpStream, to: SocketAddr, way: Way) -> io::Result<()> {
    // SYN, its answer and the ACK: the server learns of the connection after one and a half round trips.
    thread::sleep(3 * way.delay);
    let server = TcpStream::connect_timeout(&to, CONNECT_WAIT)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (there, back) = ((client.try_clone()?, server.try_clone()?), (server, client.try_clone()?));
    let there = thread::spawn(move || direct(there.0, there.1, way));
    direct(back.0, back.1, way);
    let _ = there.join();
    Ok(())
}

/// One direction, until its source ends or its sink is gone.
fn direct(mut from: TcpStream, to: TcpStream, way: Way) {
    let (pieces, waiting) = mpsc::sync_channel(PIECES_MAX);
    let writer = thread::spawn(move || write(to, &waiting));
    let _ = read(&mut from, &pieces, way);
    drop(pieces);
    let _ = writer.join();
    let _ = from.shutdown(Shutdown::Read);
}

type Piece = (Instant, Vec<u8>);

fn read(from: &mut TcpStream, pieces: &SyncSender<Piece>, way: Way) -> io::Result<()> {
    let mut buffer = vec![0; READ_OCTETS];
    let mut flying: VecDeque<(Instant, usize)> = VecDeque::new();
    let (mut window, mut in_flight, mut reads) = (WINDOW_FIRST, 0, 0_u64);
    let mut free_at = Instant::now();
    loop {
        let room = window.saturating_sub(in_flight).min(READ_OCTETS);
        let len = if room == 0 { 0 } else { from.read(&mut buffer[..room])? };
        if room > 0 && len == 0 {
            return Ok(());
        }
        let now = Instant::now();
        if len > 0 {
            reads += 1;
            let takes = if way.rate == 0 { 0.0 } else { len as f64 / way.rate as f64 };
            free_at = free_at.max(now) + Duration::from_secs_f64(takes);
            if way.stall_every > 0 && reads.is_multiple_of(way.stall_every) {
                free_at += STALL;
            }
            in_flight += len;
            flying.push_back((free_at + 2 * way.delay, len));
            if pieces.send((free_at + way.delay, buffer[..len].to_vec())).is_err() {
                return Ok(());
            }
        }
        if room == len
            && let Some((at, _)) = flying.front()
        {
            thread::sleep(at.saturating_duration_since(now));
        }
        let now = Instant::now();
        while let Some(&(_, len)) = flying.front().filter(|(at, _)| *at <= now) {
            flying.pop_front();
            // Slow start: each octet that was acknowledged lets another one fly besides.
            if in_flight * 2 >= window {
                window = (window + len).min(WINDOW_MAX);
            }
            in_flight -= len;
        }
    }
}

fn write(mut to: TcpStream, pieces: &Receiver<Piece>) {
    while let Ok((due, octets)) = pieces.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&octets).is_err() {
            // The reader sees its end at the next read.
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(20);

    /// Sends back what it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().take(8) {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(len) = stream.read(&mut buffer) {
                        if len == 0 || stream.write_all(&buffer[..len]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    fn way(stall_every: u64, rate: u64) -> Way {
        Way { delay: DELAY, rate, stall_every }
    }

    fn round_trip(stream: &mut TcpStream, octets: usize) -> Duration {
        let start = Instant::now();
        let sent: Vec<u8> = (0..octets).map(|at| (at % 251) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writing = thread::spawn(move || writer.write_all(&copy).unwrap());
        let mut got = vec![0; octets];
        stream.read_exact(&mut got).unwrap();
        writing.join().unwrap();
        assert!(got == sent, "octets were changed");
        start.elapsed()
    }

    #[test]
    fn a_round_trip_takes_twice_the_delay_and_connecting_two_round_trips() {
        let proxy = Proxy::start(0, echo(), way(0, 0)).unwrap();
        let start = Instant::now();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        round_trip(&mut stream, 1);
        assert!(start.elapsed() >= 5 * DELAY, "{:?}", start.elapsed());
        for _ in 0..5 {
            let took = round_trip(&mut stream, 100);
            assert!(took >= 2 * DELAY, "{took:?}");
        }
        assert_eq!(proxy.connections(), 1);
    }

    /// 14,600 octets, then twice as many with each round trip: 300,000 octets need at least four more of them.
    #[test]
    fn a_connection_begins_slowly_and_every_octet_arrives() {
        let proxy = Proxy::start(0, echo(), way(0, 0)).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        let slow = round_trip(&mut stream, 300_000);
        assert!(slow >= 2 * DELAY + 4 * 2 * DELAY, "{slow:?}");
        round_trip(&mut stream, 3_000_000);
    }

    #[test]
    fn stalls_and_rates_take_their_time() {
        let proxy = Proxy::start(0, echo(), way(2, 0)).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        round_trip(&mut stream, 10);
        assert!(round_trip(&mut stream, 10) >= STALL, "every second read stalls");
        let proxy = Proxy::start(0, echo(), way(0, 100_000)).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        assert!(round_trip(&mut stream, 20_000) >= Duration::from_millis(200));
    }

    #[test]
    fn the_end_of_either_side_is_carried() {
        let proxy = Proxy::start(0, echo(), way(0, 0)).unwrap();
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.write_all(b"last").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"last");
    }
}
