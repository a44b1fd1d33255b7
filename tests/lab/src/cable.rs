//! A network cable between two guests: frames go from one socket to the other through a thread of the launcher's, which
//! may lose them, hold them back, or stop passing any.
//!
//! The guests' ends stay open here, so a guest that was killed and started again is on the same cable.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// The sockets' buffers.
const BUFFER_BYTES: usize = 1 << 20;
/// The largest frame; guests use an MTU of 9000.
const FRAME_BYTES: usize = 65_536;
/// How long a frame waits for a guest that takes none: a slow one needs a moment, a frozen one gets none, as from a switch.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was named first.
    A,
    /// The other.
    B,
}

/// What a cable does with frames, and what it has done.
#[derive(Debug, Default)]
struct Condition {
    cut: AtomicBool,
    delay_us: AtomicU64,
    /// Lose one frame in so many; 0: none.
    lose_one_in: AtomicU32,
    frames: AtomicU64,
}

/// One cable.
#[derive(Debug)]
pub struct Cable {
    a: UnixDatagram,
    b: UnixDatagram,
    /// The forwarders' ends, so that they can be ended.
    far: [UnixDatagram; 2],
    condition: Arc<Condition>,
}

impl Cable {
    /// A cable that works.
    ///
    /// # Errors
    /// If sockets or threads are not to be had.
    pub fn new() -> Result<Self> {
        let (a, far_a) = pair()?;
        let (b, far_b) = pair()?;
        let condition = Arc::new(Condition::default());
        forward(far_a.try_clone()?, far_b.try_clone()?, Arc::clone(&condition))?;
        forward(far_b.try_clone()?, far_a.try_clone()?, Arc::clone(&condition))?;
        Ok(Self { a, b, far: [far_a, far_b], condition })
    }

    /// The end that a guest gets.
    #[must_use]
    pub fn end(&self, side: Side) -> BorrowedFd<'_> {
        match side {
            Side::A => self.a.as_fd(),
            Side::B => self.b.as_fd(),
        }
    }

    /// From now on no frame passes.
    pub fn cut(&self) {
        self.condition.cut.store(true, Ordering::Relaxed);
    }

    /// Works again, in every way.
    pub fn mend(&self) {
        self.condition.cut.store(false, Ordering::Relaxed);
        self.condition.delay_us.store(0, Ordering::Relaxed);
        self.condition.lose_one_in.store(0, Ordering::Relaxed);
    }

    /// Holds every frame back for so long.
    pub fn delay(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.condition.delay_us.store(us, Ordering::Relaxed);
    }

    /// Loses one frame in `n`.
    pub fn lose_one_in(&self, n: u32) {
        self.condition.lose_one_in.store(n, Ordering::Relaxed);
    }

    /// Frames that guests have sent, lost ones too.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.condition.frames.load(Ordering::Relaxed)
    }

    /// Throws away what waits at an end: a guest that starts must not get its predecessor's mail.
    pub fn drain(&self, side: Side) {
        let mut frame = [0; 64];
        while recv(self.end(side), &mut frame[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC).is_ok() {}
    }
}

fn pair() -> Result<(UnixDatagram, UnixDatagram)> {
    let (x, y) = UnixDatagram::pair().context("a cable's socket pair")?;
    for socket in [&x, &y] {
        set_socket_send_buffer_size(socket, BUFFER_BYTES)?;
        set_socket_recv_buffer_size(socket, BUFFER_BYTES)?;
    }
    Ok((x, y))
}

