//! `linux/ublk_cmd.h`: structures and numbers, in the host's byte order.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct ublksrv_ctrl_cmd`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct ControlCommand {
    pub(crate) device: u32,
    /// All ones where no queue is meant.
    pub(crate) queue: u16,
    pub(crate) len: u16,
    pub(crate) address: u64,
    pub(crate) data: u64,
    pub(crate) path_len: u16,
    pub(crate) pad: u16,
    pub(crate) reserved: u32,
}

/// `struct ublksrv_ctrl_dev_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct DeviceInfo {
    pub(crate) queues: u16,
    pub(crate) depth: u16,
    pub(crate) state: u16,
    pub(crate) pad0: u16,
    pub(crate) max_io_bytes: u32,
    pub(crate) device: u32,
    pub(crate) pid: i32,
    pub(crate) pad1: u32,
    pub(crate) flags: u64,
    /// Kept by the driver for whoever serves the device, unread.
    pub(crate) server_flags: u64,
    pub(crate) owner_uid: u32,
    pub(crate) owner_gid: u32,
    pub(crate) reserved: [u64; 2],
}

/// `struct ublk_params`, as far as its discard part; the next field makes it whole words.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Params {
    pub(crate) len: u32,
    pub(crate) types: u32,
    pub(crate) attributes: u32,
    pub(crate) logical_shift: u8,
    pub(crate) physical_shift: u8,
    pub(crate) io_opt_shift: u8,
    pub(crate) io_min_shift: u8,
    pub(crate) max_sectors: u32,
    pub(crate) chunk_sectors: u32,
    pub(crate) sectors: u64,
    pub(crate) virt_boundary_mask: u64,
    pub(crate) discard_alignment: u32,
    pub(crate) discard_granularity: u32,
    pub(crate) max_discard_sectors: u32,
    pub(crate) max_write_zeroes_sectors: u32,
    pub(crate) max_discard_segments: u16,
    pub(crate) reserved: u16,
    /// `devt.char_major`, which the driver fills in.
    pub(crate) char_major: u32,
}

/// `UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD`.
pub(crate) const PARAMS_BASIC_DISCARD: u32 = 1 | 2;

/// `struct ublksrv_io_desc`, as the driver writes it.
pub(crate) const DESCRIPTOR_BYTES: usize = 24;

/// `struct ublksrv_io_cmd`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct IoCommand {
    pub(crate) queue: u16,
    pub(crate) tag: u16,
    pub(crate) result: i32,
    /// Zero: payloads are copied by `pread` and `pwrite`.
    pub(crate) address: u64,
}

const _: () = assert!(size_of::<ControlCommand>() == CONTROL as usize && size_of::<DeviceInfo>() == 64);
const _: () = assert!(size_of::<Params>() == 64 && size_of::<IoCommand>() == IO as usize);

/// `_IOR` and `_IOWR` of `asm-generic/ioctl.h`, with ublk's letter.
const fn ior(number: u32, bytes: u32) -> u32 {
    2 << 30 | bytes << 16 | (b'u' as u32) << 8 | number
}

const fn iowr(number: u32, bytes: u32) -> u32 {
    ior(number, bytes) | 1 << 30
}

const CONTROL: u32 = 32;
const IO: u32 = 16;

pub(crate) const GET_DEV_INFO: u32 = ior(0x02, CONTROL);
pub(crate) const ADD_DEV: u32 = iowr(0x04, CONTROL);
pub(crate) const DEL_DEV: u32 = iowr(0x05, CONTROL);
pub(crate) const START_DEV: u32 = iowr(0x06, CONTROL);
pub(crate) const STOP_DEV: u32 = iowr(0x07, CONTROL);
pub(crate) const SET_PARAMS: u32 = iowr(0x08, CONTROL);
pub(crate) const START_USER_RECOVERY: u32 = iowr(0x10, CONTROL);
pub(crate) const END_USER_RECOVERY: u32 = iowr(0x11, CONTROL);
pub(crate) const GET_FEATURES: u32 = ior(0x13, CONTROL);
pub(crate) const DEL_DEV_ASYNC: u32 = ior(0x14, CONTROL);
pub(crate) const FETCH_REQ: u32 = iowr(0x20, IO);
pub(crate) const COMMIT_AND_FETCH_REQ: u32 = iowr(0x21, IO);

