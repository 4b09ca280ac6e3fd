//! The command line's side of the admin interface: HTTP over `admin.sock`.

use super::socket_path;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::{Request, Response, StatusCode};
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

/// GET of an answer that goes on: `each` gets its pieces as they come, until it says `false`.
pub fn follow(spool: &Path, path: &str, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<Answered> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Some(stream) = connect(spool).await? else { return Ok(Answered::NotRunning) };
        let response = begin(stream, Request::get(path), Full::new(Bytes::new())).await?;
        if response.status() != StatusCode::OK {
            return answer(response).await;
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            // The relay may end within its answer.
            let Ok(frame) = frame else { break };
            if frame.data_ref().is_some_and(|piece| !each(piece)) {
                break;
            }
        }
        Ok(Answered::Found(Vec::new()))
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
        let Some(stream) = connect(spool).await? else { return Ok(Answered::NotRunning) };
        ask(stream, request, Full::new(Bytes::from(body))).await
    })
}

/// `None`: no relay is running.
async fn connect(spool: &Path) -> io::Result<Option<UnixStream>> {
    match UnixStream::connect(socket_path(spool)).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn ask<B>(stream: UnixStream, request: Builder, body: B) -> io::Result<Answered>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    answer(begin(stream, request, body).await?).await
}

async fn begin<B>(stream: UnixStream, request: Builder, body: B) -> io::Result<Response<Incoming>>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = request.header(HOST, "localhost").body(body).map_err(io::Error::other)?;
    sender.send_request(request).await.map_err(io::Error::other)
}

async fn answer(response: Response<Incoming>) -> io::Result<Answered> {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    match status {
        StatusCode::OK => Ok(Answered::Found(body.to_vec())),
        StatusCode::NOT_FOUND => Ok(Answered::NotFound),
        _ => Ok(Answered::Refused(status, String::from_utf8_lossy(&body).into_owned())),
    }
}
