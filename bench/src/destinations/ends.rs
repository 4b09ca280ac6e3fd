//! The world that the relay sends to: a name server that knows as many domains as are asked for, a host that takes
//! mail, one that accepts connections and says nothing, one that is not there; and who sends the mail in.
//!
//! On two threads of the measuring process, each with a runtime of its own. Domain n is `dN.bench.example`, its only
//! MX host `mx.dN.bench.example`, a name of its own at one of the three addresses.

use anyhow::{Context as _, Result, ensure};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const TAKES: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const ABSENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SILENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Of every answer, in seconds: longer than a measurement.
const TTL: u32 = 3_600;
const MX: u16 = 15;
const A: u16 = 1;
/// Sessions that send at the same time.
const SESSIONS: usize = 8;

/// What a domain's host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    Takes,
    Silent,
    Absent,
}

/// Every `1 / troubled` domain is silent or absent, in turns; none with 0.
pub fn host_of(domain: u64, troubled: u64) -> Host {
    match (domain + 1).checked_rem(troubled) {
        Some(0) if (domain / troubled).is_multiple_of(2) => Host::Silent,
        Some(0) => Host::Absent,
        _ => Host::Takes,
    }
}

/// What has come, and when.
pub struct Arrivals {
    began: Instant,
    /// When each message was sent in, microseconds; 0: not yet.
    sent: Vec<AtomicU64>,
    latencies: Mutex<Vec<u64>>,
    connections: AtomicU64,
}

impl Arrivals {
    pub fn new(messages: u64) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            sent: (0..messages).map(|_| AtomicU64::new(0)).collect(),
            latencies: Mutex::default(),
            connections: AtomicU64::new(0),
        })
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64 + 1
    }

    pub fn count(&self) -> u64 {
        self.latencies.lock().expect("no panic holds it").len() as u64
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// From before a message was sent in to its arrival, microseconds, ascending.
    pub fn latencies(&self) -> Vec<u64> {
        let mut all = self.latencies.lock().expect("no panic holds it").clone();
        all.sort_unstable();
        all
    }
}

/// Name server at `port + 1` and hosts at `port`, until the process ends.
pub fn serve(port: u16, troubled: u64, arrivals: Arc<Arrivals>) -> Result<Ends> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (names, takes, silent) = runtime.block_on(async {
        let names = UdpSocket::bind((TAKES, port + 1)).await.context("the name server's port")?;
        let takes = TcpListener::bind((TAKES, port)).await.context("the hosts' port")?;
        let silent = TcpListener::bind((SILENT, port)).await.context("the silent hosts' port")?;
        anyhow::Ok((names, takes, silent))
    })?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        runtime.block_on(async move {
            tokio::select! {
                _ = stopped => {}
                () = answer(names, troubled) => {}
                () = take_all(takes, arrivals) => {}
                () = keep_silent(silent) => {}
            }
        });
    });
    Ok(Ends { stop: Some(stop), thread: Some(thread) })
}

/// Dropping it ends what it stands for.
pub struct Ends {
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().into_iter().for_each(|thread| drop(thread.join()));
    }
}

async fn answer(socket: UdpSocket, troubled: u64) {
    let mut question = [0; 1_500];
    while let Ok((len, from)) = socket.recv_from(&mut question).await {
        if let Some(reply) = reply(&question[..len], troubled) {
            let _ = socket.send_to(&reply, from).await;
        }
    }
}

/// The reply to a question (RFC 1035 section 4): its one record, or none of that type.
fn reply(question: &[u8], troubled: u64) -> Option<Vec<u8>> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*question.get(at)?);
        if len == 0 {
            break;
        }
        labels.push(std::str::from_utf8(question.get(at + 1..at + 1 + len)?).ok()?.to_ascii_lowercase());
        at += 1 + len;
    }
    let kind = u16::from_be_bytes([*question.get(at + 1)?, *question.get(at + 2)?]);
    let end = at + 5;
    let number = |label: &String| label.strip_prefix('d')?.parse::<u64>().ok();
    let record: Option<Vec<u8>> = match (&labels[..], kind) {
        ([domain, _, _], MX) if number(domain).is_some() => {
            // Preference 10, "mx" and the name of the question.
            Some([&[0, 10, 2][..], b"mx", &[0xc0, 12]].concat())
        }
        ([mx, domain, _, _], A) if mx == "mx" => number(domain).map(|domain| {
            let address = match host_of(domain, troubled) {
                Host::Takes => TAKES,
                Host::Silent => SILENT,
                Host::Absent => ABSENT,
            };
            address.octets().to_vec()
        }),
        _ => None,
    };
    let mut out = Vec::with_capacity(end + 64);
    out.extend_from_slice(question.get(..2)?);
    out.extend_from_slice(&[0x85, 0x80, 0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0]);
    out.extend_from_slice(question.get(12..end)?);
    if let Some(record) = record {
        out.extend_from_slice(&[0xc0, 12]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out.extend_from_slice(&TTL.to_be_bytes());
        out.extend_from_slice(&(record.len() as u16).to_be_bytes());
        out.extend_from_slice(&record);
    }
    Some(out)
}

async fn keep_silent(listener: TcpListener) {
    let mut held = Vec::new();
    while let Ok((stream, _)) = listener.accept().await {
        held.push(stream);
    }
}

