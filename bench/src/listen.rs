//! Listening sockets of our own ends, which whoever comes next can take over.
//!
//! glommio's own `bind` sets SO_REUSEPORT only. Connections that such a listener closed first stay in TIME_WAIT for a
//! minute and keep its port from everybody who does not set that, too: a relay, Postfix. With SO_REUSEADDR on both sides
//! they do no harm. Lives on the executor that calls it.

use glommio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd as _, IntoRawFd as _};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens on the address; several executors may on the same one.
#[allow(unsafe_code)]
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // SAFETY: the descriptor is a listening TCP socket that was just taken out of its only owner.
    Ok(unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::{LocalExecutorBuilder, Placement};
    use std::io::Read as _;
    use std::net::TcpStream;

    #[test]
    fn connections_that_we_closed_keep_the_port_from_nobody() {
        let executor = LocalExecutorBuilder::new(Placement::Unbound).make().unwrap();
        let address = executor.run(async {
            let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || {
                let mut client = TcpStream::connect(address).unwrap();
                // Until the other side has closed; then this one does.
                client.read_to_end(&mut Vec::new()).unwrap()
            });
            drop(listener.accept().await.unwrap());
            client.join().unwrap();
            address
        });
        drop(executor);
        // As a server binds: SO_REUSEADDR, not SO_REUSEPORT.
        std::net::TcpListener::bind(address).unwrap();
    }
}
