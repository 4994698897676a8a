//! Status codes, sense data and unit attentions (SPC-4, section 4.5 and annex F).

/// SCSI status codes (SAM-5, section 5.3.1).
pub mod status {
    /// The command succeeded.
    pub const GOOD: u8 = 0x00;
    /// It did not; sense data says why.
    pub const CHECK_CONDITION: u8 = 0x02;
    /// To be tried again later.
    pub const BUSY: u8 = 0x08;
    /// Somebody else has reserved the unit.
    pub const RESERVATION_CONFLICT: u8 = 0x18;
}

/// Why a command failed: sense key, additional sense code and its qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// The general class.
    pub key: u8,
    /// ASC.
    pub asc: u8,
    /// ASCQ.
    pub ascq: u8,
}

const NOT_READY: u8 = 0x02;
const MEDIUM_ERROR: u8 = 0x03;
const HARDWARE_ERROR: u8 = 0x04;
const ILLEGAL_REQUEST: u8 = 0x05;
const UNIT_ATTENTION: u8 = 0x06;
const DATA_PROTECT: u8 = 0x07;
const ABORTED_COMMAND: u8 = 0x0b;

impl Sense {
    /// Nothing to say.
    pub const NONE: Self = Self::new(0, 0x00, 0x00);
    /// Stopped by START STOP UNIT: an initialising command is required.
    pub const STOPPED: Self = Self::new(NOT_READY, 0x04, 0x02);
    /// No medium.
    pub const NO_MEDIUM: Self = Self::new(NOT_READY, 0x3a, 0x00);
    /// No medium: the tray is open.
    pub const TRAY_OPEN: Self = Self::new(NOT_READY, 0x3a, 0x02);
    /// Unrecovered read error.
    pub const READ_ERROR: Self = Self::new(MEDIUM_ERROR, 0x11, 0x00);
    /// Write error.
    pub const WRITE_ERROR: Self = Self::new(MEDIUM_ERROR, 0x0c, 0x00);
    /// Internal target failure.
    pub const TARGET_FAILURE: Self = Self::new(HARDWARE_ERROR, 0x44, 0x00);
    /// The parameter list has an impossible length.
    pub const PARAMETER_LENGTH: Self = Self::new(ILLEGAL_REQUEST, 0x1a, 0x00);
    /// Invalid command operation code.
    pub const INVALID_OPCODE: Self = Self::new(ILLEGAL_REQUEST, 0x20, 0x00);
    /// Logical block address out of range.
    pub const LBA_RANGE: Self = Self::new(ILLEGAL_REQUEST, 0x21, 0x00);
    /// Invalid field in the CDB.
    pub const INVALID_FIELD: Self = Self::new(ILLEGAL_REQUEST, 0x24, 0x00);
    /// Logical unit not supported.
    pub const NO_UNIT: Self = Self::new(ILLEGAL_REQUEST, 0x25, 0x00);
    /// Invalid field in the parameter list.
    pub const INVALID_PARAMETER: Self = Self::new(ILLEGAL_REQUEST, 0x26, 0x00);
    /// Saving parameters is not supported.
    pub const NO_SAVING: Self = Self::new(ILLEGAL_REQUEST, 0x39, 0x00);
    /// Medium removal prevented.
    pub const REMOVAL_PREVENTED: Self = Self::new(ILLEGAL_REQUEST, 0x53, 0x02);
    /// Write protected.
    pub const WRITE_PROTECTED: Self = Self::new(DATA_PROTECT, 0x27, 0x00);
    /// Space allocation failed: the storage is full.
    pub const SPACE_FULL: Self = Self::new(DATA_PROTECT, 0x27, 0x07);
    /// The I/O process was terminated.
    pub const IO_TERMINATED: Self = Self::new(ABORTED_COMMAND, 0x00, 0x06);

    /// Any sense.
    pub const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Self { key, asc, ascq }
    }

    /// In the fixed format (SPC-4, section 4.5.3).
    pub fn fixed(self) -> [u8; 18] {
        let mut data = [0; 18];
        (data[0], data[2], data[7], data[12], data[13]) = (0x70, self.key, 10, self.asc, self.ascq);
        data
    }

    /// In the descriptor format, with no descriptors (SPC-4, section 4.5.2).
    pub fn descriptor(self) -> [u8; 8] {
        [0x72, self.key, self.asc, self.ascq, 0, 0, 0, 0]
    }
}

/// How a command ends that does not end with GOOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// CHECK CONDITION, and why.
    Check(Sense),
    /// Another status than that.
    Status(u8),
}

impl From<Sense> for Failure {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

impl Failure {
    /// What a disk's errno is to a guest. `write`: the request was to change the medium.
    pub fn of_errno(errno: i32, write: bool) -> Self {
        Self::Check(match errno {
            libc::ENOMEDIUM => Sense::NO_MEDIUM,
            libc::ENOSPC | libc::EDQUOT => Sense::SPACE_FULL,
            libc::EROFS | libc::EACCES | libc::EPERM | libc::EBADF => Sense::WRITE_PROTECTED,
            libc::EINVAL => Sense::INVALID_FIELD,
            libc::ENOMEM => Sense::TARGET_FAILURE,
            libc::ECANCELED | libc::ETIMEDOUT | libc::ENOTCONN | libc::EPIPE => {
                Sense::IO_TERMINATED
            }
            libc::EBUSY => return Self::Status(status::BUSY),
            libc::EBADE => return Self::Status(status::RESERVATION_CONFLICT),
            _ if write => Sense::WRITE_ERROR,
            _ => Sense::READ_ERROR,
        })
    }
}

/// A unit attention: told once, by the next command that may tell it (SAM-5, section 5.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Attention {
    /// Power on, reset or bus device reset: the unit is new.
    PowerOn = 1,
    /// The unit was reset.
    DeviceReset = 2,
    /// All ties between initiator and target were cut.
    NexusLoss = 4,
    /// There may be another medium.
    MediumChanged = 8,
    /// The capacity has changed.
    CapacityChanged = 16,
    /// Mode parameters were changed, not by the guest.
    ModeChanged = 32,
    /// The target has other logical units than before.
    LunsChanged = 64,
}

impl Attention {
    /// In the order in which they are told.
    const ORDER: [Self; 7] = [
        Self::PowerOn,
        Self::DeviceReset,
        Self::NexusLoss,
        Self::MediumChanged,
        Self::CapacityChanged,
        Self::ModeChanged,
        Self::LunsChanged,
    ];

    /// The bits that a reset of any kind makes obsolete.
    pub(super) const RESETS: u32 =
        Self::PowerOn as u32 | Self::DeviceReset as u32 | Self::NexusLoss as u32;

    /// The sense that tells it.
    pub fn sense(self) -> Sense {
        let (asc, ascq) = match self {
            Self::PowerOn => (0x29, 0x00),
            Self::DeviceReset => (0x29, 0x03),
            Self::NexusLoss => (0x29, 0x07),
            Self::MediumChanged => (0x28, 0x00),
            Self::CapacityChanged => (0x2a, 0x09),
            Self::ModeChanged => (0x2a, 0x01),
            Self::LunsChanged => (0x3f, 0x0e),
        };
        Sense::new(UNIT_ATTENTION, asc, ascq)
    }

    /// The most important one of a set of bits.
    pub(super) fn first_of(bits: u32) -> Option<Self> {
        Self::ORDER.into_iter().find(|attention| bits & *attention as u32 != 0)
    }
}
