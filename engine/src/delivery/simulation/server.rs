//! A small SMTP server on loopback, on threads of its own: it answers as it is told and counts. It may refuse
//! connections for a while, as a host that is down does.

use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What is answered to a command: its verb (`""` for the greeting, `.` for end-of-data), its line, and the number
/// of the connection.
pub type Script = dyn Fn(&str, &str, usize) -> Option<String> + Send + Sync;

#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub connections: usize,
    pub open: usize,
    pub open_max: usize,
    /// How many were open when each one came.
    pub open_at: Vec<usize>,
    /// Recipients of delivered messages, in order.
    pub delivered: Vec<String>,
}

pub struct Server {
    socket: Option<Socket>,
    address: SocketAddr,
    script: Arc<Script>,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    /// It refuses connections until [`Server::listen`].
    pub fn down(script: impl Fn(&str, &str, usize) -> Option<String> + Send + Sync + 'static) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket: Some(socket), address, script: Arc::new(script), seen: Arc::default() }
    }

    pub fn up(script: impl Fn(&str, &str, usize) -> Option<String> + Send + Sync + 'static) -> Self {
        let mut server = Self::down(script);
        server.listen();
        server
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    pub fn listen(&mut self) {
        let socket = self.socket.take().expect("it listens already");
        socket.listen(1_024).unwrap();
        let listener: TcpListener = socket.into();
        let (script, seen) = (self.script.clone(), self.seen.clone());
        // The threads live as long as the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.connections += 1;
                    seen.open += 1;
                    seen.open_max = seen.open_max.max(seen.open);
                    let open = seen.open;
                    seen.open_at.push(open);
                    seen.connections
                };
                let (script, seen) = (script.clone(), seen.clone());
                std::thread::spawn(move || {
                    let _ = serve(stream, &*script, &seen, number);
                    seen.lock().unwrap().open -= 1;
                });
            }
        });
    }
}

fn serve(stream: TcpStream, script: &Script, seen: &Mutex<Seen>, number: usize) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let out = stream;
    let answer = |text: &str| -> std::io::Result<u8> {
        (&out).write_all(format!("{text}\r\n").as_bytes())?;
        let ends = text.starts_with("421") || text.starts_with("554 no service");
        if ends { Err(std::io::ErrorKind::ConnectionAborted.into()) } else { Ok(text.as_bytes()[0]) }
    };
    let say = |verb: &str, line: &str, default: &str| {
        answer(script(verb, line, number).as_deref().unwrap_or(default))
    };
    say("", "", "220 server.test ESMTP")?;
    let mut recipients = Vec::new();
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let verb = line[..line.find([' ', ':']).unwrap_or(line.len())].to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => drop(say("EHLO", line, "250-server.test\r\n250 PIPELINING")?),
            "MAIL" => {
                recipients.clear();
                say("MAIL", line, "250 2.1.0 ok")?;
            }
            "RCPT" => {
                if say("RCPT", line, "250 2.1.5 ok")? == b'2' {
                    let address = line.split(['<', '>']).nth(1).unwrap_or_default();
                    recipients.push(address.to_owned());
                }
            }
            "DATA" if recipients.is_empty() => drop(say("DATA", line, "554 5.5.1 no recipients")?),
            "DATA" => {
                say("DATA", line, "354 go on")?;
                let mut content = String::new();
                while content != ".\r\n" {
                    content.clear();
                    if lines.read_line(&mut content)? == 0 {
                        return Ok(());
                    }
                }
                // Counted before it is told: the sender may look at once.
                let text = script(".", &recipients.join(" "), number);
                if text.as_deref().is_none_or(|text| text.starts_with('2')) {
                    seen.lock().unwrap().delivered.append(&mut recipients);
                }
                answer(text.as_deref().unwrap_or("250 2.0.0 taken"))?;
            }
            "QUIT" => {
                say("QUIT", line, "221 2.0.0 bye")?;
                return Ok(());
            }
            _ => drop(say(&verb, line, "250 2.0.0 ok")?),
        }
    }
}
