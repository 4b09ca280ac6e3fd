//! One session of the generator: connects, sends message after message, reconnects when it must.
//!
//! A local task of its executor. A message is sent once: after a failure it is counted, not repeated, because the
//! server may have it. Every wait is bounded by `--timeout`.

use super::Shared;
use super::pace::Turn;
use crate::message::expand;
use crate::wire::{Replies, Reply, Stream};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::TcpStream;
use glommio::timer::sleep;
use rustls::pki_types::ServerName;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// After this many failed connections in a row a session gives up; its server is not there.
const CONNECT_FAILURES_MAX: u32 = 10;
/// Between two failed connections.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Sessions begin in waves, a few milliseconds apart, for listen queues are short: that of OpenSMTPD has room for five,
/// and whom a queue has no room for may wait for a greeting that never comes (SYN cookies).
const WAVE: usize = 4;
const WAVE_EVERY: Duration = Duration::from_millis(5);
const WAVES_END: Duration = Duration::from_millis(200);
/// Octets of content in the last write of a message; what comes before is written before the clock starts.
const LAST_WRITE_OCTETS_MAX: usize = 65_536;
const READ_OCTETS: usize = 4096;

/// The connection is of no more use.
struct Broken;

/// What came of one transaction on a connection that is still good.
enum Answer {
    Accepted,
    /// Counted already.
    Refused,
}

pub(super) async fn run(shared: Rc<Shared>, number: usize) {
    let mut session =
        Session { shared, number, content: Vec::new(), octets: 0, group: String::new(), connection: None };
    let mut failures_in_a_row = 0;
    sleep((WAVE_EVERY * (number / WAVE) as u32).min(WAVES_END)).await;
    if session.shared.options.rate.is_some() && session.shared.options.messages_per_connection == 0 {
        session.connection = session.connect().await.ok();
    }
    while let Some(turn) = session.shared.pace.next(Instant::now()) {
        session.compose(turn.number);
        if let Some(due) = turn.due {
            sleep(due.saturating_duration_since(Instant::now())).await;
            session.shared.tally.borrow_mut().lag.record(due.elapsed());
        }
        if session.message(turn).await.is_ok() {
            failures_in_a_row = 0;
        } else {
            session.connection = None;
            session.shared.tally.borrow_mut().failed += 1;
            failures_in_a_row += 1;
            if failures_in_a_row == CONNECT_FAILURES_MAX {
                break;
            }
            if failures_in_a_row > 1 {
                sleep(CONNECT_PAUSE).await;
            }
        }
    }
    if let Some(connection) = session.connection.take() {
        session.quit(connection).await;
    }
}

struct Session {
    shared: Rc<Shared>,
    number: usize,
    /// The message being sent, as it goes over the wire.
    content: Vec<u8>,
    /// Its octets before dot-stuffing.
    octets: usize,
    /// Its commands.
    group: String,
    connection: Option<Connection>,
}

impl Session {
    /// Makes the content ready, before any clock of the message runs: it is no work of the server's.
    fn compose(&mut self, number: u64) {
        self.octets = self.shared.composers.of(number).compose(number, self.number, &mut self.content);
    }

