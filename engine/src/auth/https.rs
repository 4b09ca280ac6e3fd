//! Connections to back ends: the address by the configured resolver, TLS by the configured authorities; and one
//! HTTP request over it.
//!
//! Lives on the service thread. Neither /etc/resolv.conf nor the system's certificates are used.

use crate::config::Server;
use crate::https;
use crate::resolve::service::Resolvers;
use http_body_util::Full;
use hyper::body::Bytes;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;

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
            return exchange(tcp, request).await.map_err(|error| place(&error));
        }
        let config = self.tls.clone().ok_or("no authorities")?;
        let name = ServerName::try_from(host.clone()).map_err(|error| place(&error))?;
        let connected = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await;
        let stream = connected.map_err(|error| place(&error))?;
        exchange(stream, request).await.map_err(|error| place(&error))
    }
}

async fn exchange<S>(stream: S, request: https::Request) -> Result<(u16, Bytes), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    https::exchange(stream, request).await.map(|answer| (answer.code, answer.body))
}
