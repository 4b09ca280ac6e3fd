//! How the relay gets to a host: both families raced (RFC 8305), from the route's source addresses, with a
//! memory for addresses that have failed.

use sluice_tests::log::field;
use sluice_tests::message::message;
use sluice_tests::wait::{SOON, until_true};
use sluice_tests::{Answer, Client, Dns, Inbox, Port, Relay};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

/// A listener that takes no connection: its backlog is full, so further SYNs vanish.
struct BlackHole(Child);

impl BlackHole {
    fn at(address: SocketAddr) -> Self {
        let script = "\
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
listener.bind((host, port)); listener.listen(0)
clients = []
for _ in range(8):
    client = socket.socket(listener.family); client.settimeout(0.2)
    try: client.connect((host, port))
    except TimeoutError: print('full', flush=True); break
    clients.append(client)
sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script, &address.ip().to_string(), &address.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        assert_eq!(line, "full\n");
        Self(child)
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn over_ipv6(port: &Port) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, port.number()))
}

/// By MX, a new connection for each message.
fn relay(dns: &Dns, port: &Port) -> Relay {
    let internal = Port::reserve();
    Relay::builder()
        .inward(internal.address())
        .outward_by_mx(dns.address(), port.number())
        .section("[delivery]\nidle = \"0s\"")
        .start()
}

fn send(relay: &Relay, to: &str) {
    let mut client = Client::hello(relay.inside());
    client.send_message("bob@inside.test", &[to], &message("connecting", "x\r\n")).expect(250, "2.0.0");
    client.quit();
}

#[test]
fn a_black_hole_over_ipv6_holds_mail_up_for_less_than_a_second() {
    let (dns, port) = (Dns::start(), Port::reserve());
    let _hole = BlackHole::at(over_ipv6(&port));
    let host = Inbox::bind(port.on(2), |_| Answer::Accept);
    dns.mx("away.test", 10, "mx.test").loopback("mx.test", 2);
    dns.address_of("mx.test", over_ipv6(&port).ip());
    let relay = relay(&dns, &port);
    let connecting = |count: usize| {
        let to = format!("x{count}@away.test");
        send(&relay, &to);
        host.wait_for(count, SOON);
        let line = relay.log().wait_for(SOON, &[&format!("to=<{to}>"), "status=sent"]);
        let delays = field(&line, "delays").expect("delays").to_owned();
        delays.split('/').nth(2).expect("four delays").parse::<f64>().expect("seconds")
    };
    let first = connecting(1);
    // The best of some, so that a busy machine does not count.
    let next = (2..=6).map(connecting).fold(f64::MAX, f64::min);
    assert!(first >= 0.25, "IPv6 is tried first: {first}");
    assert!(first - next < 1.0, "{first}, without the black hole {next}");
    assert!(next < 0.25, "what was overtaken is remembered: {next}");
    relay.wait_empty();
}

#[test]
fn ipv6_is_preferred_and_a_host_that_has_nothing_else_is_reached() {
    let (dns, port) = (Dns::start(), Port::reserve());
    let six = Inbox::bind(over_ipv6(&port), |_| Answer::Accept);
    let four = Inbox::bind(port.on(2), |_| Answer::Accept);
    dns.address_of("only.test", over_ipv6(&port).ip());
    dns.mx("both.test", 10, "mx.test").loopback("mx.test", 2).address_of("mx.test", over_ipv6(&port).ip());
    let relay = relay(&dns, &port);
    send(&relay, "x@only.test");
    six.wait_for(1, SOON);
    send(&relay, "x@both.test");
    six.wait_for(2, SOON);
    assert_eq!(four.sessions(), 0);
    let line = relay.log().wait_for(SOON, &["to=<x@both.test>", "status=sent"]);
    assert!(line.contains(&format!("relay=mx.test[::1]:{}", port.number())), "{line}");
}

#[test]
fn connections_go_out_from_the_source_addresses_of_the_route_in_turn() {
    let (dns, port) = (Dns::start(), Port::reserve());
    let host = Inbox::bind(port.on(2), |_| Answer::Accept);
    dns.loopback("away.test", 2);
    let keys = "private_addresses = true\nsource = [\"127.0.0.41\", \"2001:db8::7\", \"127.0.0.42\"]";
    let relay = Relay::builder()
        .inward(Port::reserve().address())
        .outward_by_mx_with(dns.address(), port.number(), keys, "")
        .section("[delivery]\nidle = \"0s\"")
        .start();
    let sources = ["127.0.0.41", "127.0.0.42"].map(|source| source.parse::<IpAddr>().unwrap());
    for count in 1..=6 {
        send(&relay, &format!("x{count}@away.test"));
        host.wait_for(count, SOON);
    }
    for source in sources {
        let count = host.clients().iter().filter(|client| **client == source).count();
        assert!(count >= 2, "{:?}", host.clients());
    }
    assert!(host.clients().iter().all(|client| sources.contains(client)), "{:?}", host.clients());
}

#[test]
fn a_source_address_that_the_host_lacks_is_told_and_the_mail_waits() {
    let (dns, port) = (Dns::start(), Port::reserve());
    let host = Inbox::bind(port.on(2), |_| Answer::Accept);
    dns.loopback("away.test", 2);
    let keys = "private_addresses = true\nsource = [\"192.0.2.7\"]";
    let relay = Relay::builder()
        .inward(Port::reserve().address())
        .outward_by_mx_with(dns.address(), port.number(), keys, "")
        .start();
    send(&relay, "x@away.test");
    let line = relay.log().wait_for(SOON, &["to=<x@away.test>", "status=deferred"]);
    let said = "from source address 192.0.2.7: Cannot assign requested address";
    assert!(line.contains("connect to away.test[127.0.0.2]") && line.contains(said), "{line}");
    assert_eq!((host.sessions(), relay.queue().len()), (0, 1));
}

#[test]
fn a_host_that_refuses_is_not_asked_again_for_a_while() {
    let (dns, port) = (Dns::start(), Port::reserve());
    let backup = Inbox::bind(port.on(3), |_| Answer::Accept);
    dns.mx("away.test", 10, "dead.test").mx("away.test", 20, "backup.test");
    dns.loopback("dead.test", 2).loopback("backup.test", 3);
    let relay = relay(&dns, &port);
    for count in 1..=5 {
        send(&relay, &format!("x{count}@away.test"));
        backup.wait_for(count, SOON);
    }
    let refused = || relay.log().matching(&["connect to dead.test[127.0.0.2]", "Connection refused"]).len();
    until_true(SOON, "a refused connection in the log", || refused() >= 1);
    assert_eq!(refused(), 1, "{}", relay.log().tail());
    // With nothing else left it is.
    drop(backup);
    send(&relay, "y@away.test");
    relay.log().wait_for(SOON, &["connect to backup.test[127.0.0.3]", "Connection refused"]);
    until_true(SOON, "the first host is tried after all", || refused() >= 2);
    let host = Inbox::bind(port.on(2), |_| Answer::Accept);
    host.wait_for(1, SOON);
}
