//! The listening sockets: bound once before any shard starts, one per address and ingest shard.
//!
//! All sockets of one address are in one SO_REUSEPORT group, and the kernel spreads connections over
//! them. A socket does not listen before its shard has recovered its spool.

use crate::config::Config;
use crate::intake::{IngestShard, session_task};
use glommio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Connections that the kernel completes before the relay takes them: as many as net.core.somaxconn says, to which the
/// kernel cuts this.
const BACKLOG: i32 = i32::MAX;
/// How long a shard stops accepting when it is out of descriptors, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a port may still be held by a relay that has just ended, and how often that is looked at.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
const PORT_LOOK: Duration = Duration::from_millis(20);

/// A bound socket that does not listen yet.
pub struct Bound {
    /// Index in `Config::listeners`.
    pub listener: usize,
    pub address: SocketAddr,
    socket: Socket,
}

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindError {
    pub listener: String,
    pub address: SocketAddr,
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener \"{}\" cannot bind {}: ", self.listener, self.address)?;
        match self.error.kind() {
            io::ErrorKind::AddrInUse => f.write_str(
                "the port is taken by another program; stop that program (ss -ltnp shows it) or change listener.bind",
            ),
            io::ErrorKind::PermissionDenied => f.write_str(
                "ports below 1024 need CAP_NET_BIND_SERVICE; start through the systemd unit or as root",
            ),
            io::ErrorKind::AddrNotAvailable => {
                f.write_str("no interface of this host has that address; ip addr shows those it has")
            }
            _ => write!(f, "{}", self.error),
        }
    }
}

/// Binds every address of every listener once for each ingest shard. The outer list is by shard.
pub fn bind_all(config: &Config, shards: usize) -> Result<Vec<Vec<Bound>>, BindError> {
    let mut by_shard: Vec<Vec<Bound>> = (0..shards).map(|_| Vec::new()).collect();
    for (index, listener) in config.listeners.iter().enumerate() {
        for &address in &listener.bind {
            let failed = |error| BindError { listener: listener.name.clone(), address, error };
            // Another program of the same user could share a SO_REUSEPORT port unnoticed.
            let probe = free_socket(address).map_err(failed)?;
            let address = probe.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
            drop(probe);
            for bound in &mut by_shard {
                let socket = socket(address, true).map_err(failed)?;
                bound.push(Bound { listener: index, address, socket });
            }
        }
    }
    Ok(by_shard)
}

/// Binds alone. A relay that was killed a moment ago may still hold the port: the kernel takes its rings
/// apart after the process has gone, so a taken port is asked for again for a while.
fn free_socket(address: SocketAddr) -> io::Result<Socket> {
    let deadline = Instant::now() + PORT_PATIENCE;
    loop {
        match socket(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(PORT_LOOK);
            }
            other => return other,
        }
    }
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Takes connections as long as the shard lives; while it stops, each gets 421. Each becomes a task of its
/// own.
pub async fn accept_connections(shard: Rc<IngestShard>, bound: Bound) -> io::Result<()> {
    bound.socket.listen(BACKLOG)?;
    let listener = glommio_listener(bound.socket);
    loop {
        match listener.accept().await {
            Ok(stream) => session_task::start(&shard, bound.listener, stream),
            Err(error) => {
                let error = io::Error::from(error);
                // A client that has gone before it was accepted is no trouble of ours.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    crate::observe::log::note(
                        "ingest",
                        &format!("warning: accept on {}: {error}", bound.address),
                    );
                    glommio::timer::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Whether octets of the peer wait to be read.
#[allow(unsafe_code)]
pub fn has_input(stream: &TcpStream) -> bool {
    // SAFETY: the stream owns the descriptor and outlives this borrow of it.
    let descriptor = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    let mut octet = [MaybeUninit::uninit()];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    SockRef::from(&descriptor).recv_with_flags(&mut octet, flags).is_ok_and(|octets| octets > 0)
}

#[allow(unsafe_code)]
fn glommio_listener(socket: Socket) -> TcpListener {
    // SAFETY: the descriptor is a listening TCP socket that was just taken out of its only owner.
    unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) }
}
