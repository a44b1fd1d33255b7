//! Which doorbell is rung for what.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use twinsan_arena::{Arena, PagePolicy};
use twinsan_fabric::{Event, FabricError, Interest, Limits, RemoteKey};
use twinsan_wire::{Epoch, Generation, NodeId};

use super::*;

const CONN: ConnId = ConnId(7);

/// Takes so many posts, and remembers whether the doorbell was solicited.
struct Doorbells {
    room: usize,
    rung: Vec<bool>,
}

impl Doorbells {
    fn post(&mut self) -> Result<(), PostError> {
        self.room = self.room.checked_sub(1).ok_or(PostError::Full)?;
        Ok(())
    }
}

impl Fabric for Doorbells {
    fn limits(&self) -> Limits {
        Limits { max_inline: 128, max_message: 512, send_depth: self.room }
    }

    fn register(&mut self, _: Arc<Arena>) -> Result<RegionId, FabricError> {
        Ok(RegionId(0))
    }

    fn expose(&mut self, _: ConnId, _: RegionId, _: u64, _: u64) -> Result<RemoteKey, FabricError> {
        Err(FabricError::Invalid("no such connection"))
    }

    fn listen(&mut self, address: &str) -> Result<String, FabricError> {
        Ok(address.to_owned())
    }

    fn connect(&mut self, _: &str) -> Result<ConnId, FabricError> {
        Ok(CONN)
    }

    fn write(&mut self, _: ConnId, _: Payload<'_>, _: RemoteAddr, _: Option<u64>) -> Result<(), PostError> {
        self.post()
    }

    fn write_imm(&mut self, _: ConnId, _: Payload<'_>, _: RemoteAddr, _: u32, _: Option<u64>) -> Result<(), PostError> {
        self.post()
    }

    fn send(&mut self, _: ConnId, _: &[u8]) -> Result<(), PostError> {
        self.post()
    }

    fn submit(&mut self, _: ConnId) {
        self.rung.push(true);
    }

    fn submit_unsolicited(&mut self, _: ConnId) {
        self.rung.push(false);
    }

    fn disconnect(&mut self, _: ConnId) {}

    fn watch(&mut self, _: BorrowedFd<'_>, _: u64, _: Interest) -> Result<(), FabricError> {
        Ok(())
    }

    fn unwatch(&mut self, _: BorrowedFd<'_>) {}

    fn poll(&mut self, _: &mut Vec<Event>, _: Option<Duration>) -> usize {
        0
    }
}

#[test]
fn a_heartbeat_alone_wakes_no_node() {
    let memory = Memory::new("db", 1 << 20, PagePolicy::Small, false).expect("memory for a test");
    let mut fabric = Doorbells { room: usize::MAX, rung: Vec::new() };
    let mut outbox = Outbox::new(CONN, false);
    let mut crcs = Crcs::new(false, 1024);
    let mut flush = |outbox: &mut Outbox, room| {
        fabric.room = room;
        outbox.flush(&mut fabric, &memory, RegionId(0), &mut crcs);
        std::mem::take(&mut fabric.rung)
    };
    assert_eq!(flush(&mut outbox, 9), [false; 0], "nothing to say");
    outbox.message(ClientMsg::Heartbeat);
    assert_eq!(flush(&mut outbox, 9), [false]);
    // What is said with it is news each time: how long it has been true is counted by the node.
    let complaint = ClientMsg::Unreachable { node: NodeId::A, epoch: Epoch(1), generation: Generation(1) };
    for _ in 0..2 {
        outbox.message(ClientMsg::Heartbeat);
        outbox.message(complaint);
        assert_eq!(flush(&mut outbox, 9), [true]);
    }
    outbox.message(ClientMsg::Detach);
    outbox.message(ClientMsg::Heartbeat);
    assert_eq!(flush(&mut outbox, 0), [true]);
    assert_eq!(flush(&mut outbox, 9), [true], "what found no room is still news when it finds some");
}
