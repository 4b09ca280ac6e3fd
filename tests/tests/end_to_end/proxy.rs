//! Who the client is, as load balancers and proxies say: PROXY with a real haproxy in front, XCLIENT with swaks.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use sluice_tests::tools::{find, swaks};
use sluice_tests::wait::{self, SOON};
use sluice_tests::{Client, Inbox, Port, Relay, lacks};

const OUTSIDE: &str = "relay = \"accepted\"\ntls = \"off\"\n";

fn relay(inbox: &Inbox, more: &str) -> Relay {
    let mut relay = Relay::builder().inward(inbox.address()).section("[limits]\nexempt = []\n").prepare();
    relay.edit_config(OUTSIDE, &format!("{OUTSIDE}{more}"));
    relay.start();
    relay
}

/// haproxy on a port of its own; it is ended when dropped.
struct Haproxy {
    port: Port,
    child: Child,
}

impl Haproxy {
    fn start(relay: &Relay, option: &str) -> Self {
        let port = Port::reserve();
        let config = relay.directory().join(format!("haproxy-{option}.cfg"));
        let text = format!(
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
             listen smtp\n bind {}\n server relay {} source 127.0.0.5 {option}\n",
            port.address(),
            relay.outside()
        );
        std::fs::write(&config, text).expect("a file");
        let child = Command::new(find("haproxy").expect("haproxy"))
            .args(["-db", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy starts");
        let haproxy = Self { port, child };
        wait::until_true(SOON, "haproxy listens", || TcpStream::connect(haproxy.address()).is_ok());
        haproxy
    }

    fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(server: SocketAddr, last: u8, to: &str) -> u16 {
    let from = Ipv4Addr::new(127, 0, 0, last);
    let (mut client, greeting) = Client::try_connect_from(from, server).expect("a connection");
    greeting.expect(220, "");
    client.command("EHLO behind.test").expect(250, "");
    client.command("MAIL FROM:<x@away.test>").expect(250, "");
    let code = client.command(&format!("RCPT TO:<{to}>")).code;
    if code == 250 {
        client.command("DATA").expect(354, "");
        client.send(b"Subject: proxied\r\n\r\nx\r\n.\r\n");
        client.reply().expect(250, "2.0.0");
    }
    client.quit();
    code
}

#[test]
fn the_client_behind_haproxy_is_the_one_that_counts() {
    if lacks("haproxy") {
        return;
    }
    for option in ["send-proxy", "send-proxy-v2"] {
        let inbox = Inbox::start();
        let mut relay =
            relay(&inbox, "proxy = [\"127.0.0.5\"]\n[listener.limits]\nconnections_per_address = 2\n");
        let haproxy = Haproxy::start(&relay, option);
        assert_eq!(send(haproxy.address(), 7, "bob@inside.test"), 250, "{option}");
        let got = &inbox.wait_for(1, SOON)[0];
        let head = String::from_utf8_lossy(&got.content).into_owned();
        assert!(head.contains("from behind.test ([127.0.0.7])"), "{option}: {head}");
        relay.log().wait_for(SOON, &["from=<x@away.test>", "client=[127.0.0.7]"]);
        // Limits are the client's, not the balancer's.
        let hold = |last: u8| {
            Client::try_connect_from(Ipv4Addr::new(127, 0, 0, last), haproxy.address()).expect("a connection")
        };
        let held: Vec<_> = (0..2).map(|_| hold(8)).collect();
        hold(8).1.expect(421, "4.7.0");
        hold(9).1.expect(220, "");
        drop(held);
        relay.stop();
    }
}

#[test]
fn a_balancer_must_send_a_header_and_nobody_else_may() {
    let inbox = Inbox::start();
    let relay = relay(&inbox, "proxy = [\"127.0.0.5\"]\n");
    let balancer = Ipv4Addr::new(127, 0, 0, 5);
    let header = "PROXY TCP4 127.0.0.77 127.0.0.1 4711 25\r\n";
    // Octet by octet, with nothing said before its end.
    let mut slow = Client::open_from(balancer, relay.outside()).expect("a connection");
    for octet in header.bytes() {
        slow.send(&[octet]);
    }
    slow.reply().expect(220, "");
    slow.quit();
    // What is none ends the connection in silence.
    for nonsense in ["EHLO c.test\r\n", "PROXY TCP4 127.0.0.77\r\n", "\r\n\r\n\0\r\nQUIT\nxxxx"] {
        let mut client = Client::open_from(balancer, relay.outside()).expect("a connection");
        client.send(nonsense.as_bytes());
        client.expect_closed();
    }
    relay.log().wait_for(SOON, &["reject: CONNECT from unknown[127.0.0.5]: no PROXY header"]);
    relay.log().wait_for(SOON, &["malformed addresses"]);
    wait::until_true(SOON, "the metric", || relay.metric("proxy_headers_failed_total") == 3);
    // From others it is no command at all.
    let (mut other, greeting) =
        Client::try_connect_from(Ipv4Addr::new(127, 0, 0, 6), relay.outside()).expect("a connection");
    greeting.expect(220, "");
    other.command(header.trim_end()).expect(500, "5.5.2");
    other.quit();
    // A health check speaks for the balancer itself.
    let mut check = Client::open_from(balancer, relay.outside()).expect("a connection");
    check.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    check.reply().expect(220, "");
    check.quit();
}

#[test]
fn a_header_that_does_not_come_ends_the_connection() {
    let inbox = Inbox::start();
    let mut relay =
        Relay::builder().inward(inbox.address()).section("[timeouts]\nproxy_header = \"300ms\"\n").prepare();
    relay.edit_config(OUTSIDE, &format!("{OUTSIDE}proxy = [\"127.0.0.5\"]\n"));
    relay.start();
    let mut silent = Client::open_from(Ipv4Addr::new(127, 0, 0, 5), relay.outside()).expect("a connection");
    silent.send(b"PROXY TCP4 ");
    silent.expect_closed();
    relay.log().wait_for(SOON, &["no PROXY header within 0.3 seconds"]);
}

#[test]
fn swaks_speaks_for_another_by_xclient() {
    if lacks("swaks") {
        return;
    }
    let inbox = Inbox::start();
    let relay = relay(&inbox, "xclient = [\"127.0.0.1\"]\n");
    let attributes = ["--xclient", "ADDR=127.0.0.42 NAME=mx.away.test", "--body", "by xclient"];
    let (sent, dialogue) = swaks(relay.outside(), "x@away.test", "bob@inside.test", &attributes);
    assert!(sent && dialogue.contains("XCLIENT ADDR=127.0.0.42"), "{dialogue}");
    let got = &inbox.wait_for(1, SOON)[0];
    let head = String::from_utf8_lossy(&got.content).into_owned();
    assert!(head.contains("(mx.away.test [127.0.0.42])"), "{head}");
    relay.log().wait_for(SOON, &["client=[127.0.0.42]"]);
    assert_eq!(relay.metric("xclients_total"), 1);
    // A client that the listener does not take.
    let strange = ["--xclient", "ADDR=198.51.100.1"];
    let (sent, dialogue) = swaks(relay.outside(), "x@away.test", "bob@inside.test", &strange);
    assert!(!sent && dialogue.contains("554 5.7.1"), "{dialogue}");
    // Not offered to others.
    let (mut other, greeting) =
        Client::try_connect_from(Ipv4Addr::new(127, 0, 0, 6), relay.outside()).expect("a connection");
    greeting.expect(220, "");
    let hello = other.command("EHLO other.test");
    assert!(!hello.text().contains("XCLIENT"), "{}", hello.text());
    other.command("XCLIENT ADDR=127.0.0.9").expect(550, "5.7.1");
}

/// The header comes before the handshake, and not one octet of the handshake is lost with it.
#[test]
fn a_header_may_come_before_implicit_tls() {
    let inbox = Inbox::start();
    let mut relay = Relay::builder().inward(inbox.address()).prepare();
    let authority = sluice_tests::tls::Authority::new(relay.directory(), "authority");
    authority.issue("relay", "relay.test");
    let tls = format!(
        "[tls]\ncertificate = {:?}\nkey = {:?}\n[spool]\n",
        authority.path("relay.pem"),
        authority.path("relay.key")
    );
    relay.edit_config("[spool]\n", &tls);
    relay.edit_config(OUTSIDE, "relay = \"accepted\"\ntls = \"implicit\"\nproxy = [\"127.0.0.1\"]\n");
    relay.start();
    let script = "\
import socket, ssl, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
header = b'PROXY TCP4 127.0.0.33 127.0.0.1 4711 465\\r\\n'
context = ssl.create_default_context(cafile=sys.argv[3])
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname='relay.test')
try: tls.do_handshake()
except ssl.SSLWantReadError: pass
connection.sendall(header + outgoing.read())
while True:
    incoming.write(connection.recv(65536))
    try: tls.do_handshake(); break
    except ssl.SSLWantReadError: pass
connection.sendall(outgoing.read())
while True:
    try: print(tls.read(4096).decode()); break
    except ssl.SSLWantReadError: incoming.write(connection.recv(65536))
";
    let server = relay.outside();
    let mut command = Command::new("python3");
    command.args(["-c", script, &server.ip().to_string(), &server.port().to_string()]);
    let said = sluice_tests::process::run_ok(command.arg(authority.path("authority.pem")), SOON);
    assert!(said.starts_with("220 relay.test"), "{said}");
    let mut plain = TcpStream::connect(server).expect("a connection");
    plain.write_all(b"EHLO c\r\n").expect("a write");
    relay.log().wait_for(SOON, &["no PROXY header"]);
}
