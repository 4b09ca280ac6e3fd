//! The way of a log line from any thread to standard error or a file.
//!
//! A thread gathers lines ([`write()`]) and hands them over in blocks ([`flush`]). One log thread
//! writes blocks in order. When the disk or the pipe is slower than the relay, a thread keeps up to
//! [`BUFFER_BYTES_MAX`] and then drops lines; the next line that goes through says how many. Mail is
//! never held up by its log.

use crate::clock;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A block goes to the log thread when a thread has gathered this much.
const BLOCK_BYTES: usize = 32 * 1024;
/// Lines kept by one thread while the log thread does not keep up. Prevents a stuck log from taking all memory.
const BUFFER_BYTES_MAX: usize = 1024 * 1024;
/// Blocks on their way to the log thread, for the same reason.
const BLOCKS_MAX: usize = 256;

/// See [`room`].
const ROOM_WAIT_MAX: Duration = Duration::from_secs(5);
const ROOM_LOOK: Duration = Duration::from_millis(2);

/// How long a line is held until later ones cannot be older; above what a thread takes to hand its lines on.
const HELD: Duration = Duration::from_millis(150);
/// Lines held at most: with more, order gives way to memory.
const HELD_LINES_MAX: usize = 100_000;

enum Message {
    Block(Vec<u8>),
    Reopen,
    Stop,
}

struct Target {
    blocks: Sender<Message>,
    /// ` HOST sluice/`: the constant part of each line.
    tag: Box<[u8]>,
    /// `[PID]: `
    process: Box<[u8]>,
}

static TARGET: OnceLock<Target> = OnceLock::new();

thread_local! {
    static BUFFER: RefCell<Buffer> =
        const { RefCell::new(Buffer { lines: Vec::new(), dropped: 0, flusher: None }) };
}

struct Buffer {
    lines: Vec<u8>,
    dropped: u64,
    /// Waits for a line; see [`written`].
    flusher: Option<Waker>,
}

/// The log thread; [`LogThread::finish`] at the very end, so that no line is lost.
pub struct LogThread(Option<JoinHandle<()>>);

/// Opens the log and starts its thread. Called once, before any shard starts.
pub fn start(hostname: &str, file: Option<&Path>) -> std::io::Result<LogThread> {
    let sink = match file {
        Some(path) => Sink::File { file: open(path)?, path: path.to_owned() },
        None => Sink::StandardError,
    };
    let (blocks, incoming) = bounded(BLOCKS_MAX);
    let tag = format!(" {hostname} sluice/").into_bytes().into();
    let process = format!("[{}]: ", std::process::id()).into_bytes().into();
    assert!(TARGET.set(Target { blocks, tag, process }).is_ok(), "the log is started once");
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || run(sink, incoming))?;
    Ok(LogThread(Some(thread)))
}

impl LogThread {
    /// Writes out what this thread has gathered and waits until everything sent so far is written.
    pub fn finish(mut self) {
        flush();
        if let (Some(target), Some(thread)) = (TARGET.get(), self.0.take()) {
            let _ = target.blocks.send(Message::Stop);
            let _ = thread.join();
        }
    }
}

/// SIGUSR1: opens the log file again under its name.
pub fn reopen() {
    flush();
    if let Some(target) = TARGET.get() {
        let _ = target.blocks.try_send(Message::Reopen);
    }
}

/// Gathers one line: `TIME HOST sluice/PART[PID]: TEXT`. The text holds no line end.
pub fn write(part: &str, text: impl FnOnce(&mut Vec<u8>)) {
    let Some(target) = TARGET.get() else { return };
    let flusher = BUFFER.with_borrow_mut(|buffer| {
        if buffer.lines.len() >= BLOCK_BYTES {
            buffer.hand_over(target);
        }
        if buffer.lines.len() >= BUFFER_BYTES_MAX {
            buffer.dropped += 1;
            return None;
        }
        if buffer.dropped > 0 {
            let dropped = std::mem::take(&mut buffer.dropped);
            let note = format!("warning: {dropped} log lines dropped: the log is slower than the relay");
            append_line(&mut buffer.lines, target, "log", |line| line.extend_from_slice(note.as_bytes()));
        }
        append_line(&mut buffer.lines, target, part, text);
        buffer.flusher.take()
    });
    // Waking may run foreign code, so the buffer is not borrowed meanwhile.
    if let Some(flusher) = flusher {
        flusher.wake();
    }
}

/// A line from a text that is already there.
pub fn note(part: &str, text: &str) {
    write(part, |line| line.extend_from_slice(text.as_bytes()));
}

/// Waits while the log is slower than the lines of this thread, at most [`ROOM_WAIT_MAX`]: for lines that
/// must not be dropped, in work that may wait. On a shard.
pub async fn room() {
    let is_behind = || BUFFER.with_borrow(|buffer| buffer.lines.len() >= 2 * BLOCK_BYTES);
    if !is_behind() {
        return;
    }
    let start = Instant::now();
    while is_behind() && start.elapsed() < ROOM_WAIT_MAX {
        glommio::timer::sleep(ROOM_LOOK).await;
        flush();
    }
}

/// Waits until this thread has lines to hand over. For one task of a thread, which then calls [`flush`].
pub async fn written() {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.lines.is_empty() {
                buffer.flusher = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
    })
    .await;
}