impl Drop for Cable {
    /// A datagram socket does not see its other end close, so the forwarders are told.
    fn drop(&mut self) {
        for end in &self.far {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// One direction. The threads end with the cable.
fn forward(from: UnixDatagram, to: UnixDatagram, condition: Arc<Condition>) -> Result<()> {
    let late_to = to.try_clone()?;
    let (late, held) = channel();
    let named = || std::thread::Builder::new().name("cable".into());
    named().spawn(move || hold_back(&held, &late_to))?;
    named().spawn(move || pass(&from, &to, &condition, &late))?;
    Ok(())
}

fn pass(from: &UnixDatagram, to: &UnixDatagram, condition: &Condition, late: &Sender<(Instant, Vec<u8>)>) {
    let mut frame = vec![0; FRAME_BYTES];
    // A datagram of no bytes is no frame: that is how the end looks.
    while let Ok(len @ 1..) = from.recv(&mut frame) {
        let number = condition.frames.fetch_add(1, Ordering::Relaxed) + 1;
        let lose = condition.lose_one_in.load(Ordering::Relaxed);
        if condition.cut.load(Ordering::Relaxed) || (lose > 0 && number.is_multiple_of(u64::from(lose))) {
            continue;
        }
        let delay = condition.delay_us.load(Ordering::Relaxed);
        if delay == 0 {
            deliver(to, &frame[..len]);
        } else {
            // It ends only with this thread, so it takes what it is given.
            let _ = late.send((Instant::now() + Duration::from_micros(delay), frame[..len].to_vec()));
        }
    }
}

fn hold_back(held: &Receiver<(Instant, Vec<u8>)>, to: &UnixDatagram) {
    for (when, frame) in held {
        std::thread::sleep(when.saturating_duration_since(Instant::now()));
        deliver(to, &frame);
    }
}

/// To a guest, or to nobody.
fn deliver(to: &UnixDatagram, frame: &[u8]) {
    let sent = send(to, frame, SendFlags::DONTWAIT).map_err(io::Error::from);
    if sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
        let mut room = [PollFd::new(to, PollFlags::OUT)];
        if poll(&mut room, Some(&PATIENCE)).is_ok_and(|ready| ready > 0) {
            let _ = send(to, frame, SendFlags::DONTWAIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrives(cable: &Cable, from: Side, to: Side) -> bool {
        send(cable.end(from), b"frame", SendFlags::empty()).unwrap();
        let end = cable.end(to);
        let mut ready = [PollFd::new(&end, PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        poll(&mut ready, Some(&wait)).unwrap() > 0 && {
            let mut frame = [0; 16];
            let (_, len) = recv(end, &mut frame[..], RecvFlags::empty()).unwrap();
            &frame[..len] == b"frame"
        }
    }

    #[test]
    fn frames_pass_both_ways_until_it_is_cut_and_again_when_mended() {
        let cable = Cable::new().unwrap();
        assert!(arrives(&cable, Side::A, Side::B));
        assert!(arrives(&cable, Side::B, Side::A));
        cable.cut();
        assert!(!arrives(&cable, Side::A, Side::B));
        cable.mend();
        assert!(arrives(&cable, Side::A, Side::B));
        assert_eq!(cable.frames(), 4);
    }

    #[test]
    fn a_delayed_frame_comes_late_and_every_second_one_is_lost() {
        let cable = Cable::new().unwrap();
        cable.delay(Duration::from_millis(50));
        let begin = Instant::now();
        assert!(arrives(&cable, Side::A, Side::B));
        assert!(begin.elapsed() >= Duration::from_millis(50));
        cable.mend();
        cable.lose_one_in(2);
        let arrived = (0..4).filter(|_| arrives(&cable, Side::A, Side::B)).count();
        assert_eq!(arrived, 2);
    }

    #[test]
    fn a_guest_that_takes_nothing_holds_nobody_up_and_its_successor_gets_no_old_mail() {
        let cable = Cable::new().unwrap();
        for _ in 0..2_000 {
            let _ = send(cable.end(Side::A), b"old", SendFlags::DONTWAIT);
        }
        assert!(arrives(&cable, Side::B, Side::A));
        std::thread::sleep(Duration::from_millis(600));
        cable.drain(Side::B);
        let mut frame = [0; 16];
        let nothing = recv(cable.end(Side::B), &mut frame[..], RecvFlags::DONTWAIT);
        assert!(nothing.is_err(), "{frame:?}");
    }
}
