//! AUTH with clients and back ends that nobody here wrote: swaks, Python's smtplib, gsasl; slapd, Dovecot. Token
//! introspection is answered by a small server of the test's own, as nothing packaged does it.

use serde_json::{Value, json};
use sluice_tests::log::Log;
use sluice_tests::process::{self, run_ok};
use sluice_tests::tls::{Authority, talk};
use sluice_tests::tools::{find, swaks};
use sluice_tests::wait::{self, SOON};
use sluice_tests::{Client, Inbox, Port, Relay, lacks};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PASSWORD: &str = "correct horse";

/// A relay whose outside listener has `relay = "authenticated"` and implicit TLS, with this `[auth]` and the two
/// logins `ann@inside.test` and `bob`, where it has a password file.
fn relay(auth: &str, inbox: &Inbox) -> Relay {
    let relay = Relay::builder().inward(inbox.address()).outward(inbox.address()).prepare();
    let authority = Authority::new(relay.directory(), "authority");
    authority.issue("relay", "relay.test");
    let (certificate, key) = (authority.path("relay.pem"), authority.path("relay.key"));
    relay.edit_config("relay = \"accepted\"\ntls = \"off\"", "relay = \"authenticated\"\ntls = \"implicit\"");
    let auth = auth.replace("DIR", relay.directory().to_str().expect("UTF-8"));
    let sections = format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{auth}\n[spool]\n");
    relay.edit_config("[spool]\n", &sections);
    if auth.contains("\"file\"") {
        for login in ["ann@inside.test", "bob"] {
            user(&relay, &["add", login], PASSWORD).expect("added");
        }
    }
    relay
}

const FILE: &str = "[auth]\nbackend = \"file\"\n[auth.file]\npath = \"DIR/users\"\n[auth.password]\nscram_iterations = 4096\n";

