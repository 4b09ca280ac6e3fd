//! The command line's side of the admin interface: HTTP over `admin.sock`.

use super::socket_path;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::Path;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

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

/// POST of a body that comes piece by piece; `None` when it ends before it begins: nothing was asked.
pub fn stream(spool: &Path, path: &str, mut body: mpsc::Receiver<Vec<u8>>) -> io::Result<Option<Answered>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Some(first) = body.recv().await else { return Ok(None) };
        let stream = UnixStream::connect(socket_path(spool)).await?;
        let pieces = futures_util::stream::unfold((Some(first), body), |(first, mut body)| async move {
            let piece = match first {
                Some(first) => first,
                None => body.recv().await?,
            };
            Some((Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(piece))), (None, body)))
        });
        ask(stream, Request::post(path), StreamBody::new(Box::pin(pieces))).await.map(Some)
    })
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
        ask(stream, request, Full::new(Bytes::from(body))).await
    })
}

async fn ask<B>(stream: UnixStream, request: Builder, body: B) -> io::Result<Answered>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
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
