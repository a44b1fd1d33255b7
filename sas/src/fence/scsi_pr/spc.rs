//! The bytes of SPC-4's persistent reservations: commands out, parameter data and sense in. Pure.
//!
//! Section numbers are those of SPC-4 (INCITS 513): 5.12 the model, 6.15 PERSISTENT RESERVE IN, 6.16 PERSISTENT RESERVE
//! OUT, 4.5 sense data, SAM-5 5.3.1 status codes. All numbers are big-endian.

use core::fmt;
use core::num::NonZeroU64;

/// PERSISTENT RESERVE OUT's parameter list without transport ids (6.16.3).
const PARAMETER_LIST_BYTES: u8 = 24;
/// What fits into the 16-bit allocation length of PERSISTENT RESERVE IN.
pub(super) const MAX_ALLOCATION: u16 = 32 * 1024;
/// Where the numbers of READ KEYS and READ RESERVATION end and their lists begin.
const HEADER_BYTES: usize = 8;

const TEST_UNIT_READY: u8 = 0x00;
const PERSISTENT_RESERVE_IN: u8 = 0x5e;
const PERSISTENT_RESERVE_OUT: u8 = 0x5f;

/// A reservation key: what an initiator port registers with (5.12.1). Zero is no key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationKey(NonZeroU64);

impl ReservationKey {
    /// `None` for zero, which SPC uses for "not registered".
    #[must_use]
    pub const fn new(bits: u64) -> Option<Self> {
        match NonZeroU64::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for ReservationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.get())
    }
}

impl fmt::Debug for ReservationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who may do what under a reservation (6.15.3.4). We make and accept [`ReservationType::REGISTRANTS_ONLY`] alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReservationType(pub u8);

impl ReservationType {
    /// Write Exclusive, Registrants Only: only registered initiator ports write, everybody reads. 5 here as in
    /// `sg_persist`; `linux/pr.h` counts otherwise.
    pub const REGISTRANTS_ONLY: Self = Self(5);
}

impl fmt::Display for ReservationType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "Write Exclusive",
            3 => "Exclusive Access",
            5 => "Write Exclusive, Registrants Only",
            6 => "Exclusive Access, Registrants Only",
            7 => "Write Exclusive, All Registrants",
            8 => "Exclusive Access, All Registrants",
            _ => "unknown",
        };
        write!(f, "type {} ({name})", self.0)
    }
}

/// A command to one logical unit by one path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Does it answer (6.46)?
    TestUnitReady,
    /// All keys, one for every registered path (6.15.2).
    ReadKeys,
    /// Who holds the reservation (6.15.3).
    ReadReservation,
    /// What the logical unit can do (6.15.4).
    ReportCapabilities,
    /// From `old` (`None`: this path is not registered) to `new` (`None`: unregister) on this path.
    Register {
        /// What stands there; else the command is refused.
        old: Option<ReservationKey>,
        /// What will.
        new: Option<ReservationKey>,
    },
    /// REGISTER AND IGNORE EXISTING KEY: to `new`, whatever stands on this path.
    RegisterAnyway {
        /// What will.
        new: ReservationKey,
    },
    /// Takes the reservation, if nobody has it.
    Reserve {
        /// The own key.
        key: ReservationKey,
    },
    /// PREEMPT AND ABORT: removes every path with the victim's key, and takes the reservation if the victim holds it.
    PreemptAndAbort {
        /// The own key.
        key: ReservationKey,
        /// Whose is removed.
        victim: ReservationKey,
    },
    /// PREEMPT of the own key, where that key holds the reservation: in one step this path has it, and every other path
    /// with the key is unregistered (5.12.11.3: all I_T nexuses of the key "except the one that is being used").
    PreemptOwn {
        /// The own key.
        key: ReservationKey,
    },
    /// LOGICAL UNIT RESET, a task management function: aborts every command of everybody.
    Reset,
}

/// A command as it goes over the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Encoded {
    pub(super) cdb: Vec<u8>,
    pub(super) data: DataPhase,
}

/// Which way data goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum DataPhase {
    None,
    In(u16),
    Out([u8; PARAMETER_LIST_BYTES as usize]),
}

impl Command {
    /// `None` for [`Command::Reset`], which is no command but a task management function.
    pub(super) fn encode(self) -> Option<Encoded> {
        let fetch = |action| Encoded { cdb: reserve_in(action), data: DataPhase::In(MAX_ALLOCATION) };
        Some(match self {
            Self::TestUnitReady => Encoded { cdb: vec![TEST_UNIT_READY, 0, 0, 0, 0, 0], data: DataPhase::None },
            Self::ReadKeys => fetch(0),
            Self::ReadReservation => fetch(1),
            Self::ReportCapabilities => fetch(2),
            Self::Register { old, new } => reserve_out(0, old, new, true),
            Self::Reserve { key } => reserve_out(1, Some(key), None, false),
            Self::PreemptAndAbort { key, victim } => reserve_out(5, Some(key), Some(victim), false),
            Self::PreemptOwn { key } => reserve_out(4, Some(key), Some(key), false),
            Self::RegisterAnyway { new } => reserve_out(6, None, Some(new), true),
            Self::Reset => return None,
        })
    }