/// `sluice user` with a password on standard input: what it says, or its exit code and complaint.
fn user(relay: &Relay, arguments: &[&str], password: &str) -> Result<String, (i32, String)> {
    let mut command = Command::new(sluice_tests::tools::built("sluice"));
    command.arg("user").args(arguments).arg("--config").arg(relay.config());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sluice user");
    let mut stdin = child.stdin.take().expect("piped");
    let _ = stdin.write_all(format!("{password}\n").as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("sluice user");
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        code => Err((code.unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// The replies to commands within TLS.
fn replies(relay: &Relay, commands: &[&str]) -> Vec<String> {
    let lines: Vec<String> = commands.iter().map(|command| format!("{command}\r\n")).collect();
    let answer = talk(
        relay.outside(),
        json!({"implicit": true, "name": "relay.test", "authority": authority(relay), "commands": lines}),
    );
    let replies = answer["replies"].as_array().unwrap_or_else(|| panic!("{answer}"));
    replies.iter().map(|reply| reply.as_str().expect("text").to_owned()).collect()
}

fn authority(relay: &Relay) -> String {
    relay.directory().join("authority.pem").to_str().expect("UTF-8").to_owned()
}

fn plain(login: &str, password: &str) -> String {
    let script =
        "import base64,sys;print(base64.b64encode(('\\0'+sys.argv[1]+'\\0'+sys.argv[2]).encode()).decode())";
    format!(
        "AUTH PLAIN {}",
        run_ok(Command::new("python3").args(["-c", script, login, password]), SOON).trim()
    )
}

fn is_accepted(relay: &Relay, login: &str, password: &str) -> String {
    replies(relay, &[&plain(login, password)])[0].clone()
}

/// S27, S28: who has no login relays nothing; who has one sends to anybody.
#[test]
fn users_on_the_road_relay_by_plain_and_login_and_nobody_else_does() {
    if lacks("swaks") {
        return;
    }
    let inbox = Inbox::start();
    let mut relay = relay(FILE, &inbox);
    relay.start();
    let send = |arguments: &[&str]| {
        let tls = [&["--tls-on-connect"], arguments].concat();
        swaks(relay.outside(), "ann@inside.test", "someone@away.test", &tls)
    };
    let (sent, dialogue) = send(&[]);
    assert!(!sent && dialogue.contains("530 5.7.0 Authentication required"), "{dialogue}");
    for (number, mechanism) in ["PLAIN", "LOGIN"].into_iter().enumerate() {
        let login = ["--auth", mechanism, "--auth-user", "Ann@inside.test", "--auth-password"];
        let (sent, dialogue) = send(&[&login[..], &[PASSWORD]].concat());
        assert!(sent && dialogue.contains("235 2.7.0"), "{dialogue}");
        let got = &inbox.wait_for(number + 1, SOON)[number];
        assert!(String::from_utf8_lossy(&got.content).contains("with ESMTPSA id"));
        relay.log().wait_for(SOON, &[&format!("sasl_method={mechanism}, sasl_username=ann@inside.test")]);
        let (sent, dialogue) = send(&[&login[..], &["wrong"]].concat());
        assert!(!sent && dialogue.contains("535 5.7.8"), "{dialogue}");
        relay.log().wait_for(
            SOON,
            &[&format!("warning: unknown[127.0.0.1]: SASL {mechanism} authentication failed")],
        );
    }
    assert!(!relay.log().lines().iter().any(|line| line.contains(PASSWORD) || line.contains("wrong")));
    relay.wait_empty();
}

const SMTPLIB: &str = "
import json, smtplib, ssl, sys
ask = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=ask['authority'])
context.check_hostname = False
with smtplib.SMTP_SSL(ask['host'], ask['port'], context=context, source_address=(ask.get('source', '127.0.0.1'), 0), timeout=60) as smtp:
    try:
        smtp.login(ask['login'], ask['password'])
        smtp.sendmail(ask['from'], ['someone@away.test'], b'Subject: by smtplib\\r\\n\\r\\nhello\\r\\n')
        print('sent')
    except smtplib.SMTPResponseException as error:
        print(error.smtp_code, error.smtp_error.decode())
    except smtplib.SMTPSenderRefused as error:
        print(error.smtp_code, error.smtp_error.decode())
";

fn smtplib(relay: &Relay, mut ask: Value) -> String {
    ask["host"] = relay.outside().ip().to_string().into();
    ask["port"] = relay.outside().port().into();
    ask["authority"] = authority(relay).into();
    run_ok(Command::new("python3").args(["-c", SMTPLIB, &ask.to_string()]), SOON * 4).trim().to_owned()
}

/// S29: a login is bound to its addresses, and may send so much an hour.
#[test]
fn a_login_sends_from_its_own_addresses_and_so_much_an_hour() {
    let inbox = Inbox::start();
    let more = FILE.replace(
        "[auth.file]",
        "senders = \"DIR/senders\"\n[auth.limits]\nmessages_per_hour = 3\n[auth.file]",
    );
    let mut relay = relay(&more, &inbox);
    std::fs::write(relay.directory().join("senders"), "bob sales@inside.test @other.test\n").expect("a file");
    relay.start();
    for (login, from, answer) in [
        ("ann@inside.test", "ann@inside.test", "sent"),
        ("ann@inside.test", "bob@inside.test", "553 5.7.1 Sender address rejected: not owned by your login"),
        ("ann@inside.test", "", "sent"),
        ("bob", "Bob@inside.test", "sent"),
        ("bob", "sales@inside.test", "sent"),
        ("bob", "anybody@other.test", "sent"),
        ("bob", "ann@inside.test", "553 5.7.1 Sender address rejected: not owned by your login"),
        (
            "bob",
            "bob@inside.test",
            "450 4.7.1 Your login has sent as much as it may for now, try again later",
        ),
    ] {
        let said = smtplib(&relay, json!({"login": login, "password": PASSWORD, "from": from}));
        assert_eq!(said, answer, "{login} {from}");
    }
    relay.wait_empty();
}

/// S29: guessing ends in a lock-out of where it comes from, not of the login.
#[test]
fn a_lock_out_meets_the_network_that_guesses_and_not_the_user() {
    let inbox = Inbox::start();
    let quick = format!("{FILE}[auth.guessing]\nfailures_max = 3\ndelay_max = \"100ms\"\n");
    let mut relay = relay(&quick, &inbox);
    relay.start();
    let attempt = |source: &str, password: &str| {
        let ask = json!({"login": "bob", "password": password, "from": "bob@inside.test", "source": source});
        smtplib(&relay, ask)
    };
    assert_eq!(attempt("127.0.0.2", PASSWORD), "sent");
    // smtplib tries each mechanism in turn, so each attempt is several.
    let refused = attempt("127.0.0.1", "guess number one");
    assert!(refused.starts_with("535 5.7.8") || refused.starts_with("454 4.7.0"), "{refused}");
    let locked = wait::until(SOON, "a lock-out", || {
        Some(attempt("127.0.0.1", "another guess")).filter(|said| said.starts_with("454 4.7.0"))
    });
    assert!(locked.contains("Too many failed logins from your network"), "{locked}");
    relay.log().wait_for(SOON, &["warning: unknown[127.0.0.1]: locked out", "sasl_username=bob"]);
    assert!(attempt("127.0.0.1", PASSWORD).starts_with("454 4.7.0"));
    assert_eq!(attempt("127.0.0.2", PASSWORD), "sent");
    assert_eq!(attempt("127.0.0.3", PASSWORD), "sent");
    relay.wait_empty();
}

/// Speaks SMTP over TLS by Python; the messages of SCRAM-SHA-256 are gsasl's, those of -PLUS are made by hashlib
/// with the certificate that OpenSSL shows, as gsasl cannot be given the connection.
const SCRAM: &str = r#"
import base64, hashlib, hmac, json, socket, ssl, subprocess, sys
ask = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=ask['authority'])
tls = context.wrap_socket(socket.create_connection((ask['host'], ask['port']), 60), server_hostname='relay.test')
lines = tls.makefile('rb')
def reply():
    line = lines.readline().decode().strip()
    while line[3:4] == '-':
        line = lines.readline().decode().strip()
    return line
def say(text):
    tls.sendall(text.encode() + b'\r\n')
    return reply()
reply()
say('EHLO scram.test')
said = say('AUTH ' + ask['mechanism'])
if ask['mechanism'].endswith('PLUS'):
    password, bare = ask['password'].encode(), b'n=ann@inside.test,r=fyko+d2lbbFgONRv9qkxdawL'
    header = b'p=tls-server-end-point,,'
    first = base64.b64decode(say(base64.b64encode(header + bare).decode())[4:])
    fields = dict(field.split(b'=', 1) for field in first.split(b','))
    binding = hashlib.sha256(tls.getpeercert(True)).digest()
    final = b'c=' + base64.b64encode(header + binding) + b',r=' + fields[b'r']
    salted = hashlib.pbkdf2_hmac('sha256', password, base64.b64decode(fields[b's']), int(fields[b'i']))
    key = hmac.digest(salted, b'Client Key', 'sha256')
    signature = hmac.digest(hashlib.sha256(key).digest(), b','.join([bare, first, final]), 'sha256')
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature)))
    said = say(base64.b64encode(final + b',p=' + proof).decode())
    if said.startswith('334'):
        said = say('')
