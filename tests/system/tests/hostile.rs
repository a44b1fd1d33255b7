//! NBD clients that mean harm, against a real `twinsan attach`: an honest one beside them is served all the time.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use twinsan_perf::cluster::{Cluster, VOLUME};
use twinsan_system::load::Load;
use twinsan_system::{PATIENCE, dual_cluster};
use twinsan_witness::nbd::Client;

/// NBD connections at once (`client/src/front/limits.rs`).
const MAX_CONNECTIONS: usize = 128;

fn connect(cluster: &Cluster) -> Result<UnixStream> {
    Ok(UnixStream::connect(cluster.nbd_socket())?)
}

/// Flags, and EXPORT_NAME: requests may follow.
fn negotiated(cluster: &Cluster) -> Result<UnixStream> {
    let mut socket = connect(cluster)?;
    let length = u32::try_from(VOLUME.len())?.to_be_bytes();
    let hello = [b"\0\0\0\x03IHAVEOPT\0\0\0\x01".as_slice(), &length, VOLUME.as_bytes()].concat();
    socket.write_all(&hello)?;
    Ok(socket)
}

fn request(command: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(command.to_be_bytes());
    bytes.extend(7_u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// All places are taken by clients that say nothing, or stop half-way: each newcomer is let in all the same.
#[test]
fn silent_nbd_clients_keep_nobody_out() -> Result<()> {
    let cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 20)?;
    let mut silent = Vec::new();
    for at in 0..2 * MAX_CONNECTIONS {
        let mut socket = connect(&cluster)?;
        // It may have been closed already, in favour of a later one.
        let _ = socket.write_all(&b"\0\0\0\x03IHAVEOPT\0"[..at % 13]);
        silent.push(socket);
    }
    for _ in 0..8 {
        drop(Client::connect(&cluster.nbd_socket(), VOLUME)?);
        load.goes_on(&cluster, 20)?;
    }
    ensure!(cluster.is_dual(), "the pair is not disturbed");
    load.end_and_check(&cluster)
}

/// Half a write, reads whose answers nobody takes, rubbish, and the end in the middle of everything.
#[test]
fn nbd_clients_that_stop_or_do_not_listen_stall_nobody() -> Result<()> {
    let mut cluster = dual_cluster()?;
    let load = Load::start(&cluster);
    load.goes_on(&cluster, 20)?;
    let mut stuck = Vec::new();
    for at in 0_u32..24 {
        let mut socket = negotiated(&cluster)?;
        match at % 4 {
            // Not a byte of it overlaps the load's own: it is never whole.
            0 => socket.write_all(&[request(1, 0, 1 << 20), vec![9; 1 + 40_000 * at as usize]].concat())?,
            1 => (0..64).try_for_each(|_| socket.write_all(&request(0, 0, 1 << 20)))?,
            2 => socket.write_all(&[0x66; 1000])?,
            _ => {
                socket.write_all(&request(1, 0, 1 << 20)[..20])?;
                socket.shutdown(Shutdown::Both)?;
            }
        }
        stuck.push(socket);
        load.goes_on(&cluster, 5)?;
    }
    load.goes_on(&cluster, 50)?;
    ensure!(cluster.is_dual(), "the pair is not disturbed");
    load.end_and_check(&cluster)?;
    // Nor does the end wait for who takes no answers, which would be an end without the nodes' word.
    cluster.signal_client(Signal::TERM)?;
    let status = cluster.wait_client(PATIENCE)?;
    ensure!(status.success(), "it ends in order: {status}");
    drop(stuck);
    Ok(())
}
