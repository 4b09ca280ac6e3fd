//! A small SMTP server inside the test, for what no real server can be made to do: it keeps every message
//! octet by octet, and answers or closes at any step as the test's script says.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Port;

/// A connection that says nothing for this long is dropped.
const IDLE: Duration = Duration::from_secs(300);

/// Where a session stands when the script is asked. Commands come with their whole line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Connected; 220 is due.
    Connect,
    Hello(&'a str),
    Mail(&'a str),
    Rcpt(&'a str),
    Data,
    /// The content is in; 250 is due. Kept only when the script accepts.
    EndOfData(&'a Transaction),
    /// Any other command.
    Other(&'a str),
}

/// What the server does at a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The usual good reply.
    Accept,
    /// This reply, whole, without the final CRLF. At end-of-data a 2yz keeps the message.
    Say(String),
    /// Closes without a word.
    Close,
    /// Keeps the message and then closes without a word: the sender cannot know.
    KeepAndClose,
    /// Says nothing until the other side gives up.
    Hang,
}

/// One message as it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Counts connections from 0.
    pub session: usize,
    /// What stood in the angle brackets of MAIL.
    pub from: String,
    /// The parameters of MAIL.
    pub parameters: String,
    /// What stood in the angle brackets of each accepted RCPT.
    pub to: Vec<String>,
    /// The content with the dot-stuffing undone, and without the final dot.
    pub content: Vec<u8>,
}

type Script = dyn Fn(&Step<'_>) -> Answer + Send + Sync;

#[derive(Default)]
struct Kept {
    transactions: Vec<Transaction>,
    commands: Vec<String>,
}

struct Shared {
    script: Mutex<Arc<Script>>,
    kept: Mutex<Kept>,
    changed: Condvar,
    sessions: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

/// The server. Dropping it closes every connection.
pub struct Inbox {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    _port: Option<Port>,
}

impl Inbox {
    /// Accepts everything, on a port of its own on 127.0.0.1.
    pub fn start() -> Self {
        Self::scripted(|_| Answer::Accept)
    }

    /// With a script, on a port of its own on 127.0.0.1.
    pub fn scripted(script: impl Fn(&Step<'_>) -> Answer + Send + Sync + 'static) -> Self {
        let port = Port::reserve();
        let mut inbox = Self::bind(port.address(), script);
        inbox._port = Some(port);
        inbox
    }

    /// With a script, on an address that the test has reserved.
    ///
    /// # Panics
    /// When the address is taken.
    pub fn bind(address: SocketAddr, script: impl Fn(&Step<'_>) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("bind {address}: {error}"));
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            kept: Mutex::default(),
            changed: Condvar::new(),
            sessions: AtomicUsize::new(0),
            open: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let acceptor = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { address, shared, acceptor: Some(acceptor), _port: None }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another script from now on, for open sessions too.
    pub fn set_script(&self, script: impl Fn(&Step<'_>) -> Answer + Send + Sync + 'static) {
        *self.shared.script.lock().expect("script") = Arc::new(script);
    }

    /// Connections so far.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::SeqCst)
    }

    pub fn transactions(&self) -> Vec<Transaction> {
        self.kept().transactions.clone()
    }

    /// Messages kept so far.
    pub fn len(&self) -> usize {
        self.kept().transactions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All command lines of all sessions, in order of arrival.
    pub fn commands(&self) -> Vec<String> {
        self.kept().commands.clone()
    }

    /// Looks at each message without copying.
    pub fn for_each(&self, mut look: impl FnMut(&Transaction)) {
        self.kept().transactions.iter().for_each(&mut look);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.shared.kept.lock().expect("kept")
    }

    /// Waits until at least `count` messages are kept, and gives them all.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    #[track_caller]
    pub fn wait_for(&self, count: usize, limit: Duration) -> Vec<Transaction> {
        let got = self.wait_count(count, limit);
        assert!(got >= count, "{got} of {count} messages within {limit:?}");
        self.transactions()
    }

    /// Waits until at least `count` messages are kept or `limit` has passed; gives the number kept.
    pub fn wait_count(&self, count: usize, limit: Duration) -> usize {
        self.wait_state(limit, |kept| kept.transactions.len() >= count);
        self.len()
    }

    /// Waits until a command line that contains `part` has come.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    #[track_caller]
    pub fn wait_command(&self, part: &str, limit: Duration) {
        let came = self.wait_state(limit, |kept| kept.commands.iter().any(|line| line.contains(part)));
        assert!(came, "no {part:?} within {limit:?}: {:?}", self.commands());
    }

    fn wait_state(&self, limit: Duration, mut reached: impl FnMut(&Kept) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut kept = self.kept();
        loop {
            if reached(&kept) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            kept = self.shared.changed.wait_timeout(kept, left).expect("kept").0;
        }
    }

    /// The addresses of all recipients of all messages.
    pub fn recipients(&self) -> HashSet<String> {
        self.kept().transactions.iter().flat_map(|transaction| transaction.to.clone()).collect()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().expect("open").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let Ok(copy) = stream.try_clone() else { continue };
        shared.open.lock().expect("open").push(copy);
        let session = shared.sessions.fetch_add(1, Ordering::SeqCst);
        let shared = shared.clone();
        thread::spawn(move || {
            let _ = stream.set_read_timeout(Some(IDLE));
            let _ = stream.set_nodelay(true);
            let _ = Session::new(&shared, session, &stream).serve();
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

/// What follows an answer.
enum Next {
    Go,
    Refused,
    Close,
}

struct Session<'a> {
    shared: &'a Shared,
    number: usize,
    input: BufReader<&'a TcpStream>,
    output: &'a TcpStream,
    transaction: Transaction,
    /// MAIL has been accepted.
    open: bool,
}

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, number: usize, stream: &'a TcpStream) -> Self {
        let transaction = Transaction { session: number, ..Transaction::default() };
        Self {
            shared,
            number,
            input: BufReader::with_capacity(64 << 10, stream),
            output: stream,
            transaction,
            open: false,
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        if !matches!(self.answer(&Step::Connect, "220 inbox.test ESMTP")?, Next::Go) {
            return Ok(());
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.input.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let command = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.shared.kept.lock().expect("kept").commands.push(command.clone());
            self.shared.changed.notify_all();
            if matches!(self.command(&command)?, Next::Close) {
                return Ok(());
            }
        }
    }

    fn command(&mut self, line: &str) -> io::Result<Next> {
        let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => self.answer(
                &Step::Hello(line),
                "250-inbox.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 104857600\r\n250 ENHANCEDSTATUSCODES",
            ),
            "HELO" => self.answer(&Step::Hello(line), "250 inbox.test"),
            "MAIL" => {
                let next = self.answer(&Step::Mail(line), "250 2.1.0 Ok")?;
                self.transaction = Transaction { session: self.number, ..Transaction::default() };
                self.open = matches!(next, Next::Go);
                if self.open {
                    (self.transaction.from, self.transaction.parameters) = path_and_parameters(line);
                }
                Ok(next)
            }
            "RCPT" if !self.open => {
                self.say("503 5.5.1 MAIL first")?;
                Ok(Next::Refused)
            }
            "RCPT" => {
                let next = self.answer(&Step::Rcpt(line), "250 2.1.5 Ok")?;
                if matches!(next, Next::Go) {
                    self.transaction.to.push(path_and_parameters(line).0);
                }
                Ok(next)
            }
            "DATA" => self.data(),
            "RSET" => {
                self.open = false;
                self.transaction = Transaction { session: self.number, ..Transaction::default() };
                self.answer(&Step::Other(line), "250 2.0.0 Ok")
            }
            "QUIT" => {
                self.answer(&Step::Other(line), "221 2.0.0 Bye")?;
                Ok(Next::Close)
            }
            "NOOP" => self.answer(&Step::Other(line), "250 2.0.0 Ok"),
            _ => self.answer(&Step::Other(line), "502 5.5.1 Not known here"),
        }
    }

    fn data(&mut self) -> io::Result<Next> {
        if self.transaction.to.is_empty() {
            self.say("554 5.5.1 No valid recipients")?;
            return Ok(Next::Refused);
        }
        match self.answer(&Step::Data, "354 Go on")? {
            Next::Go => {}
            other => return Ok(other),
        }
        self.transaction.content = read_content(&mut self.input)?;
        let transaction = std::mem::take(&mut self.transaction);
        self.open = false;
        let script = self.shared.script.lock().expect("script").clone();
        let answer = script(&Step::EndOfData(&transaction));
        let keep = match &answer {
            Answer::Accept | Answer::KeepAndClose => true,
            Answer::Say(reply) => reply.starts_with('2'),
            Answer::Close | Answer::Hang => false,
        };
        if keep {
            self.shared.kept.lock().expect("kept").transactions.push(transaction);
            self.shared.changed.notify_all();
        }
        self.act(answer, "250 2.0.0 Kept")
    }

    fn answer(&mut self, step: &Step<'_>, good: &str) -> io::Result<Next> {
        let script = self.shared.script.lock().expect("script").clone();
        self.act(script(step), good)
    }

    fn act(&mut self, answer: Answer, good: &str) -> io::Result<Next> {
        match answer {
            Answer::Accept => {
                self.say(good)?;
                Ok(Next::Go)
            }
            Answer::Say(reply) => {
                self.say(&reply)?;
                Ok(if reply.starts_with(['2', '3']) { Next::Go } else { Next::Refused })
            }
            Answer::Close | Answer::KeepAndClose => Ok(Next::Close),
            Answer::Hang => {
                while self.input.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
                    let all = self.input.buffer().len();
                    self.input.consume(all);
                }
                Ok(Next::Close)
            }
        }
    }

    fn say(&mut self, reply: &str) -> io::Result<()> {
        self.output.write_all(format!("{reply}\r\n").as_bytes())
    }
}

fn path_and_parameters(line: &str) -> (String, String) {
    let after = line.split_once('<').map_or("", |(_, rest)| rest);
    let (path, parameters) = after.split_once('>').unwrap_or((after, ""));
    (path.to_owned(), parameters.trim().to_owned())
}

fn read_content(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let start = content.len();
        if input.read_until(b'\n', &mut content)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = &content[start..];
        let whole = line.ends_with(b"\r\n") && (start == 0 || content[..start].ends_with(b"\r\n"));
        if whole && line == b".\r\n" {
            content.truncate(start);
            return Ok(content);
        }
        if line[0] == b'.' && (start == 0 || content[..start].ends_with(b"\r\n")) {
            content.remove(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Client;
    use crate::message::{assert_same, message};
    use crate::wait::SOON;

    #[test]
    fn messages_are_kept_octet_by_octet() {
        let inbox = Inbox::start();
        let content = message("kept", ".\r\n..\r\na bare\nLF and \r CR\r\n\x00\r\n");
        let mut client = Client::hello(inbox.address());
        client.send_message("a@a.test", &["b@b.test", "c@b.test"], &content).expect(250, "2.0.0");
        client.quit();
        let kept = inbox.wait_for(1, SOON);
        assert_eq!(kept[0].to, ["b@b.test", "c@b.test"]);
        assert_same(&kept[0].content, &content);
    }

    #[test]
    fn the_script_refuses_and_closes() {
        let inbox = Inbox::scripted(|step| match step {
            Step::Rcpt(line) if line.contains("nobody") => Answer::Say("550 5.1.1 Nobody".into()),
            Step::Mail(line) if line.contains("spammer") => Answer::Say("554 5.7.1 Not from you".into()),
            Step::EndOfData(_) => Answer::KeepAndClose,
            _ => Answer::Accept,
        });
        let mut client = Client::hello(inbox.address());
        client.send(b"MAIL FROM:<spammer@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n");
        for code in [554, 503, 554] {
            client.reply().expect(code, "");
        }
        client.command("MAIL FROM:<>").expect(250, "2.1.0");
        client.command("RCPT TO:<nobody@b.test>").expect(550, "5.1.1");
        client.command("DATA").expect(554, "5.5.1");
        client.open_data("", &["b@b.test"]);
        client.send(b"x\r\n.\r\n");
        client.expect_closed();
        assert_eq!(inbox.wait_for(1, SOON)[0].to, ["b@b.test"]);
        inbox.set_script(|_| Answer::Close);
        assert!(Client::try_connect(inbox.address()).is_err());
    }
}
