//! The connection of one session: plain TCP, or TLS over it.
//!
//! Lives on one ingest shard with the task of its session. A handshake that fails leaves a connection on
//! which nothing more can be said; whoever asked for it learns why in one sentence.

use crate::shard::event::Place;
use crate::tls::{ListenerTls, TlsFacts};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWriteExt, FutureExt};
use futures_rustls::TlsAcceptor;
use futures_rustls::server::TlsStream;
use glommio::net::TcpStream;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
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

    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.tcp()?.set_read_timeout(Some(timeout)).map_err(io::Error::from)
    }

    /// Makes TLS of plain TCP.
    ///
    /// # Errors
    /// Why there is no TLS, for the log.
    pub async fn handshake(
        &mut self,
        tls: &ListenerTls,
        within: Duration,
        place: &Place<'_>,
    ) -> Result<TlsFacts, String> {
        let Self::Plain(stream) = std::mem::replace(self, Self::Gone) else {
            return Err("the connection is not plain TCP".into());
        };
        let accepted = async {
            let accepted = TlsAcceptor::from(tls.server.clone()).accept(stream).await;
            accepted.map_err(|error| reason(&error))
        };
        let too_late = async {
            glommio::timer::sleep(within).await;
            Err(format!("not done within {} seconds", within.as_secs_f32()))
        };
        let stopped = poll_fn(|context| match place.poll_stopped(context) {
            true => Poll::Ready(Err("the relay stops".to_owned())),
            false => Poll::Pending,
        });
        let stream = accepted.or(too_late).or(stopped).await?;
        let facts = tls.facts(stream.get_ref().1);
        *self = Self::Tls(Box::new(stream));
        Ok(facts)
    }

    /// Writes all of it and has it sent.
    pub async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(octets).await,
            Self::Tls(stream) => {
                stream.write_all(octets).await?;
                stream.flush().await
            }
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
            Self::Gone => Ok(0),
        }
    }

    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
            Self::Gone => Poll::Ready(Ok(0)),
        }
    }

    /// Says that nothing more will be written.
    pub async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown(Shutdown::Write).await.map_err(io::Error::from),
            Self::Tls(stream) => stream.close().await,
            Self::Gone => Ok(()),
        }
    }
}

/// What went wrong, in words.
fn reason(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, error.kind()) {
        (Some(rustls::Error::InvalidMessage(_)), _) => format!("{error}: the client does not speak TLS"),
        (Some(_), _) => error.to_string(),
        (None, io::ErrorKind::UnexpectedEof) => "the client closed the connection".into(),
        (None, _) => error.to_string(),
    }
}
