//! An HTTPS server by Python's http.server and ssl, for policies of MTA-STS and for reports: what it answers to a
//! host lies in files that a test writes, and what is posted to it lies in files, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::wait::{SOON, until_true};
use crate::{Port, wait};

const SERVER: &str = r#"
import http.server, os, ssl, sys
port, certificate, key, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        host = self.headers['Host'].split(':')[0]
        with open(os.path.join(directory, 'asked'), 'a') as asked:
            asked.write(host + ' ' + self.path + '\n')
        try:
            head, body = open(os.path.join(directory, host), 'rb').read().split(b'\n', 1)
        except OSError:
            head, body = b'404 text/plain', b'none'
        code, media = head.decode().split(' ', 1)
        self.answer(int(code), media, body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        name = os.path.join(directory, 'posted')
        with open(name + '.new', 'wb') as posted:
            posted.write((self.path + ' ' + self.headers['Content-Type'] + '\n').encode() + body)
        os.rename(name + '.new', name)
        self.answer(200, 'text/plain', b'thanks')
    def answer(self, code, media, body):
        self.send_response(code)
        if 300 <= code < 400:
            self.send_header('Location', '/elsewhere')
        self.send_header('Content-Type', media)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *rest):
        pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

/// The server, on 127.0.0.1 and a port of its own. Dropping it stops it.
pub struct Https {
    port: Port,
    directory: TempDir,
    child: Child,
}

impl Https {
    /// With this certificate and key.
    pub fn start(certificate: &Path, key: &Path) -> Self {
        let port = Port::reserve();
        let directory = tempfile::tempdir().expect("a directory");
        let child = Command::new("python3")
            .args(["-c", SERVER, &port.number().to_string()])
            .args([certificate, key, directory.path()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("python3");
        let server = Self { port, directory, child };
        until_true(SOON, "the HTTPS server listens", || {
            std::net::TcpStream::connect(server.port.address()).is_ok()
        });
        server
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// From now on GET of whatever at this host is answered so.
    pub fn answers(&self, host: &str, code: u16, media_type: &str, body: &str) -> &Self {
        let new = self.path("answer.new");
        fs::write(&new, format!("{code} {media_type}\n{body}")).expect("a file");
        fs::rename(new, self.path(host)).expect("a file");
        self
    }

    /// A policy of MTA-STS for this domain.
    pub fn policy(&self, domain: &str, mode: &str, mx: &str, max_age: u64) -> &Self {
        let text = format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: {max_age}\r\n");
        self.answers(&format!("mta-sts.{domain}"), 200, "text/plain; charset=utf-8", &text)
    }

    /// How often a host was asked for something.
    pub fn times_asked(&self, host: &str) -> usize {
        let asked = fs::read_to_string(self.path("asked")).unwrap_or_default();
        asked.lines().filter(|line| line.split(' ').next() == Some(host)).count()
    }

    /// Path and media type of what was posted last, and the file that holds it behind that first line.
    pub fn posted(&self) -> (String, Vec<u8>) {
        let path = self.path("posted");
        wait::until_true(SOON, "something is posted", || path.exists());
        let octets = fs::read(path).expect("what was posted");
        let end = octets.iter().position(|&octet| octet == b'\n').expect("a first line");
        (String::from_utf8_lossy(&octets[..end]).into_owned(), octets[end + 1..].to_vec())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
