//! A fabric that carries nothing and remembers everything, for this crate's own tests.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use twinsan_arena::Arena;
use twinsan_fabric::{
    ConnId, Event, Fabric, FabricError, Interest, Limits, LocalSlice, Payload, PostError, RegionId, RemoteAddr,
    RemoteKey, WorkId,
};

/// What was done to it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Connect(String),
    Expose { conn: ConnId, offset: u64, len: u64 },
    Write { conn: ConnId, slice: LocalSlice, to: RemoteAddr, signal: Option<WorkId> },
    WriteImm { conn: ConnId, bytes: Vec<u8>, to: RemoteAddr, imm: u32 },
    Send { conn: ConnId, bytes: Vec<u8> },
    Submit(ConnId),
    SubmitUnsolicited(ConnId),
    Disconnect(ConnId),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) calls: Vec<Call>,
    /// Posts that it still takes.
    pub(crate) room: usize,
    /// Connections that were destroyed: a post there is answered so.
    gone: BTreeSet<ConnId>,
    next: u64,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self { calls: Vec::new(), room: usize::MAX, gone: BTreeSet::new(), next: 1000 }
    }

    /// What was done since the last call.
    pub(crate) fn take(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    fn post(&mut self, conn: ConnId, call: Call) -> Result<(), PostError> {
        if self.gone.contains(&conn) {
            return Err(PostError::NotConnected);
        }
        self.room = self.room.checked_sub(1).ok_or(PostError::Full)?;
        self.calls.push(call);
        Ok(())
    }
}

impl Fabric for Fake {
    fn limits(&self) -> Limits {
        Limits { max_inline: 128, max_message: 512, send_depth: self.room }
    }

    fn register(&mut self, _: Arc<Arena>) -> Result<RegionId, FabricError> {
        Ok(RegionId(0))
    }

    fn expose(&mut self, conn: ConnId, _: RegionId, offset: u64, len: u64) -> Result<RemoteKey, FabricError> {
        if self.gone.contains(&conn) {
            return Err(FabricError::Invalid("no such connection"));
        }
        self.next += 1;
        self.calls.push(Call::Expose { conn, offset, len });
        Ok(RemoteKey(self.next))
    }

    fn listen(&mut self, address: &str) -> Result<String, FabricError> {
        Ok(address.to_owned())
    }

    fn connect(&mut self, address: &str) -> Result<ConnId, FabricError> {
        self.next += 1;
        self.calls.push(Call::Connect(address.to_owned()));
        Ok(ConnId(self.next))
    }

    fn write(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        signal: Option<WorkId>,
    ) -> Result<(), PostError> {
        let Payload::Region(slice) = payload else { panic!("the driver writes inline only with an immediate") };
        self.post(conn, Call::Write { conn, slice, to, signal })
    }

    fn write_imm(
        &mut self,
        conn: ConnId,
        payload: Payload<'_>,
        to: RemoteAddr,
        imm: u32,
        _: Option<WorkId>,
    ) -> Result<(), PostError> {
        let Payload::Inline(bytes) = payload else { panic!("the driver's immediates are inline") };
        self.post(conn, Call::WriteImm { conn, bytes: bytes.to_vec(), to, imm })
    }

    fn send(&mut self, conn: ConnId, message: &[u8]) -> Result<(), PostError> {
        self.post(conn, Call::Send { conn, bytes: message.to_vec() })
    }

    fn submit(&mut self, conn: ConnId) {
        self.calls.push(Call::Submit(conn));
    }

    fn submit_unsolicited(&mut self, conn: ConnId) {
        self.calls.push(Call::SubmitUnsolicited(conn));
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.gone.insert(conn);
        self.calls.push(Call::Disconnect(conn));
    }

    fn watch(&mut self, _: BorrowedFd<'_>, _: u64, _: Interest) -> Result<(), FabricError> {
        Ok(())
    }

    fn unwatch(&mut self, _: BorrowedFd<'_>) {}

    fn poll(&mut self, _: &mut Vec<Event>, _: Option<Duration>) -> usize {
        0
    }
}