    /// Sends the composed message, over a new connection if there is none.
    async fn message(&mut self, turn: Turn) -> Result<(), Broken> {
        self.shared.tally.borrow_mut().first.get_or_insert_with(Instant::now);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let began = turn.due.unwrap_or_else(Instant::now);
        let answer = match connection.pipelining {
            true => self.pipelined(&mut connection, turn.number).await?,
            false => self.in_steps(&mut connection, turn.number).await?,
        };
        connection.messages += 1;
        {
            let mut tally = self.shared.tally.borrow_mut();
            match answer {
                Answer::Accepted => {
                    tally.transaction.record(began.elapsed());
                    tally.accepted += 1;
                    tally.octets += self.octets as u64;
                    tally.acknowledged.note(turn.number);
                }
                Answer::Refused => tally.failed += 1,
            }
            tally.last = Some(Instant::now());
        }
        let limit = self.shared.options.messages_per_connection;
        if limit > 0 && connection.messages >= limit {
            self.quit(connection).await;
        } else {
            self.connection = Some(connection);
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, Broken> {
        let options = &self.shared.options;
        let began = Instant::now();
        let stream = TcpStream::connect_timeout(self.shared.target, options.timeout).await;
        let stream = stream.map_err(|error| self.broken("connect", &error.into()))?;
        // Without it small writes wait for the peer's acknowledgement (Nagle).
        let prepared = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(options.timeout)));
        prepared
            .and_then(|()| stream.set_write_timeout(Some(options.timeout)))
            .map_err(|error| self.broken("connect", &error.into()))?;
        let mut connection = Connection {
            stream: Box::new(stream),
            replies: Replies::default(),
            pipelining: false,
            messages: 0,
        };
        let greeting = self.reply(&mut connection, "greeting").await?;
        self.expect(&connection, "greeting", &greeting, 220).then_some(()).ok_or(Broken)?;
        {
            let mut tally = self.shared.tally.borrow_mut();
            tally.connect.record(began.elapsed());
            tally.connections += 1;
        }
        self.write(&mut connection, "ehlo", b"EHLO source.example\r\n").await?;
        let mut hello = self.reply(&mut connection, "ehlo").await?;
        self.expect(&connection, "ehlo", &hello, 250).then_some(()).ok_or(Broken)?;
        if let Some(tls) = &self.shared.tls {
            let (secured, again) = self.secure(connection, tls).await?;
            (connection, hello) = (secured, again);
        }
        connection.pipelining = options.pipeline && connection.replies.announces(&hello, "PIPELINING");
        Ok(connection)
    }

    /// STARTTLS, the handshake, and EHLO again (RFC 3207 section 4.2).
    async fn secure(
        &self,
        mut connection: Connection,
        tls: &futures_rustls::TlsConnector,
    ) -> Result<(Connection, Reply), Broken> {
        self.write(&mut connection, "starttls", b"STARTTLS\r\n").await?;
        let ready = self.reply(&mut connection, "starttls").await?;
        self.expect(&connection, "starttls", &ready, 220).then_some(()).ok_or(Broken)?;
        let name =
            ServerName::try_from(self.shared.options.tls_name.clone()).expect("looked at before the start");
        let stream = tls.connect(name, connection.stream).await;
        let stream = stream.map_err(|error| self.broken("handshake", &error))?;
        self.shared.tally.borrow_mut().handshake(stream.get_ref().1.handshake_kind());
        connection.stream = Box::new(stream);
        self.write(&mut connection, "ehlo", b"EHLO source.example\r\n").await?;
        let hello = self.reply(&mut connection, "ehlo").await?;
        self.expect(&connection, "ehlo", &hello, 250).then_some(()).ok_or(Broken)?;
        Ok((connection, hello))
    }

    /// MAIL, RCPT and DATA in one group, then the content (RFC 2920 3.1).
    async fn pipelined(&mut self, connection: &mut Connection, number: u64) -> Result<Answer, Broken> {
        self.group.clear();
        self.mail(number);
        let recipients = self.shared.options.recipients;
        (0..recipients).for_each(|recipient| self.rcpt(number, recipient));
        self.group.push_str("DATA\r\n");
        self.write(connection, "mail", self.group.as_bytes()).await?;
        let mail = self.reply(connection, "mail").await?;
        let mut refused = !self.expect(connection, "mail", &mail, 250);
        let mut accepted_recipients = 0;
        for _ in 0..recipients {
            let rcpt = self.reply(connection, "rcpt").await?;
            match mail.code == 250 && self.expect(connection, "rcpt", &rcpt, 250) {
                true => accepted_recipients += 1,
                false => refused = true,
            }
        }
        let data = self.reply(connection, "data").await?;
        if data.code == 354 && accepted_recipients == 0 {
            // The server waits for content that must not come (RFC 2920 3.1): end it at once.
            self.write(connection, "dot", b".\r\n").await?;
            self.reply(connection, "dot").await?;
            return Ok(Answer::Refused);
        }
        if refused && data.code != 354 || !self.expect(connection, "data", &data, 354) {
            self.reset(connection).await?;
            return Ok(Answer::Refused);
        }
        self.content(connection).await
    }

