//! What a Prometheus server scrapes: `GET /metrics`, in the OpenMetrics text format. Like the admin socket's thread it
//! decides nothing and touches no volume: it asks the reactor for its status. Whoever reaches the address may read; nobody can
//! do anything by it.

mod exposition;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use twinsan_control::admin::{Request, Response};

use crate::control::Asker;
use crate::limits::{MAX_HTTP_HEAD, SCRAPE_TIMEOUT_MS};

const TIMEOUT: Duration = Duration::from_millis(SCRAPE_TIMEOUT_MS);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Listens at `address` and starts the thread; says where it listens.
///
/// # Errors
/// If the address is taken, or none of this host's.
pub(crate) fn start(address: SocketAddr, asker: Asker) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address).with_context(|| format!("metrics = \"{address}\""))?;
    let bound = listener.local_addr()?;
    thread::Builder::new().name("metrics".to_owned()).spawn(move || serve(&listener, &asker))?;
    Ok(bound)
}

/// One after the other: a scrape is short, and one that is not ends with its time.
fn serve(listener: &TcpListener, asker: &Asker) {
    for stream in listener.incoming() {
        let outcome = stream.and_then(|mut stream| converse(&mut stream, asker));
        if let Err(error) = outcome {
            tracing::debug!(%error, "a scrape broke off");
        }
    }
}

fn converse(stream: &mut TcpStream, asker: &Asker) -> io::Result<()> {
    stream.set_write_timeout(Some(TIMEOUT))?;
    let answer = match head(stream)? {
        Head::Asks { method, path } => answer(&method, &path, asker),
        Head::TooLong => Answer::says("431 Request Header Fields Too Large", "a head of more than 8 KiB"),
        Head::Nonsense(why) => Answer::says("400 Bad Request", &format!("no HTTP request: {why}")),
    };
    let Answer { status, kind, body } = answer;
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// A request's head.
enum Head {
    Asks { method: String, path: String },
    TooLong,
    Nonsense(httparse::Error),
}

/// All of it within the time, however slowly it comes.
fn head(stream: &mut TcpStream) -> io::Result<Head> {
    let end = Instant::now() + TIMEOUT;
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..read]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&bytes) {
            Ok(httparse::Status::Complete(_)) => {
                let [method, path] = [request.method, request.path].map(|part| part.unwrap_or_default().to_owned());
                return Ok(Head::Asks { method, path });
            }
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HTTP_HEAD => {}
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Ok(Head::TooLong),
            Err(error) => return Ok(Head::Nonsense(error)),
        }
    }
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn says(status: &'static str, words: &str) -> Self {
        Self { status, kind: PLAIN, body: format!("{words}\n") }
    }
}

fn answer(method: &str, path: &str, asker: &Asker) -> Answer {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    match (method, path) {
        ("GET", "/metrics") => match asker.ask(Request::Status) {
            Response::Status(status) => {
                Answer { status: "200 OK", kind: OPEN_METRICS, body: exposition::text(&status) }
            }
            Response::Done { message } | Response::Failed { message } => {
                Answer::says("503 Service Unavailable", &message)
            }
        },
        ("GET", _) => Answer::says("404 Not Found", "the metrics are at /metrics"),
        _ => Answer::says("405 Method Not Allowed", "GET /metrics; nothing can be done here"),
    }
}

#[cfg(test)]
mod tests;