else:
    gsasl = subprocess.Popen(['gsasl', '--client', '--quiet', '--mechanism', ask['mechanism'], '--authentication-id',
        'ann@inside.test', '--authorization-id', '', '--password', ask['password']], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    # It asks for two channel bindings, of which it has none.
    gsasl.stdin.write(b'\n\n')
    gsasl.stdin.flush()
    while said.startswith('334'):
        answer = b''
        while not answer.strip() or b'SCRAM' in answer:
            answer = gsasl.stdout.readline()
            if answer == b'' or answer == b'\n':
                break
        answer = answer.decode().split(': ')[-1].strip()
        said = say(answer)
        if said.startswith('334'):
            gsasl.stdin.write(said[4:].encode() + b'\n')
            gsasl.stdin.flush()
    gsasl.kill()
print(said)
"#;

#[test]
fn others_agree_on_scram_with_and_without_channel_binding() {
    if lacks("gsasl") {
        return;
    }
    let inbox = Inbox::start();
    let mut relay = relay(FILE, &inbox);
    relay.start();
    for (mechanism, password, code) in [
        ("SCRAM-SHA-256", PASSWORD, "235 2.7.0"),
        ("SCRAM-SHA-256", "wrong", "535 5.7.8"),
        ("SCRAM-SHA-256-PLUS", PASSWORD, "235 2.7.0"),
        ("SCRAM-SHA-256-PLUS", "wrong", "535 5.7.8"),
    ] {
        let ask = json!({"host": "127.0.0.1", "port": relay.outside().port(), "authority": authority(&relay),
            "mechanism": mechanism, "password": password});
        let said = run_ok(Command::new("python3").args(["-c", SCRAM, &ask.to_string()]), SOON * 2);
        assert!(said.starts_with(code), "{mechanism} {password}: {said}");
    }
}

/// S30, and the life of a login while the relay runs.
#[test]
fn logins_are_managed_while_the_relay_runs() {
    let inbox = Inbox::start();
    let mut relay = relay(FILE, &inbox);
    relay.start();
    let mode = std::fs::metadata(relay.directory().join("users")).expect("the file").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o640);
    let (code, why) = user(&relay, &["add", "carl"], "short").expect_err("too short");
    assert!(code == 65 && why.contains("at least 12 are demanded"), "{why}");
    assert!(user(&relay, &["add", "bob"], "another horse").expect_err("there").1.contains("already"));
    user(&relay, &["add", "carl"], PASSWORD).expect("added");
    let becomes = |password: &str, code: &str| {
        wait::until_true(SOON, code, || is_accepted(&relay, "carl", password).starts_with(code));
    };
    becomes(PASSWORD, "235");
    user(&relay, &["lock", "carl"], "").expect("locked");
    becomes(PASSWORD, "535");
    assert!(user(&relay, &["list"], "").expect("listed").contains("carl             locked  SCRAM"));
    user(&relay, &["unlock", "carl"], "").expect("unlocked");
    becomes(PASSWORD, "235");
    user(&relay, &["passwd", "carl"], "another horse").expect("changed");
    becomes("another horse", "235");
    assert!(
        user(&relay, &["test", "carl"], "another horse")
            .expect("accepted")
            .contains("may send from carl@inside.test")
    );
    assert_eq!(user(&relay, &["test", "carl"], PASSWORD).expect_err("refused").0, 77);
    user(&relay, &["remove", "carl"], "").expect("removed");
    becomes("another horse", "535");
    assert_eq!(user(&relay, &["remove", "carl"], "").expect_err("gone").0, 66);
    // A file that is broken changes nothing.
    std::fs::write(relay.directory().join("users"), "bob:nonsense\n").expect("a file");
    process::signal(relay.pid(), "HUP");
    relay.log().wait_for(SOON, &["error: ", "line 1: not an argon2id hash", "what was read before holds"]);
    assert!(is_accepted(&relay, "bob", PASSWORD).starts_with("235"));
}

