//! SCSI commands to one path: the kernel's SG_IO and SG_SCSI_RESET (`scsi/sg.h`), on the disk's own device node.
//!
//! Not IOC_PR_* (`linux/pr.h`): through dm it acts on all paths as one, and REGISTER with one dead path among them has
//! unregistered the living ones; its codes for types differ from SPC's; and it hides sense data.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::registrar::PathError;
use super::spc::{Command, DataPhase, Encoded, Status};
use crate::multipath::PathInfo;

const SG_IO: libc::Ioctl = 0x2285;
const SG_SCSI_RESET: libc::Ioctl = 0x2284;
/// LOGICAL UNIT RESET, and nothing wider if it fails.
const RESET_DEVICE_ONLY: libc::c_int = 0x1 | 0x100;

const DIRECTION_NONE: libc::c_int = -1;
const DIRECTION_OUT: libc::c_int = -2;
const DIRECTION_IN: libc::c_int = -3;

const SENSE_BYTES: u8 = 96;

/// `struct sg_io_hdr`.
#[repr(C)]
struct Header {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: u32,
    dxferp: *mut c_void,
    cmdp: *mut u8,
    sbp: *mut u8,
    timeout: u32,
    flags: u32,
    pack_id: libc::c_int,
    usr_ptr: *mut c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: libc::c_int,
    duration: u32,
    info: u32,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Header>() == 88 && std::mem::offset_of!(Header, status) == 64);

/// One path's device node.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    name: String,
}

impl Device {
    /// Opens it, without a claim and read-only: that is all that SG_IO asks of who may send any command (CAP_SYS_RAWIO),
    /// and udev sees no writer come and go.
    pub(super) fn open(path: &PathInfo) -> io::Result<Self> {
        let name = path.id.name.clone();
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(Path::new("/dev").join(&name))?;
        let found = rustix::fs::fstat(&file)?.st_rdev;
        if (rustix::fs::major(found), rustix::fs::minor(found)) != path.device {
            return Err(io::Error::other("the device node is another device's"));
        }
        Ok(Self { file, name })
    }

    /// Sends a command and waits for its end; the kernel gives up after `timeout`, and some time for its recovery.
    pub(super) fn run(&self, command: Command, timeout: Duration) -> Result<Status, PathError> {
        match command.encode() {
            Some(encoded) => self.send(encoded, timeout),
            None => self.reset(),
        }
    }

    fn send(&self, encoded: Encoded, timeout: Duration) -> Result<Status, PathError> {
        let mut cdb = encoded.cdb;
        let (direction, mut data) = match encoded.data {
            DataPhase::None => (DIRECTION_NONE, Vec::new()),
            DataPhase::In(bytes) => (DIRECTION_IN, vec![0; usize::from(bytes)]),
            DataPhase::Out(list) => (DIRECTION_OUT, list.to_vec()),
        };
        let mut sense = [0; SENSE_BYTES as usize];
        let mut header = Header {
            interface_id: libc::c_int::from(b'S'),
            dxfer_direction: direction,
            cmd_len: u8::try_from(cdb.len()).expect("at most 16 bytes"),
            mx_sb_len: SENSE_BYTES,
            iovec_count: 0,
            dxfer_len: u32::try_from(data.len()).expect("an allocation length has 16 bits"),
            dxferp: data.as_mut_ptr().cast(),
            cmdp: cdb.as_mut_ptr(),
            sbp: sense.as_mut_ptr(),
            timeout: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            flags: 0,
            pack_id: 0,
            usr_ptr: std::ptr::null_mut(),
            status: 0,
            masked_status: 0,
            msg_status: 0,
            sb_len_wr: 0,
            host_status: 0,
            driver_status: 0,
            resid: 0,
            duration: 0,
            info: 0,
        };
        // SAFETY: SG_IO reads and writes one `struct sg_io_hdr`, whose layout is asserted above, and through it the
        // three buffers with the lengths given beside them: `cdb`, `data` and `sense` are alive, are not touched from
        // elsewhere, and the kernel keeps none of the pointers when the call has returned. The descriptor is open.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), SG_IO, &raw mut header) };
        if result != 0 {
            return Err(self.error(io::Error::last_os_error().to_string()));
        }
        if header.host_status != 0 {
            return Err(self.error(format!("host status {:#x} ({})", header.host_status, host(header.host_status))));
        }
        let unread = usize::try_from(header.resid).unwrap_or(0).min(data.len());
        data.truncate(data.len() - unread);
        if direction != DIRECTION_IN {
            data.clear();
        }
        Ok(Status::decode(header.status, &sense[..usize::from(header.sb_len_wr.min(SENSE_BYTES))], data))
    }

    fn reset(&self) -> Result<Status, PathError> {
        let mut what = RESET_DEVICE_ONLY;
        // SAFETY: SG_SCSI_RESET reads one int through the pointer during the call; `what` is a live one. The descriptor
        // is open.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), SG_SCSI_RESET, &raw mut what) };
        if result != 0 {
            return Err(self.error(format!("LOGICAL UNIT RESET: {}", io::Error::last_os_error())));
        }
        Ok(Status::Good(Vec::new()))
    }

    fn error(&self, what: String) -> PathError {
        PathError { path: self.name.clone(), what }
    }
}

/// `include/scsi/scsi_status.h`.
const fn host(status: u16) -> &'static str {
    match status {
        0x01 => "no connect",
        0x02 => "bus busy",
        0x03 => "timeout",
        0x04 => "bad target",
        0x05 => "abort",
        0x07 => "error",
        0x08 => "reset",
        0x0b | 0x0c => "try again",
        0x0e => "transport disrupted",
        0x0f => "transport failed fast",
        _ => "see scsi_status.h",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multipath::PathId;

    #[test]
    fn what_is_no_scsi_disk_says_so() {
        let id = PathId { name: "null".to_owned(), serial: 0 };
        let mut info = PathInfo { id, hctl: "0:0:0:0".to_owned(), state: "running".to_owned(), device: (1, 3) };
        let device = Device::open(&info).expect("everybody has one");
        let error = device.run(Command::ReadKeys, Duration::from_secs(1)).expect_err("no SCSI disk");
        assert_eq!(error.path, "null");
        assert!(error.what.contains("Inappropriate ioctl"), "{error}");
        assert!(device.run(Command::Reset, Duration::from_secs(1)).is_err());
        info.device = (1, 5);
        assert!(Device::open(&info).is_err(), "another device under this name");
    }
}
