//! The writes: FUA, one connection, so many at a time.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use twinsan_witness::nbd::proto::{self, Command, FUA, REPLY_BYTES};

/// From one write's block to the next one's: scattered, so that no two are neighbours, and all blocks of a volume whose
/// number is a power of two have their turn.
const STRIDE: u64 = 7919;
/// A client that says nothing for so long has hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
#[derive(Debug)]
pub(super) struct Load {
    stream: UnixStream,
    blocks: u64,
    payload: Vec<u8>,
    next: u64,
    requests: Vec<u8>,
}

impl Load {
    pub(super) fn connect(socket: &Path, name: &str, bytes: u32) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let blocks = proto::open(&mut stream, name)?.size / u64::from(bytes);
        ensure!(blocks.is_power_of_two(), "{blocks} blocks; a power of two is wanted");
        let payload = vec![0x5a; usize::try_from(bytes)?];
        Ok(Self { stream, blocks, payload, next: 0, requests: Vec::new() })
    }

    /// Makes writes, so many at a time: sent in one piece, and the next ones when all are answered.
    pub(super) fn write(&mut self, writes: u64, at_a_time: u64) -> Result<()> {
        let end = self.next + writes;
        while self.next < end {
            let batch = self.next..end.min(self.next + at_a_time);
            self.requests.clear();
            let len = u32::try_from(self.payload.len())?;
            for cookie in batch.clone() {
                let offset = cookie * STRIDE % self.blocks * u64::from(len);
                self.requests.extend(proto::header(Command::Write, FUA, cookie, offset, len));
                self.requests.extend(&self.payload);
            }
            self.stream.write_all(&self.requests)?;
            for _ in batch.clone() {
                let mut bytes = [0; REPLY_BYTES];
                self.stream.read_exact(&mut bytes)?;
                let reply = proto::reply(&bytes)?;
                ensure!(batch.contains(&reply.cookie), "a reply to another write: {}", reply.cookie);
                ensure!(reply.code == 0, "a write failed: NBD error {}", reply.code);
            }
            self.next = batch.end;
        }
        Ok(())
    }
}