/// A process of the test's own.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn launch(command: &mut Command) -> Running {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = quiet.spawn().expect("a process");
    let _ = Log::follow(child.stderr.take().expect("piped"));
    Running(child)
}

/// A directory with Ann, whose further address is sales@inside.test, behind ldap:// with StartTLS, and ldaps://.
fn slapd(directory: &Path, authority: &Authority) -> (Port, Port, Running) {
    authority.issue("slapd", "127.0.0.1");
    let script = "subjectAltName=IP:127.0.0.1";
    let data = directory.join("ldap-data");
    std::fs::create_dir(&data).expect("a directory");
    let at = |file: &str| directory.join(file).display().to_string();
    // A certificate for the address: OpenSSL again, with another kind of name.
    std::fs::write(directory.join("ldap.ext"), script).expect("a file");
    let openssl = |line: &str| {
        run_ok(Command::new("openssl").args(line.split(' ')).current_dir(directory), SOON);
    };
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=slapd -keyout ldap.key -out ldap.csr",
    );
    openssl(
        "x509 -req -in ldap.csr -days 30 -CA authority.pem -CAkey authority.key -CAcreateserial -extfile ldap.ext -out ldap.pem",
    );
    let configuration = format!(
        "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
         include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
         pidfile {}\nTLSCACertificateFile {}\nTLSCertificateFile {}\nTLSCertificateKeyFile {}\n\
         database mdb\nmaxsize 10485760\nsuffix dc=test\nrootdn cn=root,dc=test\nrootpw rootsecret\ndirectory {}\n\
         access to attrs=userPassword by anonymous auth by * none\naccess to * by dn=\"cn=relay,dc=test\" read by * none\n",
        at("slapd.pid"),
        at("authority.pem"),
        at("ldap.pem"),
        at("ldap.key"),
        data.display()
    );
    std::fs::write(directory.join("slapd.conf"), configuration).expect("a file");
    let (clear, tls) = (Port::reserve(), Port::reserve());
    let listen = format!("ldap://{} ldaps://{}", clear.address(), tls.address());
    let slapd = find("slapd").expect("slapd");
    let running = launch(Command::new(slapd).args(["-f", &at("slapd.conf"), "-h", &listen, "-d", "0"]));
    wait::until_true(SOON, "slapd listens", || std::net::TcpStream::connect(tls.address()).is_ok());
    let entries = format!(
        "dn: dc=test\nobjectClass: dcObject\nobjectClass: organization\no: test\ndc: test\n\n\
         dn: cn=relay,dc=test\nobjectClass: person\ncn: relay\nsn: relay\nuserPassword: relaysecret\n\n\
         dn: uid=ann,dc=test\nobjectClass: inetOrgPerson\nuid: ann\ncn: Ann\nsn: A\nmail: sales@inside.test\nuserPassword: {PASSWORD}\n\n\
         dn: uid=twin1,dc=test\nobjectClass: inetOrgPerson\nuid: twin1\ncn: twin\nsn: T\nuserPassword: {PASSWORD}\n\n"
    );
    std::fs::write(directory.join("entries.ldif"), entries).expect("a file");
    let url = format!("ldap://{}", clear.address());
    let entries = at("entries.ldif");
    run_ok(
        Command::new("ldapadd").args([
            "-x",
            "-H",
            &url,
            "-D",
            "cn=root,dc=test",
            "-w",
            "rootsecret",
            "-f",
            &entries,
        ]),
        SOON,
    );
    (clear, tls, running)
}

