//! What goes by the socket of a connection, one packet each (`SOCK_SEQPACKET`, which keeps their bounds).
//!
//! ```text
//! by the listener, first:  "TWS1", bytes of the rings (u32); the rings' memfd with it
//! wake up:                 1
//! memory:                  2, region (u32), bytes of it (u64); its memfd with it
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

const MAGIC: [u8; 4] = *b"TWS1";
const WAKE: u8 = 1;
const MEMORY: u8 = 2;

/// No packet is longer.
const LONGEST: usize = 13;

/// A packet.
#[derive(Debug)]
pub(crate) enum Packet {
    /// The rings, of so many bytes.
    Rings { file: OwnedFd, bytes: u32 },
    /// Wake up.
    Wake,
    /// Memory that is posted from.
    Memory { region: u32, bytes: u64, file: OwnedFd },
}

/// What a socket had.
#[derive(Debug)]
pub(crate) enum Received {
    /// A packet.
    Packet(Packet),
    /// Nothing, for now.
    Nothing,
    /// The other end is gone.
    End,
    /// Something that is no packet; with a descriptor, if there was one.
    Nonsense(String, Option<OwnedFd>),
}

/// Wakes the other end. A socket that is full wakes it as well.
pub(crate) fn wake(socket: &OwnedFd) {
    // If it is gone, the socket will say so.
    let _ = send(socket, &[WAKE], None);
}

/// Sends the rings.
pub(crate) fn rings(socket: &OwnedFd, file: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let mut packet = [0; 8];
    packet[..4].copy_from_slice(&MAGIC);
    packet[4..].copy_from_slice(&bytes.to_le_bytes());
    send(socket, &packet, Some(file))
}

/// Sends memory that is posted from.
pub(crate) fn memory(socket: &OwnedFd, file: BorrowedFd<'_>, region: u32, bytes: u64) -> io::Result<()> {
    let mut packet = [0; 13];
    packet[0] = MEMORY;
    packet[1..5].copy_from_slice(&region.to_le_bytes());
    packet[5..].copy_from_slice(&bytes.to_le_bytes());
    send(socket, &packet, Some(file))
}

fn send(socket: &OwnedFd, packet: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files: [BorrowedFd<'_>; 1] = [file.unwrap_or_else(|| socket.as_fd())];
    if file.is_some() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&files)), "there is room for one");
    }
    sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one packet, with a descriptor only if `files` are taken: else the kernel drops it.
pub(crate) fn receive(socket: &OwnedFd, files: bool) -> io::Result<Received> {
    let mut bytes = [0; LONGEST + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = if files { RecvAncillaryBuffer::new(&mut space) } else { RecvAncillaryBuffer::default() };
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Received::Nothing),
        Err(rustix::io::Errno::CONNRESET) => return Ok(Received::End),
        Err(e) => return Err(e.into()),
    };
    let mut file = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut files) = message {
            file = files.next();
        }
    }
    Ok(decode(&bytes[..got], file))
}

fn decode(bytes: &[u8], file: Option<OwnedFd>) -> Received {
    match (bytes, file) {
        ([], None) => Received::End,
        ([WAKE], None) => Received::Packet(Packet::Wake),
        ([b'T', b'W', b'S', b'1', b0, b1, b2, b3], Some(file)) => {
            Received::Packet(Packet::Rings { file, bytes: u32::from_le_bytes([*b0, *b1, *b2, *b3]) })
        }
        ([MEMORY, r0, r1, r2, r3, rest @ ..], Some(file)) if rest.len() == 8 => {
            let bytes = rest.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
            Received::Packet(Packet::Memory { region: u32::from_le_bytes([*r0, *r1, *r2, *r3]), bytes, file })
        }
        (bytes, file) => {
            let with = if file.is_some() { "with" } else { "without" };
            Received::Nonsense(format!("a packet {bytes:02x?} {with} a descriptor"), file)
        }
    }
}
