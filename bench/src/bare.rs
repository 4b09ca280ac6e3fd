//! The least that a durable relay on glommio can cost here: the same octets over the same system calls, without
//! looking at them.
//!
//! Two pinned executors, as the relay has with one shard of each role. The first accepts, reads what a pipelining
//! client sends, answers in the same places, and makes groups of messages durable with one O_DIRECT|O_DSYNC write
//! each; the second sends what it is given on over its own connections to the next server. Nothing is parsed,
//! checked, logged, recorded, retried or bounded in time: that a read is the end of a message is told by its last
//! five octets, and replies are counted by their line ends. Octets are read into the message that is sent on, and
//! copied once, into the write's aligned buffer; messages are used again. Only for `sluice-bench source` and `sink`.

use crate::args;
use crate::listen::listen;
use crate::stop::Stop;
use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::channels::shared_channel::{self, SharedReceiver, SharedSender};
use glommio::io::{DmaFile, OpenOptions};
use glommio::net::TcpStream;
use glommio::timer::sleep;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// The file is written over and over, as a spool uses its segments again.
const FILE_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;
const READ_BYTES: usize = 16 * 1024;
/// As the relay has them.
const CONNECTIONS: usize = 20;
const HANDED_OVER_MAX: usize = 16 * 1024;
/// How often it is looked whether it is to end.
const WATCH: Duration = Duration::from_millis(10);
/// O_DSYNC (open(2)).
const O_DSYNC: i32 = 0o10000;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Address to accept on
    #[arg(long)]
    pub bind: SocketAddr,
    /// Address that everything is sent on to
    #[arg(long)]
    pub next: SocketAddr,
    /// Directory for the file that messages are written to
    #[arg(long, default_value = "/var/tmp")]
    pub dir: PathBuf,
    /// CPU of the accepting executor, and of the sending one
    #[arg(long, default_value = "0,1")]
    pub cpus: args::Cpus,
}

/// One message, its content behind its commands, as they came.
#[derive(Default)]
struct Message {
    /// All of it is initialised; what is behind `filled` is room.
    octets: Vec<u8>,
    filled: usize,
    /// Octets of the commands.
    commands: usize,
}

impl Message {
    /// Where the next read goes.
    fn room(&mut self) -> &mut [u8] {
        if self.octets.len() - self.filled < READ_BYTES {
            self.octets.resize((2 * self.octets.len()).max(2 * READ_BYTES), 0);
        }
        &mut self.octets[self.filled..]
    }

    fn all(&self) -> &[u8] {
        &self.octets[..self.filled]
    }
}

/// Messages that have been sent on, to be used again: the sending executor puts them here, the accepting one takes them.
#[derive(Clone, Default)]
struct Used(Arc<Mutex<Vec<Message>>>);

impl Used {
    fn take(&self) -> Message {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn put(&self, message: Message) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Message { filled: 0, commands: 0, ..message });
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(options.cpus.0.len() == 2, "--cpus: one for accepting and one for sending");
    let stop = Stop::at_signals()?;
    let (sender, receiver) = shared_channel::new_bounded(HANDED_OVER_MAX);
    let (next, used) = (options.next, Used::default());
    let again = used.clone();
    let _sending = spawn(options.cpus.0[1], move || send_on(next, receiver, again))?;
    let (bind, dir) = (options.bind, options.dir.clone());
    let accepting = spawn(options.cpus.0[0], move || accept(bind, dir, sender, used, stop))?;
    accepting.join().map_err(|error| anyhow!("the accepting executor: {error}"))?;
    // The other one ends with the process: it has nothing to finish.
    std::process::exit(0);
}

fn spawn<F, T>(cpu: usize, body: F) -> Result<ExecutorJoinHandle<()>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = Result<()>> + 'static,
{
    let work = move || async move {
        if let Err(error) = body().await {
            eprintln!("sluice-bench bare: {error:#}");
            std::process::exit(2);
        }
    };
    let spawned = LocalExecutorBuilder::new(Placement::Fixed(cpu)).spawn(work);
    spawned.map_err(|error| anyhow!("cannot start an executor: {error}"))
}

/// Messages on their way to the disk.
#[derive(Default)]
struct Gathering {
    waiting: RefCell<Vec<Rc<Storing>>>,
    writer: RefCell<Option<Waker>>,
}