pub(crate) const F_USER_RECOVERY: u64 = 1 << 3;
pub(crate) const F_USER_RECOVERY_REISSUE: u64 = 1 << 4;
pub(crate) const F_CMD_IOCTL_ENCODE: u64 = 1 << 6;
pub(crate) const F_USER_COPY: u64 = 1 << 7;

pub(crate) const S_DEV_LIVE: u16 = 1;
pub(crate) const S_DEV_QUIESCED: u16 = 2;

/// `UBLK_MAX_QUEUE_DEPTH`: a queue's descriptors lie so many apart from the next queue's.
pub(crate) const MAX_DEPTH: u16 = 4096;
/// `UBLKSRV_IO_BUF_OFFSET`: requests' pages begin there in `/dev/ublkcN`.
const IO_BUF_OFFSET: u64 = 0x8000_0000;
/// `UBLK_TAG_OFF`.
const TAG_SHIFT: u32 = 25;

/// Where the pages of request `tag` of queue 0 begin in `/dev/ublkcN`.
pub(crate) const fn payload_position(tag: u16) -> u64 {
    IO_BUF_OFFSET + ((tag as u64) << TAG_SHIFT)
}

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Its pages are to be filled.
    Read,
    /// Its pages are to be written.
    Write,
    /// What was completed is to be durable.
    Flush,
    /// The blocks are not needed.
    Discard,
    /// The blocks are to read as zeros.
    WriteZeroes {
        /// They are to stay allocated (`REQ_NOUNMAP`).
        no_hole: bool,
    },
    /// Something that the device was not said to know.
    Unknown(u8),
}

/// A request, copied out of the driver's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it wants.
    pub command: Command,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

impl Request {
    /// From the words of a descriptor; `None` if its length is absurd.
    pub(crate) fn decode(op_flags: u32, sectors: u32, start_sector: u64) -> Option<Self> {
        let command = match op_flags.to_le_bytes()[0] {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Flush,
            3 => Command::Discard,
            // UBLK_IO_F_NOUNMAP.
            5 => Command::WriteZeroes { no_hole: op_flags >> 15 & 1 == 1 },
            other => Command::Unknown(other),
        };
        Some(Self { command, offset: start_sector.checked_mul(512)?, len: sectors.checked_mul(512)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_headers() {
        // What a C program prints that includes linux/ublk_cmd.h.
        assert_eq!(GET_DEV_INFO, 0x8020_7502);
        assert_eq!(ADD_DEV, 0xc020_7504);
        assert_eq!(DEL_DEV, 0xc020_7505);
        assert_eq!(START_DEV, 0xc020_7506);
        assert_eq!(STOP_DEV, 0xc020_7507);
        assert_eq!(SET_PARAMS, 0xc020_7508);
        assert_eq!(START_USER_RECOVERY, 0xc020_7510);
        assert_eq!(END_USER_RECOVERY, 0xc020_7511);
        assert_eq!(GET_FEATURES, 0x8020_7513);
        assert_eq!(DEL_DEV_ASYNC, 0x8020_7514);
        assert_eq!(FETCH_REQ, 0xc010_7520);
        assert_eq!(COMMIT_AND_FETCH_REQ, 0xc010_7521);
        assert_eq!(payload_position(3), 0x8000_0000 + 3 * (32 << 20));
    }

    #[test]
    fn requests_are_decoded_and_absurd_ones_are_none() {
        let request = Request::decode(1 | 1 << 13, 8, 16).unwrap();
        assert_eq!(request, Request { command: Command::Write, offset: 8192, len: 4096 });
        assert_eq!(Request::decode(5, 8, 0).unwrap().command, Command::WriteZeroes { no_hole: false });
        assert_eq!(Request::decode(5 | 1 << 15, 8, 0).unwrap().command, Command::WriteZeroes { no_hole: true });
        assert_eq!(Request::decode(15, 0, 0).unwrap().command, Command::Unknown(15));
        assert_eq!(Request::decode(0, u32::MAX, 0), None);
        assert_eq!(Request::decode(0, 1, u64::MAX), None);
    }
}
