//! `/dev/ublk-control`: making, finding and removing devices.
//!
//! Commands here wait for their end; each is a matter of milliseconds. The two that may take long, as they read or write
//! the device, are [`Queue`](crate::Queue)'s, which does not wait.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};
use zerocopy::{FromZeros, IntoBytes};

use crate::abi::{
    ADD_DEV, ControlCommand, DEL_DEV, DEL_DEV_ASYNC, DeviceInfo, F_CMD_IOCTL_ENCODE, F_USER_COPY, F_USER_RECOVERY,
    F_USER_RECOVERY_REISSUE, GET_DEV_INFO, GET_FEATURES, PARAMS_BASIC_DISCARD, Params, S_DEV_LIVE, S_DEV_QUIESCED,
    SET_PARAMS, START_USER_RECOVERY,
};
use crate::error::UblkError;

pub(crate) const CONTROL_FILE: &str = "/dev/ublk-control";
const DEVICES: &str = "/sys/class/ublk-char";

const NEEDED: [(u64, &str); 4] = [
    (F_CMD_IOCTL_ENCODE, "CMD_IOCTL_ENCODE"),
    (F_USER_COPY, "USER_COPY"),
    (F_USER_RECOVERY, "USER_RECOVERY"),
    (F_USER_RECOVERY_REISSUE, "USER_RECOVERY_REISSUE"),
];
const FLAGS: u64 = F_CMD_IOCTL_ENCODE | F_USER_COPY | F_USER_RECOVERY | F_USER_RECOVERY_REISSUE;

/// `-ENODEV` and its like, as numbers.
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
/// The kernel's own, which was never to leave it, so that the system's errors know nothing of it.
const ENOTSUPP: i32 = 524;

/// What a device is, for its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Bytes, whole blocks.
    pub size: u64,
    /// Logical block in bytes, a power of two from 512 to the host's page.
    pub block_bytes: u32,
    /// The longest read or write in bytes, whole pages.
    pub max_io_bytes: u32,
    /// The longest discard or zeroing in bytes, whole blocks.
    pub max_zero_bytes: u32,
    /// Requests at once, at most 4096.
    pub depth: u16,
    /// Whatever the server knows the device by again; the driver keeps it unread.
    pub tag: u64,
}

/// How a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has no disk: not started yet, or stopped.
    Dead,
    /// It is served by a process, or its process has just died.
    Live,
    /// Its process is gone: requests wait for another.
    Quiesced,
}

/// A device, as the driver describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// N of `/dev/ublkbN`.
    pub id: u32,
    /// How it stands.
    pub state: State,
    /// [`Parameters::depth`].
    pub depth: u16,
    /// [`Parameters::tag`].
    pub tag: u64,
    /// Whether it has one queue, user copy and user recovery, as those made by [`Control::add`].
    pub ours: bool,
    /// The process that serves it, or did.
    pub pid: i32,
}

/// The driver's control file.
#[derive(Debug)]
pub struct Control {
    file: File,
    ring: Ring,
}

type Ring = DebugRing;

/// `IoUring` says nothing of itself.
struct DebugRing(IoUring<squeue::Entry128, cqueue::Entry>);

impl std::fmt::Debug for DebugRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IoUring")
    }
}

impl Control {
    /// Opens it.
    ///
    /// # Errors
    /// Without a driver, or if it lacks what is needed.
    pub fn open() -> Result<Self, UblkError> {
        let file = OpenOptions::new().read(true).write(true).open(CONTROL_FILE).map_err(|source| {
            if source.kind() == io::ErrorKind::NotFound {
                UblkError::NoDriver { path: CONTROL_FILE }
            } else {
                UblkError::System { what: CONTROL_FILE, source }
            }
        })?;
        let ring = IoUring::builder().build(4).map_err(UblkError::system("io_uring"))?;
        let mut control = Self { file, ring: DebugRing(ring) };
        let missing = control.missing();
        if missing.is_empty() { Ok(control) } else { Err(UblkError::TooOld { missing }) }
    }

    /// The names of the needed features that the driver does not have.
    fn missing(&mut self) -> String {
        let mut features = 0_u64;
        // A driver that can't tell (before Linux 6.5) has none of them that matter.
        if self.command(GET_FEATURES, u32::MAX, 0, features.as_mut_bytes()).is_err() {
            features = 0;
        }
        let missing: Vec<_> = NEEDED.iter().filter(|(flag, _)| features & flag == 0).map(|(_, name)| *name).collect();
        missing.join(", ")
    }