/// A session's message on its way.
#[derive(Default)]
struct Storing {
    message: RefCell<Message>,
    done: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Gathering {
    /// Until the session's message is on stable storage.
    async fn store(&self, storing: &Rc<Storing>) {
        storing.done.set(false);
        self.waiting.borrow_mut().push(storing.clone());
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        poll_fn(|context| {
            if storing.done.get() {
                return Poll::Ready(());
            }
            *storing.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn write(&self, file: &DmaFile) -> Result<()> {
        let mut position = 0;
        let mut group: Vec<Rc<Storing>> = Vec::new();
        loop {
            poll_fn(|context| {
                std::mem::swap(&mut group, &mut *self.waiting.borrow_mut());
                if group.is_empty() {
                    *self.writer.borrow_mut() = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(())
            })
            .await;
            let octets: usize = group.iter().map(|one| one.message.borrow().filled).sum();
            let octets = octets.next_multiple_of(BLOCK);
            let mut buffer = file.alloc_dma_buffer(octets);
            let mut rest = buffer.as_bytes_mut();
            for storing in &group {
                let message = storing.message.borrow();
                let (now, later) = rest.split_at_mut(message.filled);
                now.copy_from_slice(message.all());
                rest = later;
            }
            if position + octets as u64 > FILE_BYTES {
                position = 0;
            }
            let written = file.write_at(buffer, position).await;
            ensure!(written.map_err(|error| anyhow!("{error}"))? == octets, "a short write");
            position += octets as u64;
            for storing in group.drain(..) {
                storing.done.set(true);
                if let Some(waker) = storing.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

/// A file whose blocks have all been written before.
async fn open(dir: &Path) -> Result<DmaFile> {
    let path = dir.join(format!("sluice-bench-bare-{}", std::process::id()));
    std::fs::write(&path, vec![0u8; FILE_BYTES as usize]).context("cannot write the file")?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(O_DSYNC);
    let file = options.dma_open(&path).await.map_err(|error| anyhow!("{}: {error}", path.display()))?;
    // It goes with the process.
    std::fs::remove_file(&path)?;
    Ok(file)
}

async fn accept(
    bind: SocketAddr,
    dir: PathBuf,
    sender: SharedSender<Message>,
    used: Used,
    stop: Stop,
) -> Result<()> {
    let file = open(&dir).await?;
    let gathering = Rc::new(Gathering::default());
    let writing = gathering.clone();
    glommio::spawn_local(async move {
        if let Err(error) = writing.write(&file).await {
            eprintln!("sluice-bench bare: {error:#}");
            std::process::exit(2);
        }
    })
    .detach();
    let sender = Rc::new(sender.connect().await);
    let listener = listen(bind).with_context(|| format!("{bind}"))?;
    let accepting = glommio::spawn_local(async move {
        while let Ok(stream) = listener.accept().await {
            let (gathering, sender, used) = (gathering.clone(), sender.clone(), used.clone());
            glommio::spawn_local(async move {
                // A message too many is lost: this is no relay.
                let hand_over = |message: Message| drop(sender.try_send(message));
                // A client that goes away is nobody's fault.
                let _ = converse(stream, &gathering, &used, hand_over).await;
            })
            .detach();
        }
    });
    while !stop.is_set() {
        sleep(WATCH).await;
    }
    accepting.cancel().await;
    // The ring has to see the accept cancelled, else it keeps the port after the process's end.
    sleep(WATCH).await;
    Ok(())
}

/// A dialogue: greeting, EHLO, then commands in one group and content in turns.
async fn converse(
    mut stream: TcpStream,
    gathering: &Gathering,
    used: &Used,
    hand_over: impl Fn(Message),
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 bare.example ESMTP\r\n").await?;
    let mut hello = vec![0; READ_BYTES];
    stream.read(&mut hello).await?;
    stream.write_all(b"250-bare.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n").await?;
    let storing = Rc::new(Storing::default());
    loop {
        let mut message = used.take();
        message.filled = stream.read(message.room()).await?;
        if message.filled == 0 || message.octets[0] == b'Q' {
            return Ok(());
        }
        message.commands = message.filled;
        stream.write_all(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n").await?;
        while !message.all().ends_with(b"\r\n.\r\n") {
            match stream.read(message.room()).await? {
                0 => return Ok(()),
                read => message.filled += read,
            }
        }
        *storing.message.borrow_mut() = message;
        gathering.store(&storing).await;
        hand_over(storing.message.take());
        stream.write_all(b"250 2.0.0 Ok: durable\r\n").await?;
    }
}

/// What waits to be sent, and the connections without work.
#[derive(Default)]
struct Ready {
    messages: RefCell<VecDeque<Message>>,
    idle: RefCell<Vec<Waker>>,
}

async fn send_on(next: SocketAddr, receiver: SharedReceiver<Message>, used: Used) -> Result<()> {
    let receiver = receiver.connect().await;
    let ready = Rc::new(Ready::default());
    let mut connections = 0;
    while let Some(message) = receiver.recv().await {
        ready.messages.borrow_mut().push_back(message);
        // The one that was used last; its buffers are warm.
        match ready.idle.borrow_mut().pop() {
            Some(idle) => idle.wake(),
            None if connections < CONNECTIONS => {
                connections += 1;
                let (ready, used) = (ready.clone(), used.clone());
                glommio::spawn_local(async move {
                    if let Err(error) = deliver(next, &ready, &used).await {
                        eprintln!("sluice-bench bare: {next}: {error}");
                        std::process::exit(2);
                    }
                })
                .detach();
            }
            None => {}
        }
    }
    Ok(())
}

async fn deliver(next: SocketAddr, ready: &Ready, used: &Used) -> io::Result<()> {
    let mut stream = TcpStream::connect(next).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; READ_BYTES];
    let _greeting = stream.read(&mut buffer).await?;
    stream.write_all(b"EHLO bare.example\r\n").await?;
    let _hello = stream.read(&mut buffer).await?;
    loop {
        let message = poll_fn(|context| match ready.messages.borrow_mut().pop_front() {
            Some(message) => Poll::Ready(message),
            None => {
                ready.idle.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
        .await;
        let (commands, content) = message.all().split_at(message.commands);
        stream.write_all(commands).await?;
        replies(&mut stream, &mut buffer, 3).await?;
        stream.write_all(content).await?;
        replies(&mut stream, &mut buffer, 1).await?;
        used.put(message);
    }
}

async fn replies(stream: &mut TcpStream, buffer: &mut [u8], count: usize) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(memchr::memchr_iter(b'\n', &buffer[..read]).count());
    }
    Ok(())
}
