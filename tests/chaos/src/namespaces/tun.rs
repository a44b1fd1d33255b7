//! A TUN device: a network interface of which the packets are ours to forward, hold back, or lose.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// What makes them (linux/Documentation/networking/tuntap.rst).
const CONTROL: &str = "/dev/net/tun";
/// IFNAMSIZ, with the terminating zero.
const NAME_BYTES: usize = 16;
/// `TUNSETIFF`: `_IOW('T', 202, int)`, though it reads a `struct ifreq`.
const TUNSETIFF: Opcode = opcode::write::<libc::c_int>(b'T', 202);

/// Makes the device `name` in the caller's network namespace. Reading the file gives one packet that was sent through it,
/// writing one lets it arrive there; neither waits. The device goes with the file.
///
/// # Errors
/// No /dev/net/tun, no right to (CAP_NET_ADMIN), or the name is in use.
pub(super) fn open(name: &str) -> Result<File> {
    ensure!(name.len() < NAME_BYTES, "\"{name}\" is too long for a network device: at most {} bytes", NAME_BYTES - 1);
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(Path::new(CONTROL))
        .with_context(|| format!("{CONTROL} (is the tun driver there? modprobe tun)"))?;
    attach(&file, name).with_context(|| format!("a TUN device \"{name}\""))?;
    Ok(file)
}

fn attach(file: &File, name: &str) -> io::Result<()> {
    let mut request = Request { name: [0; NAME_BYTES], flags: FLAGS, rest: [0; REST_BYTES] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads a struct ifreq at its argument and writes one back (drivers/net/tun.c, __tun_chr_ioctl):
    // `request` has its size, any bytes are one of its values, and it is borrowed until the call is over.
    let updater = unsafe { Updater::<TUNSETIFF, Request>::new(&mut request) };
    // SAFETY: the file is a tun control file, so 'T', 202 is TUNSETIFF, and nobody else's.
    Ok(unsafe { ioctl(file.as_fd(), updater) }?)
}

/// A `struct ifreq` (netdevice(7)) of which only name and flags are used.
#[repr(C)]
struct Request {
    name: [u8; NAME_BYTES],
    flags: libc::c_short,
    rest: [u8; REST_BYTES],
}

/// The rest of the union that the flags stand in.
const REST_BYTES: usize = 22;
const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

/// Packets with nothing before them.
#[expect(clippy::cast_possible_truncation, reason = "a short's worth of flags")]
const FLAGS: libc::c_short = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
