//! One session of the [`super::Inbox`]: the dialogue, led by the script.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::{Answer, Shared, Step, Transaction};

/// What follows an answer.
enum Next {
    Go,
    Refused,
    Close,
}

pub(super) struct Session<'a> {
    shared: &'a Shared,
    number: usize,
    input: BufReader<&'a TcpStream>,
    output: &'a TcpStream,
    transaction: Transaction,
    /// MAIL has been accepted.
    open: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(shared: &'a Shared, number: usize, stream: &'a TcpStream) -> Self {
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

    pub(super) fn serve(&mut self) -> io::Result<()> {
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
            "BDAT" => self.bdat(line),
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
        self.end()
    }

    /// RFC 3030; a script announces it by its answer to EHLO.
    fn bdat(&mut self, line: &str) -> io::Result<Next> {
        let mut words = line.split(' ').skip(1);
        let size = words.next().and_then(|word| word.parse().ok());
        let size: u64 = size.ok_or_else(|| io::Error::other(format!("no chunk size: {line}")))?;
        let mut chunk = Vec::new();
        if (&mut self.input).take(size).read_to_end(&mut chunk)? as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.transaction.to.is_empty() {
            self.say("554 5.5.1 No valid recipients")?;
            return Ok(Next::Refused);
        }
        self.transaction.content.extend_from_slice(&chunk);
        match words.next() {
            Some(_) => self.end(),
            None => self.answer(&Step::Other(line), "250 2.0.0 Chunk taken"),
        }
    }

    /// The content is whole.
    fn end(&mut self) -> io::Result<Next> {
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
