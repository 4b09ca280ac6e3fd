//! The sink: takes every message, checks it, and forgets it.
//!
//! `run` lives on the main thread: it starts one executor per CPU, each with a listener of its own on the same port
//! (SO_REUSEPORT), waits for the end and adds up. A connection is a local task that feeds a pure [`session`];
//! nothing is shared between executors but two counters.

mod announce;
mod faults;
mod report;
mod seen;
mod session;
mod tls;
mod verify;

pub use report::Report;

use crate::listen::listen;
use crate::stop::Stop;
use crate::wire::Stream;
use crate::{args, process};
use anyhow::{Context as _, Result, bail, ensure};
use clap::{ArgAction, Args};
use faults::{Faults, Refusal};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use report::Tally;
use session::{Next, Session};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// How often an executor looks whether it is to end.
const WATCH: Duration = Duration::from_millis(10);
/// A connection's first read buffer; it grows while reads fill it. Keeps many idle connections cheap.
const READ_OCTETS_MIN: usize = 8 * 1024;
const READ_OCTETS_MAX: usize = 128 * 1024;
/// Connections of one executor; past it a client gets 421. Prevents running out of files.
const CONNECTIONS_MAX: usize = 16_000;
/// A client that is silent for this long is dropped (RFC 5321 4.5.3.2.7).
const IDLE_MAX: Duration = Duration::from_secs(300);

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one, which is printed
    #[arg(long, default_value = "127.0.0.1:2600")]
    pub bind: SocketAddr,
    /// CPUs to run on, one pinned executor each, like 0-1,4; without it one that the kernel may move
    #[arg(long)]
    pub cpus: Option<args::Cpus>,
    /// End when this many different messages have come
    #[arg(long)]
    pub expect: Option<u64>,
    /// Read numbers from standard input, one a line, and print for each the time (nanoseconds since 1970) at which so
    /// many of them have come in all: different messages, or recipients
    #[arg(long, value_enum, value_name = "WHAT")]
    pub announce: Option<announce::What>,
    /// End after this many seconds
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Offer STARTTLS with this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Hand out tickets, by which a client resumes a session
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub tls_tickets: bool,
    /// Wait this long before each group of replies, like 10ms
    #[arg(long, value_parser = args::duration)]
    pub delay_reply: Option<Duration>,
    /// Refuse: PHASE:CODE for all, PHASE:CODE/N for each N-th, PHASE:CODE%P for P percent. Phases: connect, ehlo,
    /// mail, rcpt, data (the command), dot (after the content). May be repeated
    #[arg(long)]
    pub refuse: Vec<Refusal>,
    /// Announce CHUNKING and accept BDAT (RFC 3030)
    #[arg(long)]
    pub chunking: bool,
    /// Write a line RUN-NUMBER for each intact message to this file, as they come
    #[arg(long)]
    pub received: Option<PathBuf>,
}

/// What the connections of one executor share.
struct Shared {
    options: Options,
    tally: RefCell<Tally>,
    faults: RefCell<Faults>,
    everywhere: Arc<Everywhere>,
    tls: Option<futures_rustls::TlsAcceptor>,
}

/// What all executors share.
#[derive(Default)]
struct Everywhere {
    /// Different messages so far.
    messages: AtomicU64,
    recipients: AtomicU64,
    /// When the newest message came, in nanoseconds since 1970.
    last: AtomicU64,
    /// Executors that listen.
    listening: AtomicU64,
    /// The port that they listen on.
    port: AtomicU16,
}

/// Receives until told to end, and prints the figures as JSON; `false` when a message was damaged or repeated.
pub fn run(options: &Options) -> Result<bool> {
    let stop = Stop::at_signals()?;
    let everywhere = Arc::new(Everywhere::default());
    let received = report::Received::create(options.received.as_deref())?;
    let tls = tls::acceptor(options)?;
    let builders = args::executors(options.cpus.as_ref());
    let executors = builders.len() as u64;
    ensure!(executors == 1 || options.bind.port() != 0, "port 0 would be another one for each of --cpus");
    let mut threads = Vec::new();
    for (index, builder) in builders.into_iter().enumerate() {
        let (options, stop, everywhere) = (options.clone(), stop.clone(), everywhere.clone());
        let (received, tls) = (received.clone(), tls.clone());
        let thread = builder.name("sink").spawn(move || async move {
            let shared = Shared {
                tally: RefCell::new(Tally::new(received)),
                faults: RefCell::new(Faults::new(&options.refuse, index as u64 + 1)),
                options,
                everywhere,
                tls,
            };
            serve(Rc::new(shared), &stop).await
        });
        threads.push(thread.map_err(|error| anyhow::anyhow!("cannot start an executor: {error}"))?);
    }
    let mut announced = false;
    let cpu_before = process::own_cpu();
    let mut cpu_after = cpu_before;
    let mut tally = Tally::default();
    while !announced && !stop.is_set() {
        announced = everywhere.listening.load(Ordering::Acquire) == executors;
        std::thread::sleep(Duration::from_millis(1));
    }
    if announced {
        let mut address = options.bind;
        address.set_port(everywhere.port.load(Ordering::Relaxed));
        eprintln!("sink: listening on {address}");
    }
    if let Some(what) = options.announce {
        announce::start(what, everywhere.clone())?;
    }
    for thread in threads {
        let (part, cpu) = thread.join().map_err(|error| anyhow::anyhow!("an executor ended: {error}"))??;
        tally.add(part);
        cpu_after = cpu_after.max(cpu);
    }
    let report = Report::new(&tally, cpu_after.saturating_sub(cpu_before));
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(report.intact())
}

