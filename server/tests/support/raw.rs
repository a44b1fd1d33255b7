//! A peer that keeps to nothing: a socket, and frames made by hand (`docs/wire-format.md`). It can say what the fabric
//! would never send, and need not listen.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use twinsan_auth::{Connector, ConnectorStep, Key, Welcome, fresh_nonce};
use twinsan_wire::{Purpose, RemoteKey, SetupMsg, VolumeName};

use super::PATIENCE;

/// A frame's operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Write { key: u64, offset: u64 },
    WriteImm { key: u64, offset: u64, imm: u32 },
    Message,
    Credits,
}

/// A frame with a payload of any length, true or not: `len` is what its header says.
pub(crate) fn frame(op: Op, credits: u16, len: usize, payload: &[u8]) -> Vec<u8> {
    let (number, imm, key, offset) = match op {
        Op::Write { key, offset } => (1, 0, key, offset),
        Op::WriteImm { key, offset, imm } => (2, imm, key, offset),
        Op::Message => (3, 0, 0, 0),
        Op::Credits => (4, 0, 0, 0),
    };
    let mut bytes = vec![number, 0];
    bytes.extend(credits.to_le_bytes());
    bytes.extend(u32::to_le_bytes(imm));
    bytes.extend(u64::to_le_bytes(key));
    bytes.extend(u64::to_le_bytes(offset));
    bytes.extend(u32::try_from(len).unwrap().to_le_bytes());
    bytes.extend(b"TWF1");
    bytes.extend(payload);
    bytes
}

/// A message, as it should be framed.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    frame(Op::Message, 0, bytes.len(), bytes)
}

/// One connection to one node.
pub(crate) struct Raw(UnixStream);

impl Raw {
    /// Connects, and says nothing. `address` is a unix socket's.
    pub(crate) fn connect(address: &str) -> Self {
        let socket = UnixStream::connect(address.strip_prefix("unix://").unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Whether the node took it, or has cut us off.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        match self.0.write_all(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// What the node says next, all but its messages left out; `None`: it has cut us off.
    pub(crate) fn hear(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut header = [0; 32];
            if !self.fill(&mut header) {
                return None;
            }
            let mut payload = vec![0; u32::from_le_bytes(header[24..28].try_into().unwrap()) as usize];
            if !self.fill(&mut payload) {
                return None;
            }
            if header[0] == 3 {
                return Some(payload);
            }
        }
    }

    /// The node's next word in the set-up.
    pub(crate) fn hear_setup(&mut self) -> SetupMsg {
        SetupMsg::decode(&self.hear().expect("cut off")).unwrap()
    }

    fn fill(&mut self, bytes: &mut [u8]) -> bool {
        match self.0.read_exact(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => false,
            Err(error) => panic!("neither an answer nor the end: {error}"),
        }
    }

    /// Waits until the node has cut us off.
    pub(crate) fn wait_closed(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.hear().is_some() {
            assert!(Instant::now() < deadline, "the node does not cut it off");
        }
    }

    /// Goes through the set-up up to the node's Welcome, with the key or without.
    ///
    /// # Errors
    /// What the node says, or that it has cut us off.
    pub(crate) fn prove(&mut self, purpose: Purpose, volume: &str, key: Option<Key>) -> Result<Welcome, String> {
        let volume = VolumeName::new(volume).unwrap();
        let (mut connector, hello) = Connector::new(purpose, volume, key, fresh_nonce().unwrap());
        self.say(&message(hello.encode().as_bytes()));
        loop {
            let heard = self.hear().ok_or("cut off")?;
            match connector.handle_bytes(&heard).map_err(|error| error.to_string())? {
                ConnectorStep::Send(msg) => drop(self.say(&message(msg.encode().as_bytes()))),
                ConnectorStep::Welcomed(welcome) => return Ok(welcome),
            }
        }
    }

    /// The set-up's last word. The keys open nothing: the node would find out when it writes.
    pub(crate) fn ready(&mut self, reads: bool) {
        let reads = reads.then_some(RemoteKey(2));
        self.say(&message(SetupMsg::Ready { mailbox: RemoteKey(1), reads }.encode().as_bytes()));
    }
}