#[test]
fn a_directory_verifies_logins_over_starttls_and_ldaps() {
    if lacks("slapd") || lacks("ldapadd") {
        return;
    }
    let inbox = Inbox::start();
    let home = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(home.path(), "authority");
    let (clear, tls, running) = slapd(home.path(), &authority);
    std::fs::write(home.path().join("secret"), "relaysecret\n").expect("a file");
    let home_text = home.path().to_str().expect("UTF-8");
    let search = "base = \"dc=test\"\nfilter = \"(&(objectClass=inetOrgPerson)(uid={login}))\"\nbind_dn = \"cn=relay,dc=test\"\nbind_password_file = \"HOME/secret\"\naddresses = \"mail\"\n";
    let authorities = "authorities = \"HOME/authority.pem\"\n";
    let ways = [
        (format!("url = \"ldaps://{}\"\n{authorities}{search}", tls.address()), true),
        (
            format!(
                "url = \"ldap://{}\"\nstarttls = true\n{authorities}dn = \"uid={{login}},dc=test\"\n",
                clear.address()
            ),
            false,
        ),
    ];
    let mut running = Some(running);
    for (way, finds_addresses) in ways {
        let auth = format!(
            "[auth]\nbackend = \"ldap\"\npatience = \"5s\"\n[auth.guessing]\ndelay_max = \"0ms\"\nfailures_max = 100\n[auth.ldap]\n{}",
            way.replace("HOME", home_text)
        );
        let mut relay = relay(&auth, &inbox);
        relay.start();
        for (login, password, code) in [
            ("ann", PASSWORD, "235"),
            ("ANN", PASSWORD, "235"),
            ("ann", "wrong", "535"),
            ("nobody", PASSWORD, "535"),
            ("*", PASSWORD, "535"),
            ("an*", PASSWORD, "535"),
            ("ann)(uid=*", PASSWORD, "535"),
            ("ann,dc=test", PASSWORD, "535"),
            ("ann", PASSWORD, "235"),
        ] {
            let said = is_accepted(&relay, login, password);
            assert!(said.starts_with(code), "{login} {password}: {said}");
        }
        let said = replies(
            &relay,
            &[
                &plain("ann", PASSWORD),
                "MAIL FROM:<sales@inside.test>",
                "RSET",
                "MAIL FROM:<ann@inside.test>",
            ],
        );
        assert_eq!(
            (said[1].starts_with("250"), said[3].starts_with("250")),
            (finds_addresses, true),
            "{said:?}"
        );
        if !finds_addresses {
            running = None;
            let said = is_accepted(&relay, "ann", PASSWORD);
            assert!(said.starts_with("454 4.7.0"), "{said}");
            relay.log().wait_for(SOON, &["error: logins cannot be verified: LDAP 127.0.0.1[127.0.0.1]"]);
        }
    }
    drop(running);
}

