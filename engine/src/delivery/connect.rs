//! From addresses of one rank to one TCP connection: the addresses are raced (RFC 8305 section 5), from the
//! route's source addresses.
//!
//! Lives on one delivery shard. An attempt starts when the one before it has failed or has not answered for
//! [`STAGGER`]; the first that stands wins and the others are closed. So a family or a host whose path
//! swallows everything costs a quarter of a second and not a whole time-out.

use super::warm_up::WarmUps;
use crate::clock::wall_micros;
use futures_lite::{AsyncWriteExt, FutureExt};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use glommio::net::TcpStream;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::{Duration, Instant};

/// How long an attempt is alone before the next one starts: the "Connection Attempt Delay" of RFC 8305.
const STAGGER: Duration = Duration::from_millis(250);

/// Attempts of one race at a time. Prevents one silent next hop from taking many descriptors.
const ATTEMPTS_AT_ONCE: usize = 4;

/// Between looks at a socket whose backlog is full.
const BACKLOG_LOOK: Duration = Duration::from_millis(50);

/// What came of a race. Indexes are those of the addresses.
#[derive(Debug, Default)]
pub struct Race {
    pub won: Option<(usize, TcpStream)>,
    pub failed: Vec<(usize, ConnectError)>,
    /// Started before the winner, and neither standing nor failed when it won.
    pub overtaken: Vec<usize>,
}

impl Race {
    /// Of one competitor.
    pub fn of_one(connected: Result<TcpStream, ConnectError>) -> Self {
        match connected {
            Ok(stream) => Self { won: Some((0, stream)), ..Self::default() },
            Err(error) => Self { failed: vec![(0, error)], ..Self::default() },
        }
    }
}

/// Why a connection did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// The system's words.
    pub reason: String,
    /// False when it failed on this side, before anything was sent.
    pub host_at_fault: bool,
}

/// The source addresses of a route, and whose turn it is.
pub struct Sources<'a> {
    pub addresses: &'a [IpAddr],
    pub turn: &'a Cell<usize>,
    /// What those that are new may still send today.
    pub warm_ups: Option<&'a WarmUps>,
}

impl Sources<'_> {
    /// The next one of that family; `None`: the kernel chooses.
    pub fn next_for(&self, destination: IpAddr) -> Option<IpAddr> {
        let of_family = || self.addresses.iter().filter(|source| source.is_ipv4() == destination.is_ipv4());
        let now = wall_micros();
        let may_send = |source: &&IpAddr| self.warm_ups.is_none_or(|all| all.allows(**source, now));
        // Another address than the route's is never taken, were all of them exhausted.
        let any_may_send = of_family().any(|source| may_send(&source));
        let of_family = || of_family().filter(|source| !any_may_send || may_send(source));
        let count = of_family().count();
        if count == 0 {
            return None;
        }
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        of_family().nth(turn % count).copied()
    }
}

/// Connects to one of the addresses, of which the first are preferred. Each attempt has `patience`.
pub async fn race(addresses: &[SocketAddr], sources: &Sources<'_>, patience: Duration) -> Race {
    let mut race = Race::default();
    let mut under_way = FuturesUnordered::new();
    let mut running = Vec::with_capacity(ATTEMPTS_AT_ONCE);
    let mut next = 0;
    loop {
        let may_start = next < addresses.len() && under_way.len() < ATTEMPTS_AT_ONCE;
        if may_start {
            let (index, address) = (next, addresses[next]);
            let source = sources.next_for(address.ip());
            under_way.push(async move { (index, connect(address, source, patience).await) });
            running.push(index);
            next += 1;
        }
        let may_start = next < addresses.len() && under_way.len() < ATTEMPTS_AT_ONCE;
        let ended = if may_start {
            let stagger = async {
                glommio::timer::sleep(STAGGER).await;
                None
            };
            async { under_way.next().await.map(Some) }.or(async { Some(stagger.await) }).await
        } else {
            under_way.next().await.map(Some)
        };
        match ended {
            // Nothing is under way and nothing left to start.
            None => return race,
            Some(None) => {}
            Some(Some((index, ended))) => {
                running.retain(|other| *other != index);
                match ended {
                    Ok(stream) => {
                        race.won = Some((index, stream));
                        running.retain(|other| *other < index);
                        race.overtaken = running;
                        return race;
                    }
                    Err(error) => race.failed.push((index, error)),
                }
            }
        }
    }
}

