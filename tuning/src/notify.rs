//! Word to the service manager (sd_notify(3)): one datagram to the socket named in `NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Every listener is bound and the spool has been read.
    Ready,
    /// The drain has begun.
    Stopping,
}

/// `Ok(false)`: nobody asked, as when the relay was started by hand. An error is worth a log line, no more.
/// Reads the environment: call it where no other thread changes that.
pub fn notify(word: Word) -> io::Result<bool> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) if !socket.is_empty() => send(&socket, word).map(|()| true),
        _ => Ok(false),
    }
}

fn send(socket: &OsStr, word: Word) -> io::Result<()> {
    let state: &[u8] = match word {
        Word::Ready => b"READY=1",
        Word::Stopping => b"STOPPING=1",
    };
    // A name that starts with @ is in the abstract namespace.
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).expect("a datagram");
        buffer[..length].to_vec()
    }

    #[test]
    fn the_word_arrives_at_a_path_and_at_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("sluice-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).expect("bound");
        send(path.as_os_str(), Word::Ready).expect("sent");
        assert_eq!(received(&manager), b"READY=1");
        std::fs::remove_file(&path).expect("removed");

        let name = format!("sluice-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let manager = UnixDatagram::bind_addr(&address).expect("bound");
        send(OsStr::new(&format!("@{name}")), Word::Stopping).expect("sent");
        assert_eq!(received(&manager), b"STOPPING=1");
    }

    #[test]
    fn a_socket_that_is_gone_is_an_error_and_no_panic() {
        let error = send(OsStr::new("/nonexistent/notify"), Word::Ready).expect_err("nobody there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
