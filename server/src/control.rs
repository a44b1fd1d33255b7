//! The control thread: the admin socket. It decides nothing and touches no volume; it hands each request to the
//! reactor and the reactor's answer back.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use twinsan_control::admin::{Request, Response, read_line, write_line};

use crate::doorbell::Doorbell;
use crate::limits::{ADMIN_QUEUE, ADMIN_TIMEOUT_MS};

const TIMEOUT: Duration = Duration::from_millis(ADMIN_TIMEOUT_MS);

/// Hands requests to the reactor and waits for its answers, from whatever thread.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    reactor: Sender<Asked>,
    bell: Doorbell,
}

impl Asker {
    /// And where the requests arrive.
    pub(crate) fn new(bell: Doorbell) -> (Self, Receiver<Asked>) {
        let (reactor, requests) = bounded(ADMIN_QUEUE);
        (Self { reactor, bell }, requests)
    }

    /// Where no answer comes, that is the answer.
    pub(crate) fn ask(&self, request: Request) -> Response {
        let (answer, answered) = bounded(1);
        if self.reactor.try_send(Asked { request, answer }).is_err() {
            return Response::Failed { message: "the node is ending, or has too many requests waiting".to_owned() };
        }
        self.bell.ring();
        answered.recv_timeout(TIMEOUT).unwrap_or_else(|_| Response::Failed {
            message: format!("the reactor has not answered for {ADMIN_TIMEOUT_MS} ms"),
        })
    }
}

/// A request on its way to the reactor.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What was asked.
    pub(crate) request: Request,
    /// Where the answer goes; it has room for it.
    pub(crate) answer: Sender<Response>,
}

/// Listens at `path` and starts the thread.
///
/// # Errors
/// If another process listens there, or the system refuses.
pub(crate) fn start(path: &Path, asker: Asker) -> anyhow::Result<()> {
    let listener = listen(path).with_context(|| format!("admin socket {}", path.display()))?;
    thread::Builder::new().name("control".to_owned()).spawn(move || serve(&listener, &asker))?;
    Ok(())
}

/// Replaces the socket of a process that is gone, never that of one that lives.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        bail!("another process listens there; is this node running already?");
    }
    match fs::symlink_metadata(path) {
        Ok(there) => {
            use std::os::unix::fs::FileTypeExt;
            if !there.file_type().is_socket() {
                bail!("something is there that is no socket; remove it, or configure another path");
            }
            fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let listener = UnixListener::bind(path)?;
    // Between the two calls the socket has the umask's mode, but nobody accepts yet.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn serve(listener: &UnixListener, asker: &Asker) {
    for stream in listener.incoming() {
        let outcome = stream.and_then(|stream| converse(&stream, asker));
        if let Err(error) = outcome {
            tracing::debug!(%error, "an admin conversation broke off");
        }
    }
}

fn converse(stream: &UnixStream, asker: &Asker) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let response = match read_line::<Request>(stream) {
        Ok(request) => asker.ask(request),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Response::Failed { message: error.to_string() },
        Err(error) => return Err(error),
    };
    write_line(stream, &response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinsan_control::admin::ask;

    #[test]
    fn a_request_reaches_the_reactor_and_its_answer_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let (asker, requests) = Asker::new(Doorbell::new().unwrap());
        start(&path, asker).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let reactor = thread::spawn(move || {
            let asked = requests.recv().unwrap();
            assert_eq!(asked.request, Request::Status);
            asked.answer.send(Response::Done { message: "seen".to_owned() }).unwrap();
        });
        let answer = ask(&path, &Request::Status, TIMEOUT).unwrap();
        assert_eq!(answer, Response::Done { message: "seen".to_owned() });
        reactor.join().unwrap();
    }

    #[test]
    fn nonsense_is_answered_by_the_thread_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let (asker, requests) = Asker::new(Doorbell::new().unwrap());
        start(&path, asker).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        io::Write::write_all(&mut &stream, b"{\"request\":\"make-coffee\"}\n").unwrap();
        let Response::Failed { message } = read_line(&stream).unwrap() else { panic!("refused") };
        assert!(message.contains("make-coffee"), "{message}");
        assert!(requests.is_empty());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(listen(&path).unwrap());
        let live = listen(&path).unwrap();
        let message = listen(&path).unwrap_err().to_string();
        assert_eq!(message, "another process listens there; is this node running already?");
        drop(live);
        let file = dir.path().join("data");
        fs::write(&file, "precious").unwrap();
        let message = listen(&file).unwrap_err().to_string();
        assert_eq!(message, "something is there that is no socket; remove it, or configure another path");
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }
}
