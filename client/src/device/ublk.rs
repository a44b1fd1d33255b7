//! Which of the kernel's ublk devices is a volume's: a new one, or the one that an earlier process has left.
//!
//! The driver keeps 64 bits for whoever serves a device ([`Parameters::tag`]): here they are made of the volume's UUID.
//! So a device is found again without a file that could lie, and is never served with another volume's blocks.

use std::fs;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use twinsan_ublk::{Control, Device, Parameters, Queue, State, UblkError};
use twinsan_wire::limits::MAX_ZERO_BLOCKS;

use super::Claim;
use crate::front::{DEPTH, Shape, max_io_bytes};

/// The longest discard or zeroing in bytes, whatever the block: far from where a signed number of 32 bits ends, in which
/// the driver counts bytes.
const MAX_ZERO_BYTES: u64 = 1 << 30;

/// What is to be done for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// Make it; `None`: with a free number.
    New(Option<u32>),
    /// Go on with the one that an earlier process has left.
    Recover { id: u32, depth: u16 },
}

/// A volume's device, for this process alone.
#[derive(Debug)]
pub(crate) struct UblkDevice {
    control: Control,
    plan: Plan,
    parameters: Parameters,
    _claim: Claim,
}

impl UblkDevice {
    /// Looks for the device of a volume. `wanted`: its number, if that matters.
    ///
    /// # Errors
    /// If another process serves the volume here, or the number is another's.
    pub(crate) fn find(
        mut control: Control,
        wanted: Option<u32>,
        uuid: [u8; 16],
        shape: &Shape,
    ) -> anyhow::Result<Self> {
        let claim = Claim::take(&format!("ublk/{:032x}", u128::from_be_bytes(uuid)))?;
        let parameters = parameters(uuid, shape);
        let plan = plan(&control.devices()?, wanted, parameters.tag)?;
        match plan {
            Plan::Recover { id, .. } => check_size(id, &parameters)?,
            // Its process died before the disk was there: nobody has seen it.
            Plan::New(Some(id)) if control.device(id)?.is_some() => control.delete(id)?,
            Plan::New(_) => {}
        }
        Ok(Self { control, plan, parameters, _claim: claim })
    }

    /// Whether an earlier process has left it.
    pub(crate) const fn is_awaited(&self) -> bool {
        matches!(self.plan, Plan::Recover { .. })
    }

    /// Makes the device, or takes it over. Requests come by the queue from here on, the disk is on its way. `None`: the
    /// kernel has not let the dead process go yet; to be tried again soon.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn open(&mut self) -> Result<Option<Queue>, UblkError> {
        let (id, depth, recovery) = match self.plan {
            Plan::New(id) => {
                let device = self.control.add(id, &self.parameters)?;
                (device.id, device.depth, false)
            }
            Plan::Recover { id, depth } => {
                if !self.control.begin_recovery(id)? {
                    return Ok(None);
                }
                (id, depth, true)
            }
        };
        let started = Queue::open(id, depth).and_then(|mut queue| {
            queue.start(recovery).map_err(|source| UblkError::System { what: "starting the disk", source })?;
            Ok(queue)
        });
        if started.is_err() && !recovery {
            // Of no use; why it can't be removed either adds nothing.
            drop(self.control.delete(id));
        }
        started.map(Some)
    }

    /// Removes the device, whose disk is gone and whose queue is closed.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn delete(&mut self, id: u32) -> Result<(), UblkError> {
        self.control.delete(id)
    }
}

/// The disk's file.
pub(crate) fn path(id: u32) -> PathBuf {
    PathBuf::from(format!("/dev/ublkb{id}"))
}

/// What the kernel is told of the volume.
fn parameters(uuid: [u8; 16], shape: &Shape) -> Parameters {
    let [high, low] = [0, 8].map(|at| u64::from_be_bytes(uuid[at..at + 8].try_into().expect("8 bytes")));
    let zero_bytes = (u64::from(MAX_ZERO_BLOCKS) * u64::from(shape.block_bytes)).min(MAX_ZERO_BYTES);
    Parameters {
        size: shape.bytes(),
        block_bytes: shape.block_bytes,
        max_io_bytes: max_io_bytes(shape),
        max_zero_bytes: u32::try_from(zero_bytes).expect("at most 1 GiB"),
        depth: DEPTH,
        // Never zero, which is what others leave there.
        tag: (high ^ low) | 1,
    }
}

