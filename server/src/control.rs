//! The control thread: the admin socket. It decides nothing and touches no volume; it hands each request to the
//! reactor and the reactor's answer back.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use twinsan_control::admin::{NodeStatus, Request, Response, read_line, write_line};

use crate::doorbell::Doorbell;
use crate::limits::{ADMIN_QUEUE, ADMIN_TIMEOUT_MS};

const TIMEOUT: Duration = Duration::from_millis(ADMIN_TIMEOUT_MS);

/// Hands requests to the reactors and waits for their answers, from whatever thread.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    reactors: Arc<[(Sender<Asked>, Doorbell)]>,
    /// In configuration order; each is served by the reactor of its place, again and again from the first on.
    volumes: Arc<[String]>,
}

impl Asker {
    /// And where the requests of each reactor arrive, whose doorbell this is.
    pub(crate) fn new(bells: &[Doorbell], volumes: Vec<String>) -> (Self, Vec<Receiver<Asked>>) {
        let queues = bells.iter().map(|bell| {
            let (reactor, requests) = bounded(ADMIN_QUEUE);
            ((reactor, bell.clone()), requests)
        });
        let (reactors, requests): (Vec<_>, Vec<_>) = queues.unzip();
        (Self { reactors: reactors.into(), volumes: volumes.into() }, requests)
    }

    /// Where no answer comes, that is the answer.
    pub(crate) fn ask(&self, request: Request) -> Response {
        match &request {
            Request::Status => self.status(),
            Request::Recover { volume, .. } | Request::Switchover { volume } => {
                // One that nobody has is for any of them to say so.
                let place = self.volumes.iter().position(|name| name == volume).unwrap_or(0);
                self.ask_reactor(place % self.reactors.len(), request).unwrap_or_else(Response::from)
            }
        }
    }

    /// Of all reactors' volumes.
    fn status(&self) -> Response {
        let mut whole: Option<Box<NodeStatus>> = None;
        for reactor in 0..self.reactors.len() {
            match (self.ask_reactor(reactor, Request::Status), &mut whole) {
                (Ok(Response::Status(part)), Some(whole)) => whole.volumes.extend(part.volumes),
                (Ok(Response::Status(part)), None) => whole = Some(part),
                (Ok(other), _) => return other,
                // Others may take longer to end, and that is when one wants to see them.
                (Err(Ended), _) => {}
            }
        }
        let Some(mut whole) = whole else { return Ended.into() };
        whole.volumes.sort_by_key(|volume| self.volumes.iter().position(|name| *name == volume.name));
        Response::Status(whole)
    }

    fn ask_reactor(&self, reactor: usize, request: Request) -> Result<Response, Ended> {
        let failed = |message: String| Ok(Response::Failed { message });
        let (queue, bell) = &self.reactors[reactor];
        let (answer, answered) = bounded(1);
        match queue.try_send(Asked { request, answer }) {
            Ok(()) => bell.ring(),
            Err(TrySendError::Full(_)) => return failed("the node has too many requests waiting".to_owned()),
            Err(TrySendError::Disconnected(_)) => return Err(Ended),
        }
        match answered.recv_timeout(TIMEOUT) {
            Ok(response) => Ok(response),
            Err(RecvTimeoutError::Timeout) => failed(format!("the reactor has not answered for {ADMIN_TIMEOUT_MS} ms")),
            Err(RecvTimeoutError::Disconnected) => Err(Ended),
        }
    }
}

/// The reactor is gone.
#[derive(Debug)]
struct Ended;

impl From<Ended> for Response {
    fn from(_: Ended) -> Self {
        Self::Failed { message: "the node is ending".to_owned() }
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

    /// With the volumes db, log and tmp.
    fn asker(reactors: usize) -> (Asker, Vec<Receiver<Asked>>) {
        let bells: Vec<_> = (0..reactors).map(|_| Doorbell::new().unwrap()).collect();
        Asker::new(&bells, ["db", "log", "tmp"].map(str::to_owned).to_vec())
    }

    fn switchover(volume: &str) -> Request {
        Request::Switchover { volume: volume.to_owned() }
    }

    #[test]
    fn each_volumes_requests_go_to_its_own_reactor() {
        let (asker, requests) = asker(2);
        let reactors: Vec<_> = requests
            .into_iter()
            .enumerate()
            .map(|(reactor, requests)| {
                thread::spawn(move || {
                    for asked in requests {
                        let Request::Switchover { volume } = asked.request else { panic!("{:?}", asked.request) };
                        asked.answer.send(Response::Done { message: format!("{volume} by {reactor}") }).unwrap();
                    }
                })
            })
            .collect();
        for (volume, reactor) in [("db", 0), ("log", 1), ("tmp", 0), ("nobody's", 0)] {
            let message = format!("{volume} by {reactor}");
            assert_eq!(asker.ask(switchover(volume)), Response::Done { message });
        }
        drop(asker);
        reactors.into_iter().for_each(|reactor| reactor.join().unwrap());
    }

    #[test]
    fn a_reactor_that_has_ended_does_not_hide_the_others() {
        let (asker, requests) = asker(2);
        let [ended, left] = <[_; 2]>::try_from(requests).unwrap();
        drop(ended);
        let node = || NodeStatus {
            node: "san1".to_owned(),
            version: String::new(),
            pid: 1,
            uptime_ms: 2,
            volumes: Vec::new(),
        };
        let reactor = thread::spawn(move || {
            left.recv().unwrap().answer.send(Response::Status(Box::new(node()))).unwrap();
        });
        assert_eq!(asker.ask(Request::Status), Response::Status(Box::new(node())));
        reactor.join().unwrap();
        let ending = Response::Failed { message: "the node is ending".to_owned() };
        assert_eq!(asker.ask(Request::Status), ending);
        assert_eq!(asker.ask(switchover("db")), ending);
    }

    #[test]
    fn a_request_reaches_the_reactor_and_its_answer_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/admin.sock");
        let (asker, requests) = asker(1);
        let [requests] = <[_; 1]>::try_from(requests).unwrap();
        start(&path, asker).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let reactor = thread::spawn(move || {
            let asked = requests.recv().unwrap();
            assert_eq!(asked.request, switchover("db"));
            asked.answer.send(Response::Done { message: "seen".to_owned() }).unwrap();
        });
        let answer = ask(&path, &switchover("db"), TIMEOUT).unwrap();
        assert_eq!(answer, Response::Done { message: "seen".to_owned() });
        reactor.join().unwrap();
    }

    #[test]
    fn nonsense_is_answered_by_the_thread_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let (asker, requests) = asker(1);
        start(&path, asker).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        io::Write::write_all(&mut &stream, b"{\"request\":\"make-coffee\"}\n").unwrap();
        let Response::Failed { message } = read_line(&stream).unwrap() else { panic!("refused") };
        assert!(message.contains("make-coffee"), "{message}");
        assert!(requests[0].is_empty());
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
