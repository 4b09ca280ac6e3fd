//! A raw SMTP client: sends exactly the octets that a test asks for, and reads whole replies.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::message::dot_stuffed;

/// How long a reply may take; longer than any fdatasync on a busy machine.
const REPLY: Duration = Duration::from_secs(60);

/// A reply (RFC 5321 section 4.2), all of its lines without their codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub lines: Vec<String>,
}

impl Reply {
    /// Reads one reply.
    ///
    /// # Errors
    /// What reading gave; `UnexpectedEof` when the peer closed; `InvalidData` when it is no SMTP reply.
    pub fn read(input: &mut impl BufRead) -> io::Result<Self> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            if input.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let invalid = || {
                io::Error::new(io::ErrorKind::InvalidData, format!("no reply line: {}", line.escape_ascii()))
            };
            let text = line.strip_suffix(b"\r\n").ok_or_else(invalid)?;
            let text = std::str::from_utf8(text).map_err(|_| invalid())?;
            let code = text.get(..3).and_then(|code| code.parse().ok()).ok_or_else(invalid)?;
            let (last, rest) = match text.as_bytes().get(3) {
                Some(b'-') => (false, &text[4..]),
                Some(b' ') => (true, &text[4..]),
                None => (true, ""),
                Some(_) => return Err(invalid()),
            };
            lines.push(rest.to_owned());
            if last {
                return Ok(Self { code, lines });
            }
        }
    }

    /// The lines as one text, with the code in front.
    pub fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.join("\n"))
    }

    /// # Panics
    /// When the code or (if not empty) the enhanced status code is another one.
    #[track_caller]
    pub fn expect(self, code: u16, enhanced: &str) -> Self {
        assert_eq!(self.code, code, "{}", self.text());
        assert!(
            enhanced.is_empty() || self.lines[0].split(' ').next() == Some(enhanced),
            "{enhanced} expected: {}",
            self.text()
        );
        self
    }

    #[track_caller]
    pub fn expect_class(self, class: u16) -> Self {
        assert_eq!(self.code / 100, class, "{}", self.text());
        self
    }
}

/// One session.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects and reads the greeting, whatever it says.
    ///
    /// # Errors
    /// The connection's.
    pub fn try_connect(server: SocketAddr) -> io::Result<(Self, Reply)> {
        let mut client = Self::open(server)?;
        let greeting = client.try_reply()?;
        Ok((client, greeting))
    }

    /// Connects without reading the greeting.
    ///
    /// # Errors
    /// The connection's.
    pub fn open(server: SocketAddr) -> io::Result<Self> {
        Self::with(TcpStream::connect_timeout(&server, REPLY)?)
    }

    /// As [`Client::open`], from an address of this host: another client to the server.
    ///
    /// # Errors
    /// The connection's.
    pub fn open_from(client: Ipv4Addr, server: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((client, 0)).into())?;
        socket.connect_timeout(&server.into(), REPLY)?;
        Self::with(socket.into())
    }

    /// As [`Client::try_connect`], from an address of this host.
    ///
    /// # Errors
    /// The connection's.
    pub fn try_connect_from(client: Ipv4Addr, server: SocketAddr) -> io::Result<(Self, Reply)> {
        let mut client = Self::open_from(client, server)?;
        let greeting = client.try_reply()?;
        Ok((client, greeting))
    }

    fn with(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(REPLY))?;
        stream.set_write_timeout(Some(REPLY))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Connects and awaits 220.
    #[track_caller]
    pub fn connect(server: SocketAddr) -> Self {
        let (client, greeting) = Self::try_connect(server).expect("a connection");
        greeting.expect(220, "");
        client
    }

    /// Connects, awaits 220, says EHLO and awaits 250.
    #[track_caller]
    pub fn hello(server: SocketAddr) -> Self {
        let mut client = Self::connect(server);
        client.command("EHLO client.test").expect(250, "");
        client
    }

    /// Sends octets as they are.
    #[track_caller]
    pub fn send(&mut self, octets: &[u8]) {
        self.try_send(octets).expect("sending");
    }

    /// # Errors
    /// The connection's.
    pub fn try_send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(octets)
    }

    /// Reads one reply.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply")
    }

    /// # Errors
    /// See [`Reply::read`].
    pub fn try_reply(&mut self) -> io::Result<Reply> {
        Reply::read(&mut self.stream)
    }

    /// Sends a command line (without its CRLF) and reads the reply.
    #[track_caller]
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// MAIL, RCPT for each, DATA, up to 354.
    #[track_caller]
    pub fn open_data(&mut self, from: &str, to: &[&str]) {
        self.command(&format!("MAIL FROM:<{from}>")).expect(250, "2.1.0");
        for recipient in to {
            self.command(&format!("RCPT TO:<{recipient}>")).expect(250, "2.1.5");
        }
        self.command("DATA").expect(354, "");
    }

    /// A whole transaction; gives the reply to end-of-data. `content` ends with CRLF.
    #[track_caller]
    pub fn send_message(&mut self, from: &str, to: &[&str], content: &[u8]) -> Reply {
        self.open_data(from, to);
        self.send(&dot_stuffed(content));
        self.reply()
    }

    /// A whole transaction with its commands in one group (RFC 2920).
    ///
    /// # Errors
    /// The connection's. A refusal is the reply that refused.
    pub fn try_message(&mut self, from: &str, to: &str, content: &[u8]) -> io::Result<Reply> {
        self.try_send(format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\nDATA\r\n").as_bytes())?;
        for expected in [250, 250, 354] {
            let reply = self.try_reply()?;
            if reply.code != expected {
                return Ok(reply);
            }
        }
        self.try_send(&dot_stuffed(content))?;
        self.try_reply()
    }

    /// QUIT, 221, and the server closes.
    #[track_caller]
    pub fn quit(mut self) {
        self.command("QUIT").expect(221, "");
        self.expect_closed();
    }

    /// # Panics
    /// When the server says anything more, or does not close.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => {}
            Ok(_) => panic!("closing expected: {}", line.escape_ascii()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("closing expected: {error}"),
        }
    }

    /// Closes the sending half: the server reads an end of file.
    pub fn half_close(&mut self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Write);
    }

    /// Whether the server says something, or closes, within a time.
    pub fn has_reply_within(&mut self, limit: Duration) -> bool {
        self.set_reply_limit(limit);
        let came = self.stream.fill_buf().is_ok();
        self.set_reply_limit(REPLY);
        came
    }

    pub fn set_reply_limit(&mut self, limit: Duration) {
        self.stream.get_ref().set_read_timeout(Some(limit)).expect("a positive time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_whole_and_nonsense_is_refused() {
        let read = |mut bytes: &[u8]| Reply::read(&mut bytes);
        let reply = read(b"250-mx\r\n250-SIZE 5\r\n250 PIPELINING\r\n").unwrap();
        assert_eq!((reply.code, reply.lines.len()), (250, 3));
        assert_eq!(read(b"250\r\n").unwrap().lines, [""]);
        for nonsense in [&b"250 ok\n"[..], b"25\r\n", b"abc d\r\n", b"250_\r\n", b"250-x\r\n"] {
            assert!(read(nonsense).is_err(), "{}", nonsense.escape_ascii());
        }
    }
}