/// One executor's work, until the end of the run. Returns its counts and the process's CPU time at the end.
async fn serve(shared: Rc<Shared>, stop: &Stop) -> Result<(Tally, Duration)> {
    let listener = match listen(shared.options.bind) {
        Ok(listener) => listener,
        Err(error) => {
            stop.set();
            bail!("cannot listen on {}: {error}", shared.options.bind);
        }
    };
    if let Ok(address) = listener.local_addr() {
        shared.everywhere.port.store(address.port(), Ordering::Relaxed);
    }
    shared.everywhere.listening.fetch_add(1, Ordering::Release);
    let accepting = glommio::spawn_local(accept(shared.clone(), listener));
    let deadline = shared.options.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let complete = || {
        let messages = shared.everywhere.messages.load(Ordering::Relaxed);
        shared.options.expect.is_some_and(|expected| messages >= expected)
    };
    while !stop.is_set() && !complete() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        sleep(WATCH).await;
    }
    // Replies to the last messages are on their way or in the next turn.
    sleep(WATCH).await;
    let cpu = process::own_cpu();
    accepting.cancel().await;
    // The ring has to see the accept cancelled, else it keeps the port after the process's end.
    sleep(WATCH).await;
    let tally = shared.tally.take();
    tally.received.flush().context("cannot write the received numbers")?;
    Ok((tally, cpu))
}

async fn accept(shared: Rc<Shared>, listener: TcpListener) {
    let open = Rc::new(());
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let (shared, open) = (shared.clone(), open.clone());
                glommio::spawn_local(async move {
                    let full = Rc::strong_count(&open) > CONNECTIONS_MAX;
                    connection(&shared, stream, full).await;
                })
                .detach();
            }
            Err(_) => {
                shared.tally.borrow_mut().accept_errors += 1;
                sleep(WATCH).await;
            }
        }
    }
}

async fn connection(shared: &Shared, stream: TcpStream, full: bool) {
    shared.tally.borrow_mut().connections += 1;
    if stream.set_nodelay(true).is_err() || stream.set_read_timeout(Some(IDLE_MAX)).is_err() {
        return;
    }
    let mut stream: Box<dyn Stream> = Box::new(stream);
    let mut session = Session::new(shared.options.chunking, shared.tls.is_some());
    let mut replies = Vec::new();
    let mut next = session.greet(full, &mut shared.faults.borrow_mut(), &mut replies);
    let mut buffer = vec![0; READ_OCTETS_MIN];
    loop {
        if !replies.is_empty() {
            if let Some(delay) = shared.options.delay_reply {
                sleep(delay).await;
            }
            if stream.write_all(&replies).await.is_err() || stream.flush().await.is_err() {
                break;
            }
            replies.clear();
        }
        match (next, &shared.tls) {
            (Next::Read, _) => {}
            (Next::StartTls, Some(acceptor)) => match tls::secure(acceptor, stream).await {
                Ok((secured, resumed)) => {
                    stream = secured;
                    shared.tally.borrow_mut().handshake(resumed);
                }
                Err(_) => {
                    shared.tally.borrow_mut().handshakes_failed += 1;
                    return;
                }
            },
            _ => return,
        }
        let octets = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(octets) => octets,
        };
        let mut tally = shared.tally.borrow_mut();
        let (before, recipients) = (tally.distinct(), tally.recipients);
        next = session.handle(&buffer[..octets], &mut shared.faults.borrow_mut(), &mut tally, &mut replies);
        if tally.recipients > recipients {
            let last = tally.last.and_then(|last| last.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            shared.everywhere.last.fetch_max(last.as_nanos() as u64, Ordering::Relaxed);
            shared.everywhere.messages.fetch_add(tally.distinct() - before, Ordering::Release);
            shared.everywhere.recipients.fetch_add(tally.recipients - recipients, Ordering::Release);
        }
        drop(tally);
        if octets == buffer.len() && octets < READ_OCTETS_MAX {
            buffer.resize(octets * 2, 0);
        }
    }
    if session.in_transaction() {
        shared.tally.borrow_mut().broken_off += 1;
    }
}
