//! Dovecot's auth socket, the client's side (protocol version 1): PLAIN, delegated.
//!
//! Lives on the service thread. One connection for each question: the handshake is short and local, and a
//! failure, which Dovecot holds back for seconds, holds up nobody else. A peer that does not keep to the
//! protocol is not available; it never lets anybody in.

use super::{Failure, Verified, unavailable};
use crate::smtp::sasl::{self, Secret};
use base64ct::{Base64, Encoding};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Questions at a time; Dovecot's own `client_limit` is higher.
const AT_ONCE: usize = 32;
/// Octets that Dovecot may say in one conversation.
const SAID_OCTETS_MAX: u64 = 64 * 1024;

pub(super) struct Dovecot {
    socket: PathBuf,
    places: Semaphore,
}

impl Dovecot {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), places: Semaphore::new(AT_ONCE) }
    }

    pub async fn verify(&self, client: IpAddr, login: &str, password: &Secret) -> Result<Verified, Failure> {
        let _place = self.places.acquire().await.map_err(unavailable)?;
        let failed = |error: std::io::Error| unavailable(format_args!("{}: {error}", self.socket.display()));
        let mut stream = UnixStream::connect(&self.socket).await.map_err(failed)?;
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader.take(SAID_OCTETS_MAX));
        let hello = format!("VERSION\t1\t1\nCPID\t{}\n", std::process::id());
        writer.write_all(hello.as_bytes()).await.map_err(failed)?;
        loop {
            let line = next(&mut lines).await.map_err(failed)?;
            match line.split_once('\t').map_or((line.as_str(), ""), |(word, rest)| (word, rest)) {
                ("VERSION", version) if !version.starts_with("1\t") => {
                    return Err(unavailable(format_args!("Dovecot speaks version {version}, not 1")));
                }
                ("DONE", _) => break,
                _ => {}
            }
        }
        writer.write_all(question(client, login, password).as_bytes()).await.map_err(failed)?;
        let line = next(&mut lines).await.map_err(failed)?;
        answer(login, &line)
    }
}

async fn next(lines: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<String> {
    let mut line = String::new();
    lines.read_line(&mut line).await?;
    match line.pop() {
        Some('\n') => Ok(line),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A login cannot hold a control octet, and the message is base64: nothing can end the line.
fn question(client: IpAddr, login: &str, password: &Secret) -> Zeroizing<String> {
    let message = Zeroizing::new([b"\0", login.as_bytes(), b"\0", password.expose()].concat());
    let message = Zeroizing::new(Base64::encode_string(&message));
    Zeroizing::new(format!("AUTH\t1\tPLAIN\tservice=smtp\tsecured\trip={client}\tresp={}\n", *message))
}

fn answer(login: &str, line: &str) -> Result<Verified, Failure> {
    let mut words = line.split('\t');
    let (verb, id) = (words.next(), words.next());
    let parameters: Vec<&str> = words.collect();
    let value = |name: &str| parameters.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    match (verb, id) {
        (Some("OK"), Some("1")) => {
            let login = value("user").map_or(Some(login.to_owned()), sasl::login);
            let login = login.ok_or_else(|| unavailable("Dovecot names a user that is no login"))?;
            Ok(Verified { login, addresses: Vec::new(), signature: None })
        }
        (Some("FAIL"), Some("1")) if parameters.contains(&"temp") => {
            Err(unavailable(format_args!("Dovecot: {}", value("reason").unwrap_or("temporary failure"))))
        }
        (Some("FAIL"), Some("1")) => Err(Failure::Refused),
        _ => Err(unavailable("Dovecot's answer is none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_all_else_is_unavailable() {
        let accepted =
            |login: &str| Ok(Verified { login: login.into(), addresses: Vec::new(), signature: None });
        assert_eq!(answer("ann", "OK\t1\tuser=Ann@Winery.example\tuid=7"), accepted("ann@winery.example"));
        assert_eq!(answer("ann", "OK\t1"), accepted("ann"));
        assert_eq!(answer("ann", "FAIL\t1\tuser=ann"), Err(Failure::Refused));
        assert_eq!(answer("ann", "FAIL\t1\tuser=ann\tuser_disabled"), Err(Failure::Refused));
        for line in ["FAIL\t1\ttemp", "OK\t2\tuser=ann", "OK", "", "CONT\t1\t", "OK\t1\tuser=\u{7}"] {
            assert!(matches!(answer("ann", line), Err(Failure::Unavailable(_))), "{line}");
        }
    }

    #[test]
    fn a_question_is_one_line_with_the_message_last() {
        let asked = question("192.0.2.1".parse().unwrap(), "tim", &Secret::new(b"tanstaaf\n\ttanstaaf"));
        assert_eq!(asked.matches('\n').count(), 1);
        assert!(asked.starts_with("AUTH\t1\tPLAIN\tservice=smtp\tsecured\trip=192.0.2.1\tresp=AHRpbQB0YW5z"));
    }
}
