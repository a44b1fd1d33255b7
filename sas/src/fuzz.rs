//! What a disk, a SCSI target and multipathd say, for the fuzz targets (`tests/fuzz`).

use crate::fence::scsi_pr::{Capabilities, Keys, Reservation, ReservationKey, Sense, Status};
use crate::multipath::multipathd;
use crate::page::Page;

/// A page that begins with `bytes`; `sealed`: with the right CRC.
#[must_use]
pub fn page(bytes: &[u8], sealed: bool) -> Page {
    let mut page = Page::ZERO;
    let len = bytes.len().min(page.0.len());
    page.0[..len].copy_from_slice(&bytes[..len]);
    if sealed {
        page.seal();
    }
    page
}

/// What a LUN has answered to a PERSISTENT RESERVE IN or REPORT CAPABILITIES: what is believed stands there.
///
/// # Panics
/// If it does not.
pub fn reservations(data: &[u8]) {
    if let Ok(Keys { generation, keys }) = Keys::parse(data) {
        assert_eq!(data[..4], generation.to_be_bytes());
        assert!(keys.len() <= (data.len() - 8) / 8, "{} keys in {} bytes", keys.len(), data.len());
        for key in keys {
            assert!(data[8..].chunks_exact(8).any(|found| found == key.get().to_be_bytes()), "{key} is made up");
        }
    }
    if let Ok(Some(Reservation { key, kind })) = Reservation::parse(data) {
        assert_eq!(data[8..16], key.map_or(0, ReservationKey::get).to_be_bytes());
        assert_eq!(kind.0, data[21] & 0xf);
    }
    let _ = Capabilities::parse(data);
}

/// How a command has ended: nothing counts as done that a target has not called so.
///
/// # Panics
/// If something does.
pub fn status(status: u8, sense: &[u8], data: &[u8]) {
    const GOOD: u8 = 0;
    const CHECK_CONDITION: u8 = 2;
    let said = Sense::parse(sense);
    match Status::decode(status, sense, data.to_vec()) {
        Status::Good(read) => {
            assert_eq!(read, data);
            let beside = said.is_some_and(|sense| sense.key <= 1);
            assert!(status == GOOD || (status == CHECK_CONDITION && beside), "status {status:#04x} taken for done");
        }
        Status::Check(sense) => assert_eq!((status, Some(sense)), (CHECK_CONDITION, said)),
        Status::Conflict | Status::Again(_) => assert_ne!(status, GOOD),
    }
    if let Some(sense) = said {
        assert!(!(sense.is_refusal() && sense.is_passing()), "{sense} passes and is for good");
    }
}

/// What multipathd, or whoever has taken its socket's name, answers.
///
/// # Panics
/// If a reply that is not whole is taken, or a path is told that has no name.
pub fn multipathd(mut stream: &[u8], map: &str) {
    let announced = stream.first_chunk().map(|length| usize::from_ne_bytes(*length));
    let before = stream.len();
    let Ok(reply) = multipathd::read_frame(&mut stream) else { return };
    assert_eq!(announced, Some(before - stream.len() - size_of::<usize>()), "more or less was read than announced");
    for path in multipathd::parse_paths(&reply) {
        assert!(reply.contains(&path.name) && reply.contains(&path.checker));
    }
    if multipathd::parse_queueing(&reply, map).is_some() {
        assert!(reply.contains(map), "an answer for a map that was not named");
    }
}