/// One TCP connection, from `source` where there is one.
pub async fn connect(
    address: SocketAddr,
    source: Option<IpAddr>,
    patience: Duration,
) -> Result<TcpStream, ConnectError> {
    let mut stream = begin(address, source)?;
    // An empty write is through as soon as the connection stands, and fails as it does.
    let established = async { stream.write(&[]).await };
    let timed_out = async {
        glommio::timer::sleep(patience).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    established.or(timed_out).await.map_err(|error| of_host(&error))?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// A connection to a socket in the file system.
pub async fn local(path: &str, patience: Duration) -> Result<TcpStream, ConnectError> {
    let own = |error: io::Error| ConnectError { reason: reason(&error), host_at_fault: false };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(own)?;
    socket.set_nonblocking(true).map_err(own)?;
    let address = SockAddr::unix(path).map_err(own)?;
    let until = Instant::now() + patience;
    // A full backlog says EAGAIN, and nothing tells when there is room again.
    loop {
        match socket.connect(&address) {
            Ok(()) => return Ok(glommio_stream(socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                glommio::timer::sleep(BACKLOG_LOOK).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(of_host(&io::ErrorKind::TimedOut.into()));
            }
            Err(error) => return Err(of_host(&error)),
        }
    }
}

/// Sends the SYN and does not wait for its answer.
fn begin(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let own = |error: io::Error| ConnectError { reason: reason(&error), host_at_fault: false };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(own)?;
    socket.set_nonblocking(true).map_err(own)?;
    if let Some(source) = source {
        let bound =
            socket.set_reuse_address(true).and_then(|()| socket.bind(&SocketAddr::new(source, 0).into()));
        bound.map_err(|error| ConnectError {
            reason: format!("from source address {source}: {}", reason(&error)),
            host_at_fault: false,
        })?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(of_host(&error)),
        _ => {}
    }
    Ok(glommio_stream(socket))
}

const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

#[allow(unsafe_code)]
fn glommio_stream(socket: Socket) -> TcpStream {
    // SAFETY: the descriptor is a stream socket that was just taken out of its only owner. glommio reads and
    // writes one of the file system as one of TCP.
    unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) }
}

fn of_host(error: &io::Error) -> ConnectError {
    ConnectError { reason: reason(error), host_at_fault: true }
}

/// An I/O error without the number that Rust adds to it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "Connection timed out".into(),
        io::ErrorKind::ConnectionRefused => "Connection refused".into(),
        io::ErrorKind::HostUnreachable => "No route to host".into(),
        io::ErrorKind::NetworkUnreachable => "Network is unreachable".into(),
        io::ErrorKind::ConnectionReset => "Connection reset by peer".into(),
        io::ErrorKind::NotFound => "No such file or directory".into(),
        io::ErrorKind::PermissionDenied => "Permission denied".into(),
        io::ErrorKind::AddrNotAvailable => "Cannot assign requested address".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::LocalExecutor;
    use std::net::{TcpListener, TcpStream as StdStream};
    const PATIENCE: Duration = Duration::from_secs(20);

    fn run<T: 'static>(test: impl Future<Output = T> + 'static) -> T {
        LocalExecutor::default().run(test)
    }

    /// A listener whose backlog is full: a further SYN is dropped, as by a black hole.
    struct BlackHole {
        address: SocketAddr,
        _listener: Socket,
        _clients: Vec<StdStream>,
    }

    impl BlackHole {
        fn new(ip: &str) -> Self {
            let ip: IpAddr = ip.parse().unwrap();
            let address = SocketAddr::new(ip, 0);
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(0).unwrap();
            let address = socket.local_addr().unwrap().as_socket().unwrap();
            let connect = || StdStream::connect_timeout(&address, Duration::from_millis(200));
            let clients = std::iter::from_fn(|| connect().ok()).take(8).collect();
            assert!(connect().is_err(), "the backlog is full");
            Self { address, _listener: socket, _clients: clients }
        }
    }

    fn listener(ip: &str) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address that refuses.
    fn refusing() -> SocketAddr {
        listener("127.0.0.1").1
    }

    async fn race_of(addresses: &[SocketAddr], patience: Duration) -> Race {
        race(addresses, &Sources { addresses: &[], turn: &Cell::new(0), warm_ups: None }, patience).await
    }

    #[test]
    fn the_first_address_that_answers_at_once_is_the_only_one_tried() {
        run(async {
            let ((one, first), (two, second)) = (listener("127.0.0.1"), listener("127.0.0.1"));
            let race = race_of(&[first, second], PATIENCE).await;
            assert_eq!(race.won.unwrap().0, 0);
            assert!(one.accept().is_ok());
            two.set_nonblocking(true).unwrap();
            assert_eq!(two.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        });
    }

    #[test]
    fn a_black_hole_over_ipv6_costs_a_stagger_and_is_told() {
        let hole = BlackHole::new("::1");
        run(async move {
            let (_listener, good) = listener("127.0.0.1");
            let start = Instant::now();
            let race = race_of(&[hole.address, good], PATIENCE).await;
            let took = start.elapsed();
            assert_eq!((race.won.map(|won| won.0), race.overtaken), (Some(1), vec![0]));
            assert!(took >= STAGGER && took < Duration::from_secs(2), "{took:?}");
        });
    }

    #[test]
    fn an_address_that_refuses_gives_way_at_once() {
        run(async {
            let (_listener, good) = listener("127.0.0.1");
            let start = Instant::now();
            let race = race_of(&[refusing(), refusing(), refusing(), refusing(), good], PATIENCE).await;
            assert!(start.elapsed() < STAGGER, "{:?}", start.elapsed());
            assert_eq!(race.won.unwrap().0, 4);
            let refused = ConnectError { reason: "Connection refused".into(), host_at_fault: true };
            assert_eq!(race.failed, (0..4).map(|index| (index, refused.clone())).collect::<Vec<_>>());
        });
    }

    #[test]
    fn silence_ends_with_the_time_out_and_only_some_attempts_run_at_once() {
        let holes: Vec<_> = (0..6).map(|_| BlackHole::new("127.0.0.1")).collect();
        run(async move {
            let addresses: Vec<_> = holes.iter().map(|hole| hole.address).collect();
            let patience = Duration::from_millis(1_500);
            let start = Instant::now();
            let race = race_of(&addresses, patience).await;
            assert!(race.won.is_none() && race.failed.len() == 6);
            assert!(race.failed.iter().all(|(_, error)| error.reason == "Connection timed out"));
            // The fifth waits for the first one's time-out, the sixth for the second one's.
            let took = start.elapsed();
            assert!(took >= 2 * patience + STAGGER && took < 4 * patience, "{took:?}");
        });
    }

    #[test]
    fn nothing_to_connect_to_is_no_race() {
        let race = run(async { race_of(&[], PATIENCE).await });
        assert!(race.won.is_none() && race.failed.is_empty());
    }

    #[test]
    fn source_addresses_are_chosen_by_family_and_in_turn() {
        let turn = Cell::new(0);
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let addresses = ["192.0.2.7", "2001:db8::7", "192.0.2.8"].map(parse);
        let sources = Sources { addresses: &addresses, turn: &turn, warm_ups: None };
        let four: Vec<_> = (0..4).map(|_| sources.next_for(parse("192.0.2.1")).unwrap()).collect();
        assert_eq!(four, ["192.0.2.7", "192.0.2.8", "192.0.2.7", "192.0.2.8"].map(parse));
        assert_eq!(sources.next_for(parse("::1")), Some(parse("2001:db8::7")));
        let sources = Sources { addresses: &addresses[..1], turn: &turn, warm_ups: None };
        assert_eq!(sources.next_for(parse("::1")), None, "a family without an address is the kernel's");
    }

    #[test]
    fn the_peer_sees_the_source_address_and_one_that_is_not_ours_is_said_so() {
        run(async {
            let (listener, address) = listener("127.0.0.1");
            let own = "127.0.0.77".parse().unwrap();
            let stream = connect(address, Some(own), PATIENCE).await.unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), own);
            drop(stream);
            let foreign = "192.0.2.7".parse().unwrap();
            let error = connect(address, Some(foreign), PATIENCE).await.unwrap_err();
            assert!(!error.host_at_fault);
            assert_eq!(error.reason, "from source address 192.0.2.7: Cannot assign requested address");
        });
    }
}
