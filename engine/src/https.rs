//! HTTPS as a client, to hosts of the Internet: policies of MTA-STS, reports on TLS. One request, one connection,
//! no redirect is followed, every answer is bounded.
//!
//! Lives on the service thread. The caller has looked up the addresses, by the resolver of its configuration; which
//! of them may be connected to, [`admitted`] says, for it is strangers who name the hosts. What is asked ends with
//! the future that asks: nothing goes on behind a caller that has lost patience.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::config::NextHops;
use crate::policy::next_hops::{Hop, forbidden};
use crate::resolve::choose::is_public;

/// Octets of an answer; a longer one is an error.
pub const ANSWER_OCTETS_MAX: usize = 64 * 1024;

pub type Request = hyper::Request<Full<Bytes>>;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    /// Without its parameters, in lower case; empty where there was none.
    pub media_type: String,
    pub body: Bytes,
}

/// Why there is no answer, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    Connect(String),
    /// The server's certificate is not one for its name by a known authority.
    Certificate(String),
    Http(String),
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(text) | Self::Certificate(text) | Self::Http(text) => f.write_str(text),
        }
    }
}

/// The addresses of a host that may be connected to, by `[next_hops]` and, but where a route takes `private` ones,
/// because they are of the Internet. `domain`: the one that leads to the host by its name.
///
/// # Errors
/// Why there is none.
pub fn admitted(
    lists: &NextHops,
    (domain, host): (Option<&str>, &str),
    mut addresses: Vec<IpAddr>,
    private: bool,
) -> Result<Vec<IpAddr>, String> {
    let mut refused = None;
    addresses.retain(|&address| {
        if !private && !is_public(address) {
            return false;
        }
        let why = forbidden(lists, &Hop { domain, host: Some(host), address: Some(address) });
        if let Some(why) = &why {
            refused.get_or_insert_with(|| format!("a connection to {host} is not allowed: {why}"));
        }
        why.is_none()
    });
    match refused {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(text) => Err(text),
        None => Err(format!("{host} has no address on the Internet")),
    }
}

/// Asks the host at the first of the addresses that answers.
///
/// # Errors
/// Why nothing came; the caller bounds the time.
pub async fn ask(
    host: &str,
    (addresses, port): (&[IpAddr], u16),
    tls: &Arc<rustls::ClientConfig>,
    request: Request,
) -> Result<Answer, NoAnswer> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| NoAnswer::Connect(format!("{host} is no name that TLS could ask for")))?;
    let tcp = connect(host, addresses, port).await?;
    let made = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, tcp).await;
    let stream = made.map_err(|error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let text = format!("{host}:{port}: {error}");
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) => NoAnswer::Certificate(text),
            _ => NoAnswer::Connect(text),
        }
    })?;
    exchange(stream, request).await.map_err(|error| NoAnswer::Http(format!("{host}:{port}: {error}")))
}

async fn connect(host: &str, addresses: &[IpAddr], port: u16) -> Result<TcpStream, NoAnswer> {
    let mut trouble = format!("{host} has no address");
    for &address in addresses {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => trouble = format!("{host}[{address}]:{port}: {error}"),
        }
    }
    Err(NoAnswer::Connect(trouble))
}

/// One request over a connection that stands.
///
/// # Errors
/// What is wrong with it or with the answer, in words.
pub async fn exchange<S>(stream: S, request: Request) -> Result<Answer, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let _driven = Driven(tokio::spawn(connection).abort_handle());
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let code = answer.status().as_u16();
    let media_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    let body = Limited::new(answer.into_body(), ANSWER_OCTETS_MAX).collect().await;
    Ok(Answer { code, media_type, body: body.map_err(|error| error.to_string())?.to_bytes() })
}

/// The task of a connection, which ends with this. Prevents a peer that takes nothing from keeping it, and its
/// descriptor, for ever once the request is given up.
struct Driven(AbortHandle);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HopPattern, network};
    use std::time::Duration;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_request_that_is_given_up_leaves_no_connection() {
        // The peer takes nothing beyond these octets.
        let (near, mut far) = tokio::io::duplex(16);
        let body = Bytes::from(vec![b'x'; 100_000]);
        let request = hyper::Request::post("/").header("host", "a.test").body(Full::new(body)).expect("one");
        let given_up = tokio::time::timeout(Duration::from_millis(100), exchange(near, request)).await;
        assert!(given_up.is_err(), "{given_up:?}");
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), far.read_to_end(&mut rest)).await;
        assert!(read.is_ok_and(|read| read.is_ok()), "the connection is closed");
        assert!(rest.len() <= 16, "nobody went on writing: {} octets", rest.len());
    }

    #[test]
    fn what_next_hops_forbid_and_what_is_not_of_the_internet_is_not_connected_to() {
        let addresses = |list: &str| -> Vec<IpAddr> {
            list.split_whitespace().map(|address| address.parse().expect("an address")).collect()
        };
        let lists = NextHops {
            allow: Vec::new(),
            deny: vec![
                HopPattern::Network(network("192.0.2.0/24").expect("a network")),
                HopPattern::Name(".bad.test".into()),
            ],
        };
        let all = "192.0.2.7 10.0.0.1 198.51.100.7";
        for (host, found, private, expected) in
            [("a.test", all, false, "198.51.100.7"), ("a.test", all, true, "10.0.0.1 198.51.100.7")]
        {
            let left = admitted(&lists, (None, host), addresses(found), private);
            assert_eq!(left, Ok(addresses(expected)), "{host} {found} {private}");
        }
        for (host, found, private, expected) in [
            ("a.test", "10.0.0.1", false, "a.test has no address on the Internet"),
            ("a.test", "", true, "a.test has no address on the Internet"),
            ("a.test", "192.0.2.7", true, "to a.test is not allowed: next_hops.deny has 192.0.2.0/24"),
            (
                "x.bad.test",
                "198.51.100.7",
                false,
                "to x.bad.test is not allowed: next_hops.deny has .bad.test",
            ),
        ] {
            let why = admitted(&lists, (None, host), addresses(found), private).expect_err(expected);
            assert!(why.contains(expected), "{why}");
        }
        let allowed = HopPattern::Name("partner.test".into());
        let lists = NextHops { allow: vec![allowed], deny: Vec::new() };
        let of = |domain: Option<&str>| {
            admitted(&lists, (domain, "mta-sts.partner.test"), addresses("198.51.100.7"), false)
        };
        assert!(of(Some("partner.test")).is_ok() && of(None).is_err());
    }
}
