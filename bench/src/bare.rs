//! The least that a durable relay on glommio can cost here: the same octets over the same system calls, without
//! looking at them.
//!
//! Two pinned executors, as the relay has with one shard of each role. The first accepts, reads what a pipelining
//! client sends, answers in the same places, and makes groups of messages durable with one O_DIRECT|O_DSYNC write
//! each; the second sends what it is given on over its own connections to the next server. Nothing is parsed,
//! checked, logged, recorded, retried or bounded in time: that a read is the end of a message is told by its last
//! five octets, and replies are counted by their line ends. Only for `sluice-bench source` and `sink`.

use crate::args;
use crate::stop::Stop;
use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::channels::shared_channel::{self, SharedReceiver, SharedSender};
use glommio::io::{DmaFile, OpenOptions};
use glommio::net::{TcpListener, TcpStream};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// The file is written over and over, as a spool uses its segments again.
const FILE_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;
const READ_BYTES: usize = 16 * 1024;
/// As the relay has them.
const CONNECTIONS: usize = 20;
const HANDED_OVER_MAX: usize = 16 * 1024;
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

/// One message: its commands and its content, as they came.
struct Message {
    commands: Vec<u8>,
    content: Vec<u8>,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(options: &Options) -> Result<bool> {
    ensure!(options.cpus.0.len() == 2, "--cpus: one for accepting and one for sending");
    let stop = Stop::at_signals()?;
    let (sender, receiver) = shared_channel::new_bounded(HANDED_OVER_MAX);
    let next = options.next;
    let _sending = spawn(options.cpus.0[1], move || send_on(next, receiver))?;
    let (bind, dir) = (options.bind, options.dir.clone());
    let _accepting = spawn(options.cpus.0[0], move || accept(bind, dir, sender))?;
    while !stop.is_set() {
        std::thread::sleep(Duration::from_millis(50));
    }
    // The executors end with the process: they have nothing to finish.
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
    waiting: RefCell<Vec<(Rc<Durable>, Arc<Message>)>>,
    writer: RefCell<Option<Waker>>,
}

#[derive(Default)]
struct Durable {
    done: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Gathering {
    /// Until the message is on stable storage.
    async fn store(&self, message: Arc<Message>) {
        let durable = Rc::new(Durable::default());
        self.waiting.borrow_mut().push((durable.clone(), message));
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        poll_fn(|context| {
            if durable.done.get() {
                return Poll::Ready(());
            }
            *durable.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn write(&self, file: &DmaFile) -> Result<()> {
        let mut position = 0;
        loop {
            let group = poll_fn(|context| {
                let group = std::mem::take(&mut *self.waiting.borrow_mut());
                if group.is_empty() {
                    *self.writer.borrow_mut() = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(group)
            })
            .await;
            let octets: usize = group.iter().map(|(_, one)| one.commands.len() + one.content.len()).sum();
            let octets = octets.next_multiple_of(BLOCK);
            let mut buffer = file.alloc_dma_buffer(octets);
            let mut rest = buffer.as_bytes_mut();
            for (_, message) in &group {
                for part in [&message.commands, &message.content] {
                    let (now, later) = rest.split_at_mut(part.len());
                    now.copy_from_slice(part);
                    rest = later;
                }
            }
            if position + octets as u64 > FILE_BYTES {
                position = 0;
            }
            let written = file.write_at(buffer, position).await;
            ensure!(written.map_err(|error| anyhow!("{error}"))? == octets, "a short write");
            position += octets as u64;
            for (durable, _) in group {
                durable.done.set(true);
                if let Some(waker) = durable.waker.take() {
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

async fn accept(bind: SocketAddr, dir: PathBuf, sender: SharedSender<Arc<Message>>) -> Result<()> {
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
    let listener = TcpListener::bind(bind).map_err(|error| anyhow!("{bind}: {error}"))?;
    loop {
        let stream = listener.accept().await.map_err(|error| anyhow!("{error}"))?;
        let (gathering, sender) = (gathering.clone(), sender.clone());
        glommio::spawn_local(async move {
            let take = async |message: Arc<Message>| {
                gathering.store(message.clone()).await;
                // A message too many is lost: this is no relay.
                let _ = sender.try_send(message);
            };
            // A client that goes away is nobody's fault.
            let _ = converse(stream, take).await;
        })
        .detach();
    }
}

/// A dialogue: greeting, EHLO, then commands in one group and content in turns.
async fn converse(mut stream: TcpStream, take: impl AsyncFn(Arc<Message>)) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 bare.example ESMTP\r\n").await?;
    let mut buffer = vec![0; READ_BYTES];
    let _hello = stream.read(&mut buffer).await?;
    stream.write_all(b"250-bare.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n").await?;
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 || buffer[0] == b'Q' {
            return Ok(());
        }
        let commands = buffer[..read].to_vec();
        stream.write_all(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n").await?;
        let mut content = Vec::new();
        while !content.ends_with(b"\r\n.\r\n") {
            match stream.read(&mut buffer).await? {
                0 => return Ok(()),
                read => content.extend_from_slice(&buffer[..read]),
            }
        }
        take(Arc::new(Message { commands, content })).await;
        stream.write_all(b"250 2.0.0 Ok: durable\r\n").await?;
    }
}

/// What waits to be sent, and the connections without work.
#[derive(Default)]
struct Ready {
    messages: RefCell<VecDeque<Arc<Message>>>,
    idle: RefCell<Vec<Waker>>,
}

async fn send_on(next: SocketAddr, receiver: SharedReceiver<Arc<Message>>) -> Result<()> {
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
                let ready = ready.clone();
                glommio::spawn_local(async move {
                    if let Err(error) = deliver(next, &ready).await {
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

async fn deliver(next: SocketAddr, ready: &Ready) -> io::Result<()> {
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
        stream.write_all(&message.commands).await?;
        replies(&mut stream, &mut buffer, 3).await?;
        stream.write_all(&message.content).await?;
        replies(&mut stream, &mut buffer, 1).await?;
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