    /// It changes registrations or the reservation.
    #[must_use]
    pub const fn is_change(self) -> bool {
        matches!(
            self,
            Self::Register { .. }
                | Self::RegisterAnyway { .. }
                | Self::Reserve { .. }
                | Self::PreemptAndAbort { .. }
                | Self::PreemptOwn { .. }
        )
    }

    /// It puts a key where none was. Done late, after a fence, it would undo that fence: its end is always awaited.
    #[must_use]
    pub const fn is_registration(self) -> bool {
        matches!(self, Self::Register { .. } | Self::RegisterAnyway { .. })
    }

    /// SPC's words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TestUnitReady => "TEST UNIT READY",
            Self::ReadKeys => "READ KEYS",
            Self::ReadReservation => "READ RESERVATION",
            Self::ReportCapabilities => "REPORT CAPABILITIES",
            Self::Register { .. } => "REGISTER",
            Self::RegisterAnyway { .. } => "REGISTER AND IGNORE EXISTING KEY",
            Self::Reserve { .. } => "RESERVE",
            Self::PreemptAndAbort { .. } => "PREEMPT AND ABORT",
            Self::PreemptOwn { .. } => "PREEMPT",
            Self::Reset => "LOGICAL UNIT RESET",
        }
    }
}

fn reserve_in(action: u8) -> Vec<u8> {
    let [high, low] = MAX_ALLOCATION.to_be_bytes();
    vec![PERSISTENT_RESERVE_IN, action, 0, 0, 0, 0, 0, high, low, 0]
}

/// `aptpl`: Activate Persist Through Power Loss, which REGISTER alone looks at: the LUN remembers us over a restart.
fn reserve_out(action: u8, key: Option<ReservationKey>, service: Option<ReservationKey>, aptpl: bool) -> Encoded {
    // Scope 0 (the logical unit); REGISTER ignores both.
    let scope_and_type = if aptpl { 0 } else { ReservationType::REGISTRANTS_ONLY.0 };
    let mut data = [0; PARAMETER_LIST_BYTES as usize];
    data[0..8].copy_from_slice(&key.map_or(0, ReservationKey::get).to_be_bytes());
    data[8..16].copy_from_slice(&service.map_or(0, ReservationKey::get).to_be_bytes());
    data[20] = u8::from(aptpl);
    let cdb = vec![PERSISTENT_RESERVE_OUT, action, scope_and_type, 0, 0, 0, 0, 0, PARAMETER_LIST_BYTES, 0];
    Encoded { cdb, data: DataPhase::Out(data) }
}

/// READ KEYS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    /// PRGENERATION: goes up by one with every REGISTER, PREEMPT and CLEAR that succeeds, and with nothing else.
    pub generation: u32,
    /// One for every registered path: a host with two has its key here twice.
    pub keys: Vec<ReservationKey>,
}

/// READ RESERVATION.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reservation {
    /// The holder's key; `None` for the types without a single holder.
    pub key: Option<ReservationKey>,
    /// Its type.
    pub kind: ReservationType,
}

/// REPORT CAPABILITIES, as far as we need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// PTPL_C: reservations outlive a power cycle of the LUN, if asked.
    pub persists: bool,
    /// It can do Write Exclusive, Registrants Only; true also where it does not say what it can.
    pub registrants_only: bool,
}

/// The LUN's answer is too short, or not of this form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an answer of {bytes} bytes that is not one to {what}")]
pub struct Malformed {
    /// To which command.
    pub what: &'static str,
    /// Its length.
    pub bytes: usize,
}

impl Keys {
    /// Parses READ KEYS' data (6.15.2).
    ///
    /// # Errors
    /// It is cut off, or its list is no multiple of a key.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let malformed = Malformed { what: "READ KEYS", bytes: data.len() };
        let (generation, list) = header(data).ok_or(malformed)?;
        if !list.len().is_multiple_of(8) {
            return Err(malformed);
        }
        let keys = list.chunks_exact(8).filter_map(|key| ReservationKey::new(u64_at(key, 0)?)).collect();
        Ok(Self { generation, keys })
    }

    /// Whether a path is registered with `key`.
    #[must_use]
    pub fn contains(&self, key: ReservationKey) -> bool {
        self.keys.contains(&key)
    }
}

