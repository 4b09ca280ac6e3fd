//! The connection of one client session: plain TCP, or TLS over it.
//!
//! Lives on one delivery shard with the task that opened it. A handshake that fails leaves a connection on
//! which nothing more can be said.

use crate::tls::outward::{Meant, PeerTls, RouteTls};
use futures_lite::{AsyncRead, AsyncWriteExt, FutureExt};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use glommio::net::TcpStream;
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

pub enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake has failed.
    Gone,
}

impl Transport {
    fn tcp(&self) -> io::Result<&TcpStream> {
        match self {
            Self::Plain(stream) => Ok(stream),
            Self::Tls(stream) => Ok(stream.get_ref().0),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Makes TLS of plain TCP and judges the peer.
    ///
    /// # Errors
    /// Why there is no TLS, in words.
    pub async fn handshake(
        &mut self,
        tls: &RouteTls,
        meant: &Meant<'_>,
        within: Duration,
    ) -> Result<PeerTls, String> {
        let Self::Plain(stream) = std::mem::replace(self, Self::Gone) else {
            return Err("the connection is not plain TCP".into());
        };
        let host = meant.server_name();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host} is no name that TLS could ask for"))?;
        let made = async {
            let made = TlsConnector::from(tls.client.clone()).connect(name, stream).await;
            made.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => "the peer closed the connection".to_owned(),
                _ => error.to_string(),
            })
        };
        let too_late = async {
            glommio::timer::sleep(within).await;
            Err(format!("not done within {} seconds", within.as_secs_f32()))
        };
        let stream = made.or(too_late).await?;
        let facts = tls.judge(stream.get_ref().1, meant);
        *self = Self::Tls(Box::new(stream));
        Ok(facts)
    }

    /// Writes all of it and has it sent.
    pub async fn write(&mut self, octets: &[u8], within: Duration) -> io::Result<()> {
        self.tcp()?.set_write_timeout(Some(within))?;
        match self {
            Self::Plain(stream) => stream.write_all(octets).await,
            Self::Tls(stream) => {
                stream.write_all(octets).await?;
                stream.flush().await
            }
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub fn set_read_timeout(&self, within: Duration) -> io::Result<()> {
        self.tcp()?.set_read_timeout(Some(within)).map_err(io::Error::from)
    }

    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Tells the peer that nothing more comes (close_notify), where there is TLS.
    pub async fn finish(&mut self) {
        if let Self::Tls(stream) = self {
            let _ = stream.close().await;
        }
    }
}
