//! Certificates made with OpenSSL, and a client that speaks TLS by Python's ssl module (OpenSSL too).

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{run, run_ok};
use crate::wait::SOON;

/// An authority of the test's own, with what it has issued, in a directory.
pub struct Authority {
    directory: PathBuf,
    name: String,
}

impl Authority {
    /// Makes `NAME.pem` and `NAME.key` in the directory.
    pub fn new(directory: &Path, name: &str) -> Self {
        let authority = Self { directory: directory.to_owned(), name: name.to_owned() };
        let subject = format!("/CN={name}");
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "100",
            "-subj",
            &subject,
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
        ]);
        authority
    }

    /// Issues `FILE.pem` and `FILE.key` for a host name; what was there is replaced, first the certificate.
    pub fn issue(&self, file: &str, host: &str) {
        self.issue_for(file, host, "");
    }

    /// As [`Authority::issue`], for further names as OpenSSL writes them, too: `DNS:localhost,IP:127.0.0.1`.
    pub fn issue_for(&self, file: &str, host: &str, further: &str) {
        let (key, request, extensions) = ("new.key", "new.csr", "new.ext");
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            &format!("/CN={host}"),
            "-keyout",
            key,
            "-out",
            request,
        ]);
        let usage = "extendedKeyUsage=serverAuth,clientAuth";
        let names = [&format!("DNS:{host}"), further].join(",");
        let names = names.trim_end_matches(',');
        fs::write(self.directory.join(extensions), format!("subjectAltName={names}\n{usage}\n"))
            .expect("a file");
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            request,
            "-days",
            "100",
            "-CA",
            &format!("{}.pem", self.name),
            "-CAkey",
            &format!("{}.key", self.name),
            "-CAcreateserial",
            "-extfile",
            extensions,
            "-out",
            "new.pem",
        ]);
        for end in ["pem", "key"] {
            let to = self.directory.join(format!("{file}.{end}"));
            fs::rename(self.directory.join(format!("new.{end}")), to).expect("a file");
        }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn openssl(&self, arguments: &[&str]) {
        run_ok(Command::new("openssl").args(arguments).current_dir(&self.directory), SOON);
    }
}

const CLIENT: &str = r#"
import json, smtplib, socket, ssl, sys
ask = json.loads(sys.argv[1])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.load_verify_locations(ask['authority'])
if ask.get('maximum') == '1.2':
    context.maximum_version = ssl.TLSVersion.TLSv1_2
if ask.get('certificate'):
    context.load_cert_chain(ask['certificate'], ask['key'])
answer = {}
session = None
try:
    for turn in range(ask.get('turns', 1)):
        stream = socket.create_connection((ask['host'], ask['port']), timeout=60)
        if not ask.get('implicit'):
            plain = stream.makefile('rb')
            plain.readline()
            stream.sendall(b'EHLO before.test\r\n')
            while plain.readline()[3:4] == b'-':
                pass
            stream.sendall(b'STARTTLS\r\n' + ask.get('injected', '').encode())
            answer['starttls'] = plain.readline().decode().strip()
        tls = context.wrap_socket(stream, server_hostname=ask.get('name', 'relay.test'), session=session)
        lines = tls.makefile('rb')
        if ask.get('implicit'):
            answer['greeting'] = lines.readline().decode().strip()
        tls.sendall(b'EHLO client.test\r\n')
        features = [lines.readline().decode().strip()]
        while features[-1][3] == '-':
            features.append(lines.readline().decode().strip())
        replies = []
        for command in ask.get('commands') or (json.load(open(ask['commands_file'])) if ask.get('commands_file') else []):
            tls.sendall(command.encode())
            replies.append(lines.readline().decode().strip())
        tls.sendall(b'QUIT\r\n')
        replies.append(lines.readline().decode().strip())
        answer.update(version=tls.version(), cipher=tls.cipher()[0], features=features, replies=replies,
            subject=dict(pair for part in tls.getpeercert()['subject'] for pair in part)['commonName'],
            serial=tls.getpeercert()['serialNumber'], resumed=tls.session_reused)
        session = tls.session
        tls.close()
except (ssl.SSLError, OSError) as error:
    answer['error'] = str(error)
json.dump(answer, sys.stdout)
"#;

/// Speaks TLS with a server as `ask` says, and gives what came of it: `starttls`, `version`, `cipher`,
/// `features`, `replies`, `subject`, `serial`, `resumed`, or `error`.
///
/// `ask` may hold `authority` (a path; demanded), `implicit`, `maximum` ("1.2"), `name` (asked for), `injected` (sent
/// in one piece with STARTTLS), `commands` (each with one reply), `certificate` and `key`, `turns` (connections, each
/// with the session of the one before).
#[track_caller]
pub fn talk(server: SocketAddr, mut ask: serde_json::Value) -> serde_json::Value {
    ask["host"] = server.ip().to_string().into();
    ask["port"] = server.port().into();
    let output = run(Command::new("python3").args(["-c", CLIENT, &ask.to_string()]), SOON * 2);
    assert!(output.status.success(), "the client: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}