    /// The device of a number, if there is one.
    ///
    /// # Errors
    /// The driver's.
    pub fn device(&mut self, id: u32) -> Result<Option<Device>, UblkError> {
        let mut info = DeviceInfo::new_zeroed();
        match self.command(GET_DEV_INFO, id, 0, info.as_mut_bytes()) {
            Ok(()) => Ok(Some(Device::from(&info))),
            Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(None),
            Err(source) => Err(UblkError::System { what: "UBLK_CMD_GET_DEV_INFO", source }),
        }
    }

    /// Makes a device of a number (`None`: a free one), without a disk yet.
    ///
    /// # Errors
    /// The driver's: `EEXIST` if the number is taken, `EINVAL` if the parameters are not as said.
    pub fn add(&mut self, id: Option<u32>, parameters: &Parameters) -> Result<Device, UblkError> {
        let mut info = DeviceInfo {
            queues: 1,
            depth: parameters.depth,
            max_io_bytes: parameters.max_io_bytes,
            device: id.unwrap_or(u32::MAX),
            flags: FLAGS,
            server_flags: parameters.tag,
            ..DeviceInfo::default()
        };
        let asked = info.device;
        self.command(ADD_DEV, asked, 0, info.as_mut_bytes()).map_err(UblkError::system("UBLK_CMD_ADD_DEV"))?;
        let device = Device::from(&info);
        let mut params = params(parameters);
        if let Err(source) = self.command(SET_PARAMS, device.id, 0, params.as_mut_bytes()) {
            // Of no use without; what it says then adds nothing.
            drop(self.delete(device.id));
            return Err(UblkError::System { what: "UBLK_CMD_SET_PARAMS", source });
        }
        Ok(device)
    }

    /// Removes a stopped device, as soon as nobody has it open.
    ///
    /// # Errors
    /// The driver's.
    pub fn delete(&mut self, id: u32) -> Result<(), UblkError> {
        match self.command(DEL_DEV_ASYNC, id, 0, &mut []) {
            // Linux before 6.9 knows only the one that waits.
            Err(error) if is_unknown(&error) => {
                self.command(DEL_DEV, id, 0, &mut []).map_err(UblkError::system("UBLK_CMD_DEL_DEV"))
            }
            done => done.map_err(UblkError::system("UBLK_CMD_DEL_DEV_ASYNC")),
        }
    }

    /// The devices that there are.
    ///
    /// # Errors
    /// The driver's.
    pub fn devices(&mut self) -> Result<Vec<Device>, UblkError> {
        let entries = match std::fs::read_dir(DEVICES) {
            Ok(entries) => entries,
            // Without any device the folder may be missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(UblkError::System { what: DEVICES, source }),
        };
        let mut devices = Vec::new();
        for entry in entries {
            let name = entry.map_err(UblkError::system(DEVICES))?.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix("ublkc")).and_then(|id| id.parse().ok());
            if let Some(id) = id {
                devices.extend(self.device(id)?);
            }
        }
        Ok(devices)
    }

    /// Lets this process take over a quiesced device: its queue may be opened next. `false`: the driver has not let the
    /// dead process go yet; to be tried again soon.
    ///
    /// # Errors
    /// The driver's.
    pub fn begin_recovery(&mut self, id: u32) -> Result<bool, UblkError> {
        match self.command(START_USER_RECOVERY, id, 0, &mut []) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
            // An earlier process has got as far as here, and no further: the device waits for a queue.
            Err(error) if error.raw_os_error() == Some(EINVAL) => Ok(true),
            Err(source) => Err(UblkError::System { what: "UBLK_CMD_START_USER_RECOVERY", source }),
        }
    }

    /// Gives the driver a command and waits for its end; it may read and write `buffer` until then.
    fn command(&mut self, operation: u32, device: u32, data: u64, buffer: &mut [u8]) -> io::Result<()> {
        let address = if buffer.is_empty() { 0 } else { buffer.as_mut_ptr().expose_provenance() as u64 };
        let len = u16::try_from(buffer.len()).expect("control structures are short");
        let command = ControlCommand { device, queue: u16::MAX, len, address, data, ..ControlCommand::default() };
        let entry = control_entry(&self.file, operation, &command);
        let ring = &mut self.ring.0;
        // SAFETY: the command names `buffer`, which is borrowed for writing until the completion has been seen, below;
        // `self.file` is open for as long.
        unsafe { ring.submission().push(&entry) }.expect("the only command in a ring of four");
        loop {
            match ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel may write into the buffer at any time from now on: nothing is safe any more.
                Err(error) => panic!("io_uring can't be waited for: {error}"),
            }
            if let Some(completion) = ring.completion().next() {
                return match completion.result() {
                    0.. => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
        }
    }
}