/// Hands the gathered lines of this thread to the log thread.
pub fn flush() {
    let Some(target) = TARGET.get() else { return };
    BUFFER.with_borrow_mut(|buffer| buffer.hand_over(target));
}

impl Buffer {
    fn hand_over(&mut self, target: &Target) {
        if self.lines.is_empty() {
            return;
        }
        let block = std::mem::take(&mut self.lines);
        if let Err(refused) = target.blocks.try_send(Message::Block(block))
            && let Message::Block(block) = refused.into_inner()
        {
            self.lines = block;
        }
    }
}

fn append_line(lines: &mut Vec<u8>, target: &Target, part: &str, text: impl FnOnce(&mut Vec<u8>)) {
    clock::append_log_time(lines, clock::wall_micros());
    lines.extend_from_slice(&target.tag);
    lines.extend_from_slice(part.as_bytes());
    lines.extend_from_slice(&target.process);
    text(lines);
    lines.push(b'\n');
}

enum Sink {
    StandardError,
    File { file: File, path: PathBuf },
}

impl Sink {
    fn write(&mut self, block: &[u8]) {
        // A log that cannot be written has nowhere to say so.
        let _ = match self {
            Self::StandardError => std::io::stderr().write_all(block),
            Self::File { file, .. } => file.write_all(block),
        };
    }

    fn reopen(&mut self) {
        if let Self::File { file, path } = self {
            match open(path) {
                Ok(fresh) => *file = fresh,
                Err(error) => {
                    let _ =
                        writeln!(file, "warning: {}: {error}; the old log file stays open", path.display());
                }
            }
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Threads hand their lines on at different moments. Lines are held for [`HELD`] and written in the order
/// of their times, so that a message's arrival stands before its delivery.
fn run(mut sink: Sink, incoming: Receiver<Message>) {
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut written = Instant::now();
    loop {
        // A log that nobody writes wakes nobody.
        let message = match held.is_empty() {
            true => incoming.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => incoming.recv_timeout(HELD / 2),
        };
        match message {
            Ok(Message::Block(block)) => {
                held.extend(block.split_inclusive(|&octet| octet == b'\n').map(<[u8]>::to_vec));
                if held.len() >= HELD_LINES_MAX {
                    write_until(&mut sink, &mut held, None);
                } else if written.elapsed() < HELD / 2 {
                    continue;
                }
            }
            Ok(Message::Reopen) => {
                write_until(&mut sink, &mut held, None);
                sink.reopen();
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                return write_until(&mut sink, &mut held, None);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        written = Instant::now();
        let mut until = Vec::new();
        clock::append_log_time(&mut until, clock::wall_micros().saturating_sub(HELD.as_micros() as u64));
        write_until(&mut sink, &mut held, Some(&until));
    }
}

/// Writes the held lines up to a time, or all, in the order of their times.
fn write_until(sink: &mut Sink, held: &mut Vec<Vec<u8>>, until: Option<&[u8]>) {
    held.sort_by(|a, b| time_of(a).cmp(time_of(b)));
    let count = until.map_or(held.len(), |until| held.partition_point(|line| time_of(line) <= until));
    if count > 0 {
        sink.write(&held.drain(..count).flatten().collect::<Vec<u8>>());
    }
}

/// RFC 3339 with microseconds and offset, of one length, so that it sorts as text.
fn time_of(line: &[u8]) -> &[u8] {
    &line[..line.len().min("2026-11-22T01:20:05.000123+00:00".len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_threads_are_written_in_the_order_of_their_times() {
        let path = std::env::temp_dir().join(format!("sluice-log-{}", std::process::id()));
        let mut sink = Sink::File { file: open(&path).unwrap(), path: path.clone() };
        let line = |second: u8, text: &str| {
            format!("2026-11-22T01:20:0{second}.000123+00:00 h {text}\n").into_bytes()
        };
        let mut held = vec![line(3, "c"), line(1, "a"), line(2, "b"), line(1, "a2")];
        write_until(&mut sink, &mut held, Some(b"2026-11-22T01:20:02.000123+00:00"));
        assert_eq!(held, [line(3, "c")]);
        write_until(&mut sink, &mut held, None);
        let written = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(written, [line(1, "a"), line(1, "a2"), line(2, "b"), line(3, "c")].concat());
    }

    /// A relay that always has something to say must not keep it back.
    #[test]
    fn a_stream_of_lines_without_a_pause_is_written_all_the_same() {
        let path = std::env::temp_dir().join(format!("sluice-log-stream-{}", std::process::id()));
        let sink = Sink::File { file: open(&path).unwrap(), path: path.clone() };
        let (blocks, incoming) = bounded(BLOCKS_MAX);
        let thread = std::thread::spawn(move || run(sink, incoming));
        let start = Instant::now();
        while std::fs::metadata(&path).unwrap().len() == 0 {
            assert!(start.elapsed() < Duration::from_secs(30), "nothing was written");
            let mut line = Vec::new();
            clock::append_log_time(&mut line, clock::wall_micros());
            line.extend_from_slice(b" h one of many\n");
            blocks.send(Message::Block(line)).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        blocks.send(Message::Stop).unwrap();
        thread.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
