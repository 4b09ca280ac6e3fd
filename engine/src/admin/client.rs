//! The command line's side of the admin interface: HTTP over `admin.sock`.

use super::socket_path;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::Path;
use tokio::net::UnixStream;

/// What a live relay answered.
pub enum Answered {
    Found(Vec<u8>),
    NotFound,
    /// It did not do that, in its words.
    Refused(StatusCode, String),
    /// No relay is running on this spool.
    NotRunning,
}

/// GET on the socket of the relay that runs on a spool.
pub fn get(spool: &Path, path: &str) -> io::Result<Answered> {
    send(spool, Request::get(path), Vec::new())
}

/// POST of a JSON document.
pub fn post(spool: &Path, path: &str, json: Vec<u8>) -> io::Result<Answered> {
    send(spool, Request::post(path).header(CONTENT_TYPE, "application/json"), json)
}

fn send(spool: &Path, request: Builder, body: Vec<u8>) -> io::Result<Answered> {
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
        ask(stream, request, body).await
    })
}

async fn ask(stream: UnixStream, request: Builder, body: Vec<u8>) -> io::Result<Answered> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let body = Full::new(Bytes::from(body));
    let request = request.header(HOST, "localhost").body(body).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    match status {
        StatusCode::OK => Ok(Answered::Found(body.to_vec())),
        StatusCode::NOT_FOUND => Ok(Answered::NotFound),
        _ => Ok(Answered::Refused(status, String::from_utf8_lossy(&body).into_owned())),
    }
}
