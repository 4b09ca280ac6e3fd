//! A small SMTP server inside the test, for what no real server can be made to do: it keeps every message
//! octet by octet, and answers or closes at any step as the test's script says.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Port;

mod session;

use session::Session;

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

/// The answer to EHLO of a server that offers CHUNKING, and with `binary` BINARYMIME (RFC 3030).
pub fn offer_chunking(binary: bool) -> Answer {
    let binary = if binary { "250-BINARYMIME\r\n" } else { "" };
    let size = "250-SIZE 104857600";
    Answer::Say(format!(
        "250-inbox.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n{size}\r\n250-CHUNKING\r\n{binary}250 ENHANCEDSTATUSCODES"
    ))
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
    clients: Mutex<Vec<IpAddr>>,
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
            clients: Mutex::default(),
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

    /// Where the connections so far came from, in their order.
    pub fn clients(&self) -> Vec<IpAddr> {
        self.shared.clients.lock().expect("clients").clone()
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
        let client = stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip());
        shared.clients.lock().expect("clients").push(client);
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