    /// One command, one reply.
    async fn in_steps(&mut self, connection: &mut Connection, number: u64) -> Result<Answer, Broken> {
        self.group.clear();
        self.mail(number);
        let mut accepted = self.step(connection, "mail", 250).await?;
        if accepted {
            let mut accepted_recipients = 0;
            for recipient in 0..self.shared.options.recipients {
                self.group.clear();
                self.rcpt(number, recipient);
                accepted_recipients += usize::from(self.step(connection, "rcpt", 250).await?);
            }
            self.group.clear();
            self.group.push_str("DATA\r\n");
            accepted = accepted_recipients > 0 && self.step(connection, "data", 354).await?;
        }
        if !accepted {
            self.reset(connection).await?;
            return Ok(Answer::Refused);
        }
        self.content(connection).await
    }

    async fn step(&self, connection: &mut Connection, phase: &str, code: u16) -> Result<bool, Broken> {
        self.write(connection, phase, self.group.as_bytes()).await?;
        let reply = self.reply(connection, phase).await?;
        Ok(self.expect(connection, phase, &reply, code))
    }

    async fn content(&self, connection: &mut Connection) -> Result<Answer, Broken> {
        let (before, last) = self.content.split_at(self.content.len().saturating_sub(LAST_WRITE_OCTETS_MAX));
        if !before.is_empty() {
            self.write(connection, "content", before).await?;
        }
        let began = Instant::now();
        self.write(connection, "content", last).await?;
        let reply = self.reply(connection, "dot").await?;
        if !self.expect(connection, "dot", &reply, 250) {
            return Ok(Answer::Refused);
        }
        self.shared.tally.borrow_mut().end_of_data.record(began.elapsed());
        Ok(Answer::Accepted)
    }

    async fn reset(&self, connection: &mut Connection) -> Result<(), Broken> {
        self.write(connection, "rset", b"RSET\r\n").await?;
        let reply = self.reply(connection, "rset").await?;
        self.expect(connection, "rset", &reply, 250);
        Ok(())
    }

    /// The server's answer to QUIT changes nothing any more.
    async fn quit(&self, mut connection: Connection) {
        if connection.stream.write_all(b"QUIT\r\n").await.is_ok() {
            let _ = connection.read().await;
        }
    }

    fn mail(&mut self, number: u64) {
        self.group.push_str("MAIL FROM:<");
        expand(&self.shared.options.from, number, self.number, 0, &mut self.group);
        self.group.push_str(">\r\n");
    }

    fn rcpt(&mut self, number: u64, recipient: usize) {
        self.group.push_str("RCPT TO:<");
        expand(&self.shared.options.to, number, self.number, recipient, &mut self.group);
        self.group.push_str(">\r\n");
    }

    async fn write(&self, connection: &mut Connection, phase: &str, octets: &[u8]) -> Result<(), Broken> {
        let written = async {
            connection.stream.write_all(octets).await?;
            // TLS keeps what the socket did not take until it is flushed.
            connection.stream.flush().await
        };
        written.await.map_err(|error| self.broken(phase, &error))
    }

    /// The next reply. 421 ends the connection, whatever was asked (RFC 5321 3.8).
    async fn reply(&self, connection: &mut Connection, phase: &str) -> Result<Reply, Broken> {
        loop {
            match connection.replies.next_reply() {
                Ok(Some(reply)) if reply.code == 421 => {
                    self.expect(connection, phase, &reply, 0);
                    return Err(Broken);
                }
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => connection.read().await.map_err(|error| self.broken(phase, &error))?,
                Err(_) => {
                    self.shared.tally.borrow_mut().failure(format!("{phase} not a reply"), "");
                    return Err(Broken);
                }
            }
        }
    }

    /// Whether the reply has the code; counts it as a failure when not.
    fn expect(&self, connection: &Connection, phase: &str, reply: &Reply, code: u16) -> bool {
        if reply.code == code {
            return true;
        }
        let text = connection.replies.text(reply);
        self.shared.tally.borrow_mut().failure(format!("{phase} {}", reply.code), &text);
        false
    }

    fn broken(&self, phase: &str, error: &io::Error) -> Broken {
        self.shared.tally.borrow_mut().failure(format!("{phase} {:?}", error.kind()), &error.to_string());
        Broken
    }
}

struct Connection {
    stream: Box<dyn Stream>,
    replies: Replies,
    /// The server announces it and the run wants it.
    pipelining: bool,
    messages: u64,
}

impl Connection {
    async fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; READ_OCTETS];
        match self.stream.read(&mut buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            octets => {
                self.replies.push(&buffer[..octets]);
                Ok(())
            }
        }
    }
}
