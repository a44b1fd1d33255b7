//! A small NBD server, one request at a time, by blocking calls: it reads nothing while an answer of its waits to be taken.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// How it behaves.
pub(super) struct Manner {
    /// Says that it knows FUA and FLUSH.
    pub(super) flags: u16,
    /// Answers to writes wait for a word from here.
    pub(super) gate: Option<Receiver<()>>,
    /// Hears of every answer sent.
    pub(super) answered: Option<Sender<()>>,
    /// Writes are answered and not stored.
    pub(super) forgets: bool,
    /// That request is answered by an error.
    pub(super) fails: Option<u64>,
    /// Ends after so many requests.
    pub(super) ends: Option<u64>,
    /// So many requests are read before any is answered, in the other order.
    pub(super) batch: usize,
    /// So many connections are served, one after the other.
    pub(super) connections: usize,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            flags: 0b1101,
            gate: None,
            answered: None,
            forgets: false,
            fails: None,
            ends: None,
            batch: 1,
            connections: 1,
        }
    }
}

/// A running server.
pub(super) struct Server {
    folder: TempDir,
    pub(super) data: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    pub(super) fn start(bytes: usize, manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = Arc::new(Mutex::new(vec![0; bytes]));
        let listener = UnixListener::bind(folder.path().join("nbd")).unwrap();
        let memory = Arc::clone(&data);
        thread::spawn(move || {
            for _ in 0..manner.connections {
                let (stream, _) = listener.accept().unwrap();
                // A client that never takes its answers fails its test rather than hang.
                stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
                let _ = serve(stream, &memory, &manner);
            }
        });
        Self { folder, data }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("nbd")
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A pair of ends: who is told and who waits.
pub(super) fn gate() -> (Sender<()>, Receiver<()>) {
    channel()
}

struct Request {
    command: u16,
    cookie: u64,
    offset: usize,
    len: usize,
    payload: Vec<u8>,
}

fn serve(mut stream: UnixStream, memory: &Mutex<Vec<u8>>, manner: &Manner) -> std::io::Result<()> {
    handshake(&mut stream, memory.lock().unwrap().len() as u64, manner.flags)?;
    let mut count = 0;
    loop {
        let mut batch = Vec::new();
        while batch.len() < manner.batch {
            let Some(request) = next(&mut stream)? else { return Ok(()) };
            batch.push(request);
        }
        for request in batch.into_iter().rev() {
            count += 1;
            if manner.ends.is_some_and(|n| count > n) {
                return Ok(());
            }
            let fails = manner.fails == Some(count);
            answer(&mut stream, memory, manner, &request, fails)?;
        }
    }
}

fn handshake(stream: &mut UnixStream, bytes: u64, flags: u16) -> std::io::Result<()> {
    stream.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    let mut head = [0; 4 + 16];
    stream.read_exact(&mut head)?;
    let len = u32::from_be_bytes(head[16..20].try_into().unwrap());
    let mut data = vec![0; len as usize];
    stream.read_exact(&mut data)?;
    let reply = |kind: u32, data: &[u8]| {
        let mut out = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
        out.extend(7_u32.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
        out
    };
    let info = [&0_u16.to_be_bytes()[..], &bytes.to_be_bytes(), &flags.to_be_bytes()].concat();
    stream.write_all(&[reply(3, &info), reply(1, &[])].concat())
}

fn next(stream: &mut UnixStream) -> std::io::Result<Option<Request>> {
    let mut head = [0; 28];
    stream.read_exact(&mut head)?;
    let word = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().unwrap());
    let command = u16::from_be_bytes(head[6..8].try_into().unwrap());
    let len = u32::from_be_bytes(head[24..28].try_into().unwrap()) as usize;
    let mut payload = vec![0; if command == 1 { len } else { 0 }];
    stream.read_exact(&mut payload)?;
    let offset = usize::try_from(word(16)).unwrap();
    Ok((command != 2).then_some(Request { command, cookie: word(8), offset, len, payload }))
}

fn answer(
    stream: &mut UnixStream,
    memory: &Mutex<Vec<u8>>,
    manner: &Manner,
    request: &Request,
    fails: bool,
) -> std::io::Result<()> {
    let Request { command, cookie, offset, len, payload } = request;
    let mut out = 0x6744_6698_u32.to_be_bytes().to_vec();
    out.extend(u32::from(fails).to_be_bytes().map(|b| b * 5));
    out.extend(cookie.to_be_bytes());
    match command {
        0 if !fails => out.extend(&memory.lock().unwrap()[*offset..offset + len]),
        1 => {
            if !manner.forgets {
                memory.lock().unwrap()[*offset..offset + len].copy_from_slice(payload);
            }
            if let Some(gate) = &manner.gate {
                let _ = gate.recv();
            }
        }
        _ => {}
    }
    stream.write_all(&out)?;
    if let Some(answered) = &manner.answered {
        let _ = answered.send(());
    }
    Ok(())
}
