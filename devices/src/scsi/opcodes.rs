//! The commands there are: one table decides what is supported, and tells guests of it.

use super::unit::Kind;

/// Which device types have a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Both,
    Disk,
    Cd,
}

/// A command's code and the bits of its CDB that are evaluated (SPC-4, section 6.35.3).
pub(super) struct Opcode {
    pub(super) code: u8,
    pub(super) action: Option<u8>,
    devices: For,
    /// The CDB usage data; as long as the CDB. The first byte is the code itself.
    pub(super) usage: &'static [u8],
}

impl Opcode {
    fn is_for(&self, kind: Kind) -> bool {
        match self.devices {
            For::Both => true,
            For::Disk => kind == Kind::Disk,
            For::Cd => kind == Kind::Cd,
        }
    }
}

const fn op(devices: For, usage: &'static [u8]) -> Opcode {
    Opcode { code: usage[0], action: None, devices, usage }
}

const fn with_action(devices: For, action: u8, usage: &'static [u8]) -> Opcode {
    Opcode { code: usage[0], action: Some(action), devices, usage }
}

const ALL: u8 = 0xff;
/// DPO and FUA.
const RW: u8 = 0x18;
use For::{Both, Cd, Disk};

/// All of them, by code.
const OPCODES: &[Opcode] = &[
    // TEST UNIT READY, REQUEST SENSE
    op(Both, &[0x00, 0, 0, 0, 0, 0]),
    op(Both, &[0x03, 1, 0, 0, ALL, 0]),
    // READ(6), WRITE(6), INQUIRY
    op(Both, &[0x08, 0x1f, ALL, ALL, ALL, 0]),
    op(Both, &[0x0a, 0x1f, ALL, ALL, ALL, 0]),
    op(Both, &[0x12, 1, ALL, ALL, ALL, 0]),
    // MODE SELECT(6), RESERVE(6), RELEASE(6), MODE SENSE(6)
    op(Both, &[0x15, 0x11, 0, 0, ALL, 0]),
    op(Both, &[0x16, 0, 0, 0, 0, 0]),
    op(Both, &[0x17, 0, 0, 0, 0, 0]),
    op(Both, &[0x1a, 0x08, ALL, ALL, ALL, 0]),
    // START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL
    op(Both, &[0x1b, 1, 0, 0, 0xf7, 0]),
    op(Both, &[0x1e, 0, 0, 0, 3, 0]),
    // READ CAPACITY(10), READ(10), WRITE(10), SEEK(10)
    op(Both, &[0x25, 0, ALL, ALL, ALL, ALL, 0, 0, 1, 0]),
    op(Both, &[0x28, RW, ALL, ALL, ALL, ALL, 0, ALL, ALL, 0]),
    op(Both, &[0x2a, RW, ALL, ALL, ALL, ALL, 0, ALL, ALL, 0]),
    op(Both, &[0x2b, 0, ALL, ALL, ALL, ALL, 0, 0, 0, 0]),
    // WRITE AND VERIFY(10), VERIFY(10), SYNCHRONIZE CACHE(10)
    op(Both, &[0x2e, 0x16, ALL, ALL, ALL, ALL, 0, ALL, ALL, 0]),
    op(Both, &[0x2f, 0x16, ALL, ALL, ALL, ALL, 0, ALL, ALL, 0]),
    op(Both, &[0x35, 2, ALL, ALL, ALL, ALL, 0, ALL, ALL, 0]),
    // WRITE SAME(10), UNMAP
    op(Disk, &[0x41, 0x19, ALL, ALL, ALL, ALL, 0, ALL, ALL, 0]),
    op(Disk, &[0x42, 1, 0, 0, 0, 0, 0, ALL, ALL, 0]),
    // READ TOC/PMA/ATIP, GET CONFIGURATION, GET EVENT STATUS NOTIFICATION, READ DISC INFORMATION
    op(Cd, &[0x43, 2, 0x0f, 0, 0, 0, ALL, ALL, ALL, 0xc0]),
    op(Cd, &[0x46, 3, ALL, ALL, 0, 0, 0, ALL, ALL, 0]),
    op(Cd, &[0x4a, 1, 0, 0, ALL, 0, 0, ALL, ALL, 0]),
    op(Cd, &[0x51, 7, 0, 0, 0, 0, 0, ALL, ALL, 0]),
    // MODE SELECT(10), RESERVE(10), RELEASE(10), MODE SENSE(10)
    op(Both, &[0x55, 0x11, 0, 0, 0, 0, 0, ALL, ALL, 0]),
    op(Both, &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    op(Both, &[0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    op(Both, &[0x5a, 0x18, ALL, ALL, 0, 0, 0, ALL, ALL, 0]),
    // READ(16), WRITE(16), WRITE AND VERIFY(16), VERIFY(16)
    op(Both, &[0x88, RW, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    op(Both, &[0x8a, RW, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    op(Both, &[0x8e, 0x16, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    op(Both, &[0x8f, 0x16, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    // SYNCHRONIZE CACHE(16), WRITE SAME(16)
    op(Both, &[0x91, 2, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    op(Disk, &[0x93, 0x19, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    // READ CAPACITY(16), REPORT LUNS, REPORT SUPPORTED OPERATION CODES
    with_action(Both, 0x10, &[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, ALL, ALL, ALL, ALL, 0, 0]),
    op(Both, &[0xa0, 0, ALL, 0, 0, 0, ALL, ALL, ALL, ALL, 0, 0]),
    with_action(Both, 0x0c, &[0xa3, 0x1f, 0x87, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    // READ(12), WRITE(12), WRITE AND VERIFY(12), VERIFY(12), MECHANISM STATUS
    op(Both, &[0xa8, RW, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    op(Both, &[0xaa, RW, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    op(Both, &[0xae, 0x16, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    op(Both, &[0xaf, 0x16, ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL, 0, 0]),
    op(Cd, &[0xbd, 0, 0, 0, 0, 0, 0, 0, ALL, ALL, 0, 0]),
];

/// The commands of a device type.
pub(super) fn of(kind: Kind) -> impl Iterator<Item = &'static Opcode> {
    OPCODES.iter().filter(move |opcode| opcode.is_for(kind))
}

/// What is known of a code.
pub(super) enum Known {
    No,
    /// The code, but not its service action.
    CodeOnly,
    Yes,
}

/// Looks a command up by its code and, where such a code has one, its service action.
pub(super) fn find(kind: Kind, code: u8, action: u8) -> Known {
    let mut known = Known::No;
    for opcode in of(kind).filter(|opcode| opcode.code == code) {
        if opcode.action.is_none_or(|wanted| wanted == action) {
            return Known::Yes;
        }
        known = Known::CodeOnly;
    }
    known
}

/// The answer to REPORT SUPPORTED OPERATION CODES (SPC-4, section 6.35), `None` where a field is
/// invalid.
pub(super) fn report(kind: Kind, options: u8, code: u8, action: u16) -> Option<Vec<u8>> {
    let with_timeouts = options & 0x80 != 0;
    match options & 7 {
        0 => Some(report_all(kind, with_timeouts)),
        choice @ 1..=3 => {
            let wanted = u8::try_from(action).ok();
            let found = of(kind).filter(|opcode| opcode.code == code).find(|opcode| match choice {
                1 => opcode.action.is_none(),
                2 => opcode.action.is_some() && opcode.action == wanted,
                _ => opcode.action.is_none_or(|action| Some(action) == wanted),
            });
            // A code that has service actions, asked for without one, or the other way round.
            let other = of(kind).any(|opcode| opcode.code == code && opcode.action.is_some());
            let exists = of(kind).any(|opcode| opcode.code == code);
            if exists && ((choice == 1 && other) || (choice == 2 && !other)) {
                return None;
            }
            Some(report_one(found, with_timeouts))
        }
        _ => None,
    }
}

/// "No nominal or recommended timeout" (SPC-4, section 6.35.4).
const NO_TIMEOUTS: [u8; 12] = [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn report_all(kind: Kind, with_timeouts: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for opcode in of(kind) {
        let flags = u8::from(opcode.action.is_some()) | u8::from(with_timeouts) << 1;
        let action = opcode.action.unwrap_or(0);
        data.extend([opcode.code, 0, 0, action, 0, flags, 0, opcode.usage.len() as u8]);
        if with_timeouts {
            data.extend(NO_TIMEOUTS);
        }
    }
    let length = (data.len() - 4) as u32;
    data[..4].copy_from_slice(&length.to_be_bytes());
    data
}

fn report_one(opcode: Option<&Opcode>, with_timeouts: bool) -> Vec<u8> {
    const SUPPORTED: u8 = 3;
    const NOT_SUPPORTED: u8 = 1;
    let Some(opcode) = opcode else { return vec![0, NOT_SUPPORTED, 0, 0] };
    let mut data = vec![0, SUPPORTED | u8::from(with_timeouts) << 7, 0, opcode.usage.len() as u8];
    data.extend(opcode.usage);
    if let Some(action) = opcode.action {
        data[5] = action;
    }
    if with_timeouts {
        data.extend(NO_TIMEOUTS);
    }
    data
}