fn plan(devices: &[Device], wanted: Option<u32>, tag: u64) -> anyhow::Result<Plan> {
    let left = devices.iter().find(|device| device.ours && device.tag == tag && device.state != State::Dead);
    if let Some(Device { id, depth, .. }) = left {
        ensure!(
            wanted.is_none_or(|wanted| wanted == *id),
            "an earlier process has left this volume at {}, with requests that wait: go on there, with --ublk-id {id}",
            path(*id).display()
        );
        return Ok(Plan::Recover { id: *id, depth: *depth });
    }
    let taken = wanted.and_then(|wanted| devices.iter().find(|device| device.id == wanted));
    match taken {
        Some(device) if !(device.ours && device.tag == tag) => {
            bail!("{} is another's, served by process {}: take another number", path(device.id).display(), device.pid)
        }
        _ => Ok(Plan::New(wanted)),
    }
}

/// The kernel does not let a device that it has grow or shrink.
fn check_size(id: u32, parameters: &Parameters) -> anyhow::Result<()> {
    let attribute = |file: &str| {
        let text = fs::read_to_string(format!("/sys/block/ublkb{id}/{file}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let is = |file, expected| attribute(file).is_none_or(|found| found == expected);
    ensure!(
        is("size", parameters.size / 512) && is("queue/logical_block_size", u64::from(parameters.block_bytes)),
        "{} was made when the volume had not {} bytes in blocks of {}, as it has now: remove it (ublk del -n {id})",
        path(id).display(),
        parameters.size,
        parameters.block_bytes
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { block_bytes: 4096, blocks: 1 << 18, max_payload: 1 << 20 };

    fn device(id: u32, tag: u64, state: State) -> Device {
        Device { id, state, depth: 64, tag, ours: true, pid: 7 }
    }

    #[test]
    fn what_an_earlier_process_left_is_taken_up_and_nothing_else() {
        let others = [device(0, 11, State::Live), device(1, 13, State::Quiesced)];
        assert_eq!(plan(&others, None, 5).unwrap(), Plan::New(None));
        assert_eq!(plan(&others, Some(4), 5).unwrap(), Plan::New(Some(4)));
        for id in [0, 1] {
            let error = plan(&others, Some(id), 5).unwrap_err().to_string();
            assert!(error.contains(&format!("/dev/ublkb{id} is another's")), "{error}");
        }
        // One whose process has died a moment ago may still look live.
        for state in [State::Live, State::Quiesced] {
            let left = [others[0], device(3, 5, state)];
            assert_eq!(plan(&left, None, 5).unwrap(), Plan::Recover { id: 3, depth: 64 });
            assert_eq!(plan(&left, Some(3), 5).unwrap(), Plan::Recover { id: 3, depth: 64 });
            let error = plan(&left, Some(4), 5).unwrap_err().to_string();
            assert!(error.contains("--ublk-id 3"), "{error}");
        }
        // Left before it had a disk: made anew.
        assert_eq!(plan(&[device(3, 5, State::Dead)], Some(3), 5).unwrap(), Plan::New(Some(3)));
        // Whoever else made it, whatever its tag says.
        let foreign = Device { ours: false, ..device(3, 5, State::Quiesced) };
        assert!(plan(&[foreign], Some(3), 5).is_err());
        assert_eq!(plan(&[foreign], None, 5).unwrap(), Plan::New(None));
    }

    #[test]
    fn volumes_have_tags_of_their_own_and_the_limits_of_blobs() {
        let one = parameters([1; 16], &SHAPE);
        assert_ne!(one.tag, 0);
        let mut uuid = [1; 16];
        uuid[0] = 9;
        assert_ne!(one.tag, parameters(uuid, &SHAPE).tag);
        assert_eq!((one.max_io_bytes, one.max_zero_bytes), (1 << 20, 1 << 30));
        let small = parameters([1; 16], &Shape { block_bytes: 512, max_payload: 10_000, ..SHAPE });
        assert_eq!((small.max_io_bytes, small.max_zero_bytes), (8192, 512 << 20));
    }
}
