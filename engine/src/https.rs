//! HTTPS as a client, to hosts of the Internet: policies of MTA-STS, reports on TLS. One request, one connection,
//! no redirect is followed, every answer is bounded.
//!
//! Lives on the service thread. The caller has looked up the addresses, by the resolver of its configuration.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpStream;

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
    let driven = tokio::spawn(connection);
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = answer.status().as_u16();
        let media_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(|value| value.split(';').next()).unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        let body = Limited::new(answer.into_body(), ANSWER_OCTETS_MAX).collect().await;
        Ok(Answer { code, media_type, body: body.map_err(|error| error.to_string())?.to_bytes() })
    }
    .await;
    driven.abort();
    answer
}