/// Whether a driver says by this that it does not know the command: `ENOTSUPP` before Linux 6.9, since then `EOPNOTSUPP`,
/// and `EINVAL` where commands are looked at before.
fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EOPNOTSUPP | ENOTSUPP | EINVAL))
}

/// A control command as an entry of any ring.
pub(crate) fn control_entry(file: &File, operation: u32, command: &ControlCommand) -> squeue::Entry128 {
    let mut bytes = [0; 80];
    bytes[..size_of::<ControlCommand>()].copy_from_slice(command.as_bytes());
    opcode::UringCmd80::new(Fd(file.as_raw_fd()), operation).cmd(bytes).build()
}

impl From<&DeviceInfo> for Device {
    fn from(info: &DeviceInfo) -> Self {
        let state = match info.state {
            S_DEV_LIVE => State::Live,
            S_DEV_QUIESCED => State::Quiesced,
            _ => State::Dead,
        };
        Self {
            id: info.device,
            state,
            depth: info.depth,
            tag: info.server_flags,
            ours: info.queues == 1 && info.flags & FLAGS == FLAGS,
            pid: info.pid,
        }
    }
}

/// What the block layer is told.
///
/// No `UBLK_ATTR_VOLATILE_CACHE`: a write is completed when it is durable, so there is no cache whose loss could be
/// felt, and the block layer need not send a FLUSH, nor mind FUA.
fn params(parameters: &Parameters) -> Params {
    const SECTOR: u32 = 512;
    let Parameters { size, block_bytes, max_io_bytes, max_zero_bytes, .. } = *parameters;
    let shift = |bytes: u32| u8::try_from(bytes.ilog2()).expect("at most 31");
    let physical = block_bytes.max(4096);
    Params {
        len: u32::try_from(size_of::<Params>()).expect("small"),
        types: PARAMS_BASIC_DISCARD,
        logical_shift: shift(block_bytes),
        physical_shift: shift(physical),
        io_opt_shift: shift(max_io_bytes),
        io_min_shift: shift(physical),
        max_sectors: max_io_bytes / SECTOR,
        sectors: size / u64::from(SECTOR),
        discard_granularity: block_bytes,
        max_discard_sectors: max_zero_bytes / SECTOR,
        max_write_zeroes_sectors: max_zero_bytes / SECTOR,
        max_discard_segments: 1,
        ..Params::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_byte_by_byte() {
        let parameters = Parameters {
            size: 1 << 30,
            block_bytes: 512,
            max_io_bytes: 1 << 20,
            max_zero_bytes: 256 << 20,
            depth: 128,
            tag: 7,
        };
        let bytes = params(&parameters);
        let words: Vec<u32> =
            bytes.as_bytes().chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
        let shifts = u32::from_ne_bytes([9, 12, 20, 12]);
        assert_eq!(words, [64, 3, 0, shifts, 2048, 0, 2 << 20, 0, 0, 0, 0, 512, 512 << 10, 512 << 10, 1, 0]);
    }

    #[test]
    fn a_driver_that_does_not_know_a_command_says_so_in_three_ways() {
        for (errno, unknown) in [(95, true), (524, true), (22, true), (19, false), (16, false), (1, false)] {
            assert_eq!(is_unknown(&io::Error::from_raw_os_error(errno)), unknown, "{errno}");
        }
    }

    #[test]
    fn a_host_without_the_driver_says_what_to_do() {
        if std::path::Path::new(CONTROL_FILE).exists() {
            return;
        }
        let error = Control::open().unwrap_err();
        assert!(error.to_string().contains("modprobe ublk_drv"), "{error}");
    }
}
