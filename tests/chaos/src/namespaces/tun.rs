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
    let mut request = libc::ifreq {
        ifr_name: [0; NAME_BYTES],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_map: EMPTY },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = FLAGS;
    // SAFETY: TUNSETIFF reads a struct ifreq at its argument and writes one back (drivers/net/tun.c, __tun_chr_ioctl): this
    // one is wholly initialised, of any bytes, and borrowed until the call is over.
    let updater = unsafe { Updater::<TUNSETIFF, libc::ifreq>::new(&mut request) };
    // SAFETY: the file is a tun control file, so 'T', 202 is TUNSETIFF, and nobody else's.
    Ok(unsafe { ioctl(file.as_fd(), updater) }?)
}

/// Packets with nothing before them.
#[expect(clippy::cast_possible_truncation, reason = "a short's worth of flags")]
const FLAGS: libc::c_short = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;

/// The largest member of the union, so that all of it is initialised.
const EMPTY: libc::__c_anonymous_ifr_map = libc::__c_anonymous_ifr_map {
    mem_start: 0,
    mem_end: 0,
    base_addr: 0,
    irq: 0,
    dma: 0,
    port: 0,
};