#[test]
fn dovecot_verifies_logins() {
    if lacks("dovecot") || !sluice_tests::is_root() {
        return;
    }
    let inbox = Inbox::start();
    let home = tempfile::Builder::new().prefix("sluice-dovecot-").tempdir().expect("a directory");
    let at = |file: &str| home.path().join(file).display().to_string();
    std::fs::create_dir(home.path().join("run")).expect("a directory");
    std::fs::write(home.path().join("passwd"), format!("ann@inside.test:{{PLAIN}}{PASSWORD}\n"))
        .expect("a file");
    let configuration = format!(
        "protocols =\nlog_path = {}\nbase_dir = {}\nssl = no\ndisable_plaintext_auth = no\nauth_failure_delay = 0\n\
         passdb {{\n  driver = passwd-file\n  args = {}\n}}\nuserdb {{\n  driver = static\n  args = uid=65534 gid=65534 home=/nonexistent\n}}\n\
         service auth {{\n  unix_listener auth-client {{\n    mode = 0666\n  }}\n  user = root\n}}\n\
         service anvil {{\n  chroot =\n}}\nservice stats {{\n  chroot =\n}}\n",
        at("log"),
        at("run"),
        at("passwd")
    );
    std::fs::write(home.path().join("dovecot.conf"), configuration).expect("a file");
    let running =
        launch(Command::new(find("dovecot").expect("dovecot")).args(["-F", "-c", &at("dovecot.conf")]));
    let socket = at("run/auth-client");
    wait::until_true(SOON, "dovecot listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    let auth = format!("[auth]\nbackend = \"dovecot\"\n[auth.dovecot]\nsocket = \"{socket}\"\n");
    let mut relay = relay(&auth, &inbox);
    relay.start();
    for (login, password, code) in [
        ("ann@inside.test", PASSWORD, "235"),
        ("ann@inside.test", "wrong", "535"),
        ("nobody@inside.test", PASSWORD, "535"),
    ] {
        let said = is_accepted(&relay, login, password);
        let log = std::fs::read_to_string(home.path().join("log")).unwrap_or_default();
        assert!(said.starts_with(code), "{login} {password}: {said}\n{log}");
    }
    process::signal(running.0.id(), "TERM");
    wait::until_true(SOON, "dovecot is gone", || std::os::unix::net::UnixStream::connect(&socket).is_err());
    let said = is_accepted(&relay, "ann@inside.test", PASSWORD);
    assert!(said.starts_with("454 4.7.0"), "{said}");
}

/// Answers introspection of the token `good`, and counts.
fn introspection() -> (Port, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    let port = Port::reserve();
    let listener = TcpListener::bind(port.address()).expect("a port");
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let mut reader = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                head += &line;
            }
            let mut body = vec![0; length];
            let _ = reader.read_exact(&mut body);
            let body = String::from_utf8_lossy(&body).into_owned();
            let answer = match body.as_str() {
                _ if !head.contains("Basic c2x1aWNlOnMlM0FlY3JldA==") => {
                    "HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
                body if body.starts_with("token=good&") => {
                    let text = r#"{"active":true,"scope":"mail smtp","username":"ann@inside.test"}"#;
                    format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
                        text.len()
                    )
                }
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"active\":false}".to_owned(),
            };
            kept.lock().expect("a lock").push(body);
            let _ = reader.into_inner().write_all(answer.as_bytes());
        }
    });
    (port, asked)
}