impl Reservation {
    /// Parses READ RESERVATION's data (6.15.3); `None`: nobody has reserved.
    ///
    /// # Errors
    /// It is cut off.
    pub fn parse(data: &[u8]) -> Result<Option<Self>, Malformed> {
        let malformed = Malformed { what: "READ RESERVATION", bytes: data.len() };
        let (_, descriptor) = header(data).ok_or(malformed)?;
        if descriptor.is_empty() {
            return Ok(None);
        }
        let (key, scope_and_type) = (u64_at(descriptor, 0), descriptor.get(13));
        let (Some(key), Some(scope_and_type)) = (key, scope_and_type) else { return Err(malformed) };
        Ok(Some(Self { key: ReservationKey::new(key), kind: ReservationType(scope_and_type & 0xf) }))
    }
}

impl Capabilities {
    /// Parses REPORT CAPABILITIES' data (6.15.4).
    ///
    /// # Errors
    /// It is cut off.
    pub fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let &[_, 8, flags, more, mask, ..] = data else {
            return Err(Malformed { what: "REPORT CAPABILITIES", bytes: data.len() });
        };
        let mask_valid = more & 0x80 != 0;
        Ok(Self { persists: flags & 0x01 != 0, registrants_only: !mask_valid || mask & 0x20 != 0 })
    }
}

/// PRGENERATION, and the list of ADDITIONAL LENGTH bytes. A list longer than what has come is cut off: malformed.
fn header(data: &[u8]) -> Option<(u32, &[u8])> {
    let generation = u32::from_be_bytes(*data.first_chunk()?);
    let length = u32::from_be_bytes(*data.get(4..)?.first_chunk()?);
    let list = data.get(HEADER_BYTES..HEADER_BYTES.checked_add(usize::try_from(length).ok()?)?)?;
    Some((generation, list))
}

fn u64_at(data: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// Sense key and additional sense code (4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sense {
    /// The sense key.
    pub key: u8,
    /// ADDITIONAL SENSE CODE.
    pub code: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER.
    pub qualifier: u8,
}

impl Sense {
    /// From sense data of either format; `None`: too short, or of another format.
    #[must_use]
    pub fn parse(data: &[u8]) -> Option<Self> {
        let byte = |at: usize| data.get(at).copied();
        match byte(0)? & 0x7f {
            0x70 | 0x71 => Some(Self { key: byte(2)? & 0xf, code: byte(12)?, qualifier: byte(13)? }),
            0x72 | 0x73 => Some(Self { key: byte(1)? & 0xf, code: byte(2)?, qualifier: byte(3)? }),
            _ => None,
        }
    }

    const NO_SENSE: u8 = 0x0;
    const RECOVERED_ERROR: u8 = 0x1;
    const ILLEGAL_REQUEST: u8 = 0x5;
    const UNIT_ATTENTION: u8 = 0x6;
    const ABORTED_COMMAND: u8 = 0xb;

    /// Something happened to the logical unit or to our registration since the last command (a reset: 29h; a
    /// registration or reservation pre-empted or released: 2Ah/03h-05h). The command was not done; said once per path.
    #[must_use]
    pub const fn is_unit_attention(self) -> bool {
        self.key == Self::UNIT_ATTENTION
    }

    /// The logical unit does not know the command, or not in this form.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        self.key == Self::ILLEGAL_REQUEST
    }

    /// The command was not done for a reason that passes: it is to be sent again.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        self.is_unit_attention() || self.key == Self::ABORTED_COMMAND
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sense key {:x}h, code {:02x}h/{:02x}h", self.key, self.code, self.qualifier)
    }
}

/// How a command has ended (SAM-5 5.3.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    /// Done; with what it has read.
    Good(Vec<u8>),
    /// RESERVATION CONFLICT: refused, nothing done. It does *not* mean "I am fenced": a PREEMPT of a key that is no
    /// longer registered answers it too.
    Conflict,
    /// CHECK CONDITION: not done, and why.
    Check(Sense),
    /// BUSY, TASK SET FULL, ACA ACTIVE, TASK ABORTED, or sense that can't be read: not done, may be tried again.
    Again(u8),
}

impl Status {
    const GOOD: u8 = 0x00;
    const CHECK_CONDITION: u8 = 0x02;
    const RESERVATION_CONFLICT: u8 = 0x18;

    /// From the status byte, the sense data and the data that came.
    pub(crate) fn decode(status: u8, sense: &[u8], data: Vec<u8>) -> Self {
        match status {
            Self::GOOD => Self::Good(data),
            Self::RESERVATION_CONFLICT => Self::Conflict,
            Self::CHECK_CONDITION => match Sense::parse(sense) {
                // It was done, and something is said beside it.
                Some(Sense { key: Sense::NO_SENSE | Sense::RECOVERED_ERROR, .. }) => Self::Good(data),
                Some(sense) => Self::Check(sense),
                None => Self::Again(status),
            },
            other => Self::Again(other),
        }
    }
}

#[cfg(test)]
mod tests;
