//! The command line's side of the admin interface: HTTP over `admin.sock`.

use super::socket_path;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
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
    call(spool, Method::GET, path, Vec::new())
}

/// POST of JSON, likewise.
pub fn post(spool: &Path, path: &str, body: Vec<u8>) -> io::Result<Answered> {
    call(spool, Method::POST, path, body)
}

/// A text as part of a query (RFC 3986 section 2.1).
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(octet.into()),
            _ => escaped.push_str(&format!("%{octet:02X}")),
        }
    }
    escaped
}

fn call(spool: &Path, method: Method, path: &str, body: Vec<u8>) -> io::Result<Answered> {
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
        ask(stream, method, path, body).await
    })
}

async fn ask(stream: UnixStream, method: Method, path: &str, body: Vec<u8>) -> io::Result<Answered> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "localhost")
        .header(hyper::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
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
