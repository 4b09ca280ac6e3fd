//! Connections to back ends: the address by the configured resolver, TLS by the configured authorities; and one
//! HTTP request over it.
//!
//! Lives on the service thread. Neither /etc/resolv.conf nor the system's certificates are used.

use crate::config::Server;
use crate::resolve::service::Resolvers;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Octets of an answer.
const ANSWER_OCTETS_MAX: usize = 64 * 1024;

/// The way to one server.
pub struct Way {
    pub server: Server,
    resolvers: Arc<Resolvers>,
    resolver: Option<usize>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Way {
    /// `authorities`: needed where TLS is.
    pub fn new(
        server: &Server,
        authorities: Option<&Path>,
        resolvers: &Arc<Resolvers>,
        resolver: Option<usize>,
    ) -> Result<Self, String> {
        let tls = authorities.map(crate::tls::client).transpose()?;
        Ok(Self { server: server.clone(), resolvers: resolvers.clone(), resolver, tls })
    }

    /// A TCP connection; every address is tried.
    pub async fn tcp(&self) -> Result<TcpStream, String> {
        let Server { host, port, .. } = &self.server;
        let addresses = match (host.parse(), self.resolver) {
            (Ok(address), _) => vec![address],
            (Err(_), Some(resolver)) => {
                let answer = self.resolvers.addresses(resolver, host).await;
                answer.result.map_err(|error| error.text)?.list
            }
            (Err(_), None) => return Err(format!("{host} has no resolver")),
        };
        let mut trouble = format!("{host} has no address");
        for address in addresses {
            match TcpStream::connect(SocketAddr::new(address, *port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => trouble = format!("{host}[{address}]:{port}: {error}"),
            }
        }
        Err(trouble)
    }

    /// Sends a form and gives code and body of the answer.
    pub async fn post(&self, form: String, authorization: &str) -> Result<(u16, Bytes), String> {
        let Server { host, port, path, tls } = &self.server;
        let place = |error: &dyn std::fmt::Display| format!("{host}:{port}: {error}");
        let request = hyper::Request::post(path)
            .header("host", format!("{host}:{port}"))
            .header("authorization", authorization)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| place(&error))?;
        let tcp = self.tcp().await?;
        if !tls {
            return exchange(TokioIo::new(tcp), request).await.map_err(|error| place(&error));
        }
        let config = self.tls.clone().ok_or("no authorities")?;
        let name = ServerName::try_from(host.clone()).map_err(|error| place(&error))?;
        let connected = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await;
        let stream = connected.map_err(|error| place(&error))?;
        exchange(TokioIo::new(stream), request).await.map_err(|error| place(&error))
    }
}

async fn exchange<S>(stream: S, request: hyper::Request<Full<Bytes>>) -> Result<(u16, Bytes), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let driven = tokio::spawn(connection);
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_OCTETS_MAX).collect().await;
        Ok((code, body.map_err(|error| error.to_string())?.to_bytes()))
    }
    .await;
    driven.abort();
    answer
}