async fn take_all(listener: TcpListener, arrivals: Arc<Arrivals>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                arrivals.connections.fetch_add(1, Relaxed);
                let arrivals = arrivals.clone();
                tokio::spawn(async move { drop(take(stream, &arrivals).await) });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn take(stream: TcpStream, arrivals: &Arrivals) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 sink.bench.example ESMTP\r\n").await?;
    let (mut line, mut content, mut out) = (Vec::new(), false, Vec::new());
    let mut numbers: Vec<usize> = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if content {
            if line == b".\r\n" {
                content = false;
                out.extend_from_slice(b"250 2.0.0 taken\r\n");
                let now = arrivals.now();
                let sent = |number: usize| arrivals.sent.get(number).map_or(now, |sent| sent.load(Relaxed));
                let mut latencies = arrivals.latencies.lock().expect("no panic holds it");
                latencies.extend(numbers.drain(..).map(|number| now.saturating_sub(sent(number))));
            } else {
                continue;
            }
        } else {
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            out.extend_from_slice(match &verb[..] {
                b"EHLO" => b"250-sink.bench.example\r\n250 PIPELINING\r\n",
                b"RCPT" => {
                    let text = String::from_utf8_lossy(&line);
                    let local = text.split(['<', '@']).nth(1).and_then(|local| local.strip_prefix('m'));
                    let number: Option<usize> = local.and_then(|number| number.parse().ok());
                    numbers.extend(number);
                    b"250 2.1.5 ok\r\n"
                }
                b"DATA" => {
                    content = true;
                    b"354 go on\r\n"
                }
                b"QUIT" => b"221 2.0.0 bye\r\n",
                _ => b"250 2.0.0 ok\r\n",
            });
            if &verb[..] == b"QUIT" {
                return stream.write_all(&out).await;
            }
        }
        // Replies to one group go out together.
        if stream.buffer().is_empty() {
            stream.write_all(&out).await?;
            out.clear();
        }
    }
}

/// Sends every message in: number n to the domain that `domain_of` says.
pub fn send(
    target: SocketAddr,
    arrivals: &Arc<Arrivals>,
    domain_of: fn(u64, u64) -> u64,
    each: u64,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let next = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let mut sessions = tokio::task::JoinSet::new();
        for _ in 0..SESSIONS {
            let (arrivals, next) = (arrivals.clone(), next.clone());
            sessions.spawn(async move { session(target, &arrivals, &next, domain_of, each).await });
        }
        while let Some(done) = sessions.join_next().await {
            done.context("a session")??;
        }
        Ok(())
    })
}

async fn session(
    target: SocketAddr,
    arrivals: &Arrivals,
    next: &AtomicU64,
    domain_of: fn(u64, u64) -> u64,
    each: u64,
) -> Result<()> {
    let mut stream = TcpStream::connect(target).await.context("the relay")?;
    stream.set_nodelay(true)?;
    let content = format!("Subject: bench\r\n\r\n{}.\r\n", "0123456789abcdef0123456789abcdef\r\n".repeat(60));
    expect(&mut stream, b"220").await?;
    stream.write_all(b"EHLO source.bench.example\r\n").await?;
    expect(&mut stream, b"250").await?;
    loop {
        let number = next.fetch_add(1, Relaxed);
        let Some(sent) = arrivals.sent.get(number as usize) else { break };
        sent.store(arrivals.now(), Relaxed);
        let domain = domain_of(number, each);
        let commands = format!(
            "MAIL FROM:<s@source.bench.example>\r\nRCPT TO:<m{number}@d{domain}.bench.example>\r\nDATA\r\n"
        );
        stream.write_all(commands.as_bytes()).await?;
        expect(&mut stream, b"354").await?;
        stream.write_all(content.as_bytes()).await?;
        expect(&mut stream, b"250 2").await?;
    }
    stream.write_all(b"QUIT\r\n").await?;
    Ok(())
}

/// Reads until a whole line begins with that and nothing comes behind it.
async fn expect(stream: &mut TcpStream, wanted: &[u8]) -> Result<()> {
    let mut text = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let len = stream.read(&mut piece).await?;
        ensure!(len > 0, "the relay hung up: {}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&piece[..len]);
        let refused = text.split(|&byte| byte == b'\n').any(|line| matches!(line.first(), Some(b'4' | b'5')));
        ensure!(!refused, "the relay refused: {}", String::from_utf8_lossy(&text));
        let last = text.strip_suffix(b"\r\n").map(|text| text.rsplit(|&byte| byte == b'\n').next());
        if last.flatten().is_some_and(|line| line.starts_with(wanted) && line.get(3) == Some(&b' ')) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.extend_from_slice(&[0, (kind >> 8) as u8, kind as u8, 0, 1]);
        out
    }

    #[test]
    fn every_domain_has_its_own_host_and_no_address_of_another_kind() {
        let mx = reply(&question("d17.bench.example", MX), 0).unwrap();
        assert_eq!((mx[0], mx[7]), (7, 1));
        assert!(mx.ends_with(&[0, 7, 0, 10, 2, b'm', b'x', 0xc0, 12]));
        let address = reply(&question("mx.D17.bench.example", A), 0).unwrap();
        assert!(address.ends_with(&[0, 4, 127, 0, 0, 1]));
        assert_eq!(reply(&question("mx.d17.bench.example", 28), 0).unwrap()[7], 0);
        assert_eq!(reply(&question("other.example", MX), 0).unwrap()[7], 0);
        for len in 0..question("d1.bench.example", MX).len() {
            assert_eq!(reply(&question("d1.bench.example", MX)[..len], 0), None);
        }
    }

    #[test]
    fn one_domain_in_so_many_is_in_trouble() {
        let hosts: Vec<Host> = (0..1_000).map(|domain| host_of(domain, 100)).collect();
        let count = |wanted| hosts.iter().filter(|host| **host == wanted).count();
        assert_eq!([Host::Takes, Host::Silent, Host::Absent].map(count), [990, 5, 5]);
        assert_eq!((host_of(0, 0), host_of(99, 0)), (Host::Takes, Host::Takes));
    }
}
