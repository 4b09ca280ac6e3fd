//! The command line's side of the admin interface: HTTP over `admin.sock`.

use super::socket_path;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::Path;
use tokio::net::UnixStream;

/// What a live relay answered.
pub enum Answered {
    Found(Vec<u8>),
    NotFound,
    /// No relay is running on this spool.
    NotRunning,
}

/// GET on the socket of the relay that runs on a spool.
pub fn get(spool: &Path, path: &str) -> io::Result<Answered> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = match UnixStream::connect(socket_path(spool)).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(Answered::NotRunning);
            }
            Err(error) => return Err(error),
        };
        ask(stream, path).await
    })
}

async fn ask(stream: UnixStream, path: &str) -> io::Result<Answered> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header(hyper::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    match status {
        StatusCode::OK => Ok(Answered::Found(body.to_vec())),
        StatusCode::NOT_FOUND => Ok(Answered::NotFound),
        _ => {
            Err(io::Error::other(format!("the relay answered {status}: {}", String::from_utf8_lossy(&body))))
        }
    }
}