#[test]
fn bearer_tokens_are_introspected_and_good_answers_kept() {
    let inbox = Inbox::start();
    let (port, asked) = introspection();
    let auth = format!(
        "[auth]\nbackend = \"none\"\n[auth.token]\nurl = \"http://{}/introspect\"\nclient_id = \"sluice\"\nclient_secret_file = \"DIR/secret\"\nscope = \"smtp\"\n",
        port.address()
    );
    let mut relay = relay(&auth, &inbox);
    std::fs::write(relay.directory().join("secret"), "s:ecret\n").expect("a file");
    relay.start();
    let encode = |text: &str| {
        let script =
            "import base64,sys;print(base64.b64encode(sys.argv[1].encode().replace(b'^',b'\\x01')).decode())";
        run_ok(Command::new("python3").args(["-c", script, text]), SOON).trim().to_owned()
    };
    let bearer = |login: &str, token: &str| {
        format!("AUTH OAUTHBEARER {}", encode(&format!("n,a={login},^auth=Bearer {token}^^")))
    };
    let xoauth2 = |login: &str, token: &str| {
        format!("AUTH XOAUTH2 {}", encode(&format!("user={login}^auth=Bearer {token}^^")))
    };
    let said = replies(
        &relay,
        &[
            &xoauth2("ann@inside.test", "bad"),
            "",
            &xoauth2("bob@inside.test", "good"),
            "AQ==",
            &bearer("ann@inside.test", "good"),
            "MAIL FROM:<ann@inside.test>",
            "RCPT TO:<someone@away.test>",
        ],
    );
    let codes: Vec<&str> = said.iter().map(|reply| &reply[..3]).collect();
    assert_eq!(codes, ["334", "535", "334", "535", "235", "250", "250", "221"], "{said:?}");
    assert!(replies(&relay, &[&xoauth2("ann@inside.test", "good")])[0].starts_with("235"));
    let asked = asked.lock().expect("a lock");
    assert_eq!(asked.len(), 2, "a good answer is kept: {asked:?}");
}

#[test]
fn auth_is_announced_within_tls_only() {
    let inbox = Inbox::start();
    let mut relay = relay(FILE, &inbox);
    relay.edit_config("tls = \"implicit\"", "tls = \"offer\"");
    relay.start();
    let mut client = Client::hello(relay.outside());
    client.command("AUTH PLAIN AGFubgBzZWNyZXQ=").expect(538, "5.7.11");
    client.command("MAIL FROM:<ann@inside.test>").expect(250, "2.1.0");
    client.command("RCPT TO:<someone@away.test>").expect(530, "5.7.0");
    let answer = talk(relay.outside(), json!({"authority": authority(&relay)}));
    let features = answer["features"].to_string();
    assert!(features.contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\""), "{features}");
}

#[test]
fn msmtp_logs_in_by_each_mechanism_that_it_knows() {
    if lacks("msmtp") {
        return;
    }
    let inbox = Inbox::start();
    let mut relay = relay(FILE, &inbox);
    relay.start();
    for (count, mechanism) in ["plain", "login", "scram-sha-256"].into_iter().enumerate() {
        let mut child = Command::new("msmtp")
            .args(["--file=/dev/null", "--host=127.0.0.1", "--tls=on", "--tls-starttls=off"])
            .args(["--tls-host-override=relay.test", "--user=ann@inside.test"])
            .arg(format!("--port={}", relay.outside().port()))
            .arg(format!("--tls-trust-file={}", authority(&relay)))
            .arg(format!("--auth={mechanism}"))
            .arg(format!("--passwordeval=echo '{PASSWORD}'"))
            .args(["--domain=msmtp.test", "--from=ann@inside.test", "--", "x@away.test"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("msmtp starts");
        let content = format!("Subject: by {mechanism}\n\nhello\n");
        child.stdin.take().expect("piped").write_all(content.as_bytes()).expect("msmtp reads");
        let output = child.wait_with_output().expect("msmtp ends");
        assert!(output.status.success(), "{mechanism}: {}", String::from_utf8_lossy(&output.stderr));
        inbox.wait_for(count + 1, SOON);
        relay.log().wait_for(
            SOON,
            &[&format!("sasl_method={}", mechanism.to_uppercase()), "sasl_username=ann@inside.test"],
        );
    }
    relay.wait_empty();
}
