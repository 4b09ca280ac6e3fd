//! A peer that breaks in the middle: a proxy in front of a server that works, which resets the connection, or falls
//! silent, when it sees a certain text; and TLS that ends in an alert.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::Port;

/// The fatal alert handshake_failure (RFC 8446 section 6), as a record.
pub const HANDSHAKE_FAILURE: &[u8] = b"\x15\x03\x03\x00\x02\x02\x28";

/// Who says the text at which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Client,
    Server,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Nothing: it is passed on.
    Not,
    /// RST at once.
    AtConnect,
    /// RST behind this text, which is passed on, or in front of it.
    Behind(Says, &'static str),
    Before(Says, &'static str),
    /// STARTTLS is offered, and the ClientHello is answered with these octets and the end.
    InHandshake(&'static [u8]),
    /// The same, with RST in place of an answer.
    ResetInHandshake,
}

/// The proxy. Dropping it ends it.
pub struct BrokenPeer {
    port: Port,
    plan: Arc<Mutex<Vec<Break>>>,
    connections: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl BrokenPeer {
    /// In front of `server`; connections are whole until [`BrokenPeer::break_next`].
    pub fn start(server: SocketAddr) -> Self {
        let port = Port::reserve();
        let listener = TcpListener::bind(port.address()).expect("a port");
        let plan = Arc::new(Mutex::new(Vec::<Break>::new()));
        let (connections, stopping) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let peer =
            Self { port, plan: plan.clone(), connections: connections.clone(), stopping: stopping.clone() };
        thread::spawn(move || {
            for client in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let fate = plan.lock().expect("plan").pop().unwrap_or(Break::Not);
                thread::spawn(move || drop(carry(&client, server, fate)));
            }
        });
        peer
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The next connection ends so, and those behind it are whole.
    pub fn break_next(&self, fate: Break) {
        *self.plan.lock().expect("plan") = vec![fate];
    }

    /// The break has been used up.
    pub fn is_whole(&self) -> bool {
        self.plan.lock().expect("plan").is_empty()
    }
}

impl Drop for BrokenPeer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1));
    }
}

/// Closes with RST: nothing that was not read yet reaches the other side any more.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn carry(client: &TcpStream, server: SocketAddr, fate: Break) -> std::io::Result<()> {
    match fate {
        Break::AtConnect => {
            reset(client);
            return Ok(());
        }
        Break::InHandshake(answer) => return in_handshake(client, Some(answer)),
        Break::ResetInHandshake => return in_handshake(client, None),
        Break::Not | Break::Behind(..) | Break::Before(..) => {}
    }
    let server = TcpStream::connect(server)?;
    let broken = AtomicBool::new(false);
    thread::scope(|scope| {
        let (there, back) = ((client, &server), (&server, client));
        let broken = &broken;
        scope.spawn(move || direct(there.0, there.1, Says::Client, fate, broken));
        direct(back.0, back.1, Says::Server, fate, broken);
    });
    Ok(())
}

/// One direction, until it ends or breaks. A reset is made by the last who closes the socket.
fn direct(mut from: &TcpStream, mut to: &TcpStream, who: Says, fate: Break, broken: &AtomicBool) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(len) = from.read(&mut buffer) {
        if len == 0 || broken.load(Ordering::SeqCst) {
            break;
        }
        let octets = &buffer[..len];
        seen.extend_from_slice(octets);
        let needle = match fate {
            Break::Behind(says, needle) | Break::Before(says, needle) if says == who => needle.as_bytes(),
            _ => b"\xff never said \xff",
        };
        if seen.windows(needle.len()).any(|window| window == needle) {
            // From now on the other direction passes nothing on.
            broken.store(true, Ordering::SeqCst);
            if matches!(fate, Break::Behind(..)) {
                let _ = to.write_all(octets);
                // What was passed on must arrive before the reset throws it away.
                thread::sleep(Duration::from_millis(200));
            }
            for stream in [from, to] {
                reset(stream);
            }
            // Wakes the other direction, whose end closes both sockets.
            for stream in [from, to] {
                let _ = stream.shutdown(Shutdown::Read);
            }
            return;
        }
        let kept = seen.len().saturating_sub(needle.len());
        seen.drain(..kept);
        if to.write_all(octets).is_err() {
            break;
        }
    }
    if !broken.load(Ordering::SeqCst) {
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Greets, offers STARTTLS, and answers the first octets of the handshake; without an answer by RST.
fn in_handshake(mut client: &TcpStream, answer: Option<&[u8]>) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    client.write_all(b"220 broken.test ESMTP\r\n")?;
    client.read(&mut buffer)?;
    client.write_all(b"250-broken.test\r\n250 STARTTLS\r\n")?;
    let len = client.read(&mut buffer)?;
    if !buffer[..len].starts_with(b"STARTTLS") {
        return Ok(());
    }
    client.write_all(b"220 Go\r\n")?;
    client.read(&mut buffer)?;
    match answer {
        Some(answer) => client.write_all(answer)?,
        None => reset(client),
    }
    Ok(())
}
