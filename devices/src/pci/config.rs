//! Configuration space: registers, their write masks and the capability lists
//! (PCI Local Bus 3.0, chapter 6; PCI Express Base 3.0, section 7.2).

use std::sync::atomic::{AtomicU32, Ordering};

/// Offset of the Vendor ID register.
pub const VENDOR_ID: u16 = 0x00;
/// Offset of the Device ID register.
pub const DEVICE_ID: u16 = 0x02;
/// Offset of the Command register.
pub const COMMAND: u16 = 0x04;
/// Offset of the Status register.
pub const STATUS: u16 = 0x06;
/// Offset of the Revision ID; the class code is in the three bytes above it.
pub const REVISION_ID: u16 = 0x08;
/// Offset of the Cache Line Size register.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// Offset of the Header Type register.
pub const HEADER_TYPE: u16 = 0x0e;
/// Offset of the first base address register.
pub const BAR0: u16 = 0x10;
/// Offset of the Subsystem Vendor ID; the Subsystem ID follows.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Offset of the Capabilities Pointer.
pub const CAPABILITIES_POINTER: u16 = 0x34;
/// Offset of the Interrupt Line register.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Offset of the Interrupt Pin register.
pub const INTERRUPT_PIN: u16 = 0x3d;

/// Command: respond to I/O accesses.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: respond to memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: may act as a bus master.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// Command: may not assert INTx.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status: an INTx interrupt is pending inside the function.
pub const STATUS_INTERRUPT: u16 = 1 << 3;
/// Status: there is a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Header Type: the device has several functions.
pub const HEADER_MULTIFUNCTION: u8 = 1 << 7;

const COMMAND_WRITABLE: u16 = COMMAND_IO
    | COMMAND_MEMORY
    | COMMAND_MASTER
    | 1 << 6 // parity error response
    | 1 << 8 // SERR# enable
    | COMMAND_INTX_DISABLE;

const CONVENTIONAL_BYTES: usize = 256;
const EXTENDED_BYTES: usize = 4096;
const FIRST_CAPABILITY: usize = 0x40;

/// Why a function's registers cannot be laid out as declared: an error of the device model,
/// met when the device is created and never later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The capability list has outgrown the space for it.
    #[error("capability {id:#x} of {len} bytes does not fit the configuration space")]
    NoRoom {
        /// Capability ID.
        id: u16,
        /// Its size with the header.
        len: usize,
    },
    /// A capability's mask is not as long as its body.
    #[error("capability {id:#x}: the write mask has another length than the body")]
    Mask {
        /// Capability ID.
        id: u16,
    },
    /// A base address register is out of range, taken twice, or of an impossible size.
    #[error("BAR {index} of {size:#x} bytes cannot be declared: {reason}")]
    Bar {
        /// Register index.
        index: usize,
        /// Declared size.
        size: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Who the function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code, 24 bits: base class, sub-class, programming interface.
    pub class: u32,
    /// Subsystem Vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// Lays out a configuration space; [`ConfigBuilder::build`] freezes the masks.
#[derive(Clone, Debug)]
pub struct ConfigBuilder {
    reset: Vec<u8>,
    writable: Vec<u8>,
    next_capability: usize,
    last_capability: Option<usize>,
    next_extended: usize,
    last_extended: Option<usize>,
}

impl ConfigBuilder {
    /// A type 0 header with `identity`. `extended` gives 4096 bytes instead of 256; a conventional
    /// function reads all ones above 256.
    pub fn new(identity: &Identity, extended: bool) -> Self {
        let bytes = if extended { EXTENDED_BYTES } else { CONVENTIONAL_BYTES };
        let mut new = Self {
            reset: vec![0; bytes],
            writable: vec![0; bytes],
            next_capability: FIRST_CAPABILITY,
            last_capability: None,
            next_extended: CONVENTIONAL_BYTES,
            last_extended: None,
        };
        new.set(VENDOR_ID, &identity.vendor.to_le_bytes());
        new.set(DEVICE_ID, &identity.device.to_le_bytes());
        new.set(REVISION_ID, &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes());
        new.set(SUBSYSTEM_VENDOR_ID, &identity.subsystem_vendor.to_le_bytes());
        new.set(SUBSYSTEM_VENDOR_ID + 2, &identity.subsystem.to_le_bytes());
        new.writable(COMMAND, &COMMAND_WRITABLE.to_le_bytes());
        new.writable(CACHE_LINE_SIZE, &[0xff]);
        new.writable(INTERRUPT_LINE, &[0xff]);
        new
    }

    /// Sets the power-on value of the registers from `offset` up. What does not fit is left out.
    pub fn set(&mut self, offset: u16, bytes: &[u8]) {
        put(&mut self.reset, offset, bytes);
    }

    /// Lets the guest change the bits set in `mask`, from `offset` up. All others are read-only.
    pub fn writable(&mut self, offset: u16, mask: &[u8]) {
        put(&mut self.writable, offset, mask);
    }

    /// Appends a capability: `body` follows the two-byte header and `mask` says which of its bits
    /// the guest may write. Returns the offset of its ID byte, a multiple of 4.
    pub fn capability(&mut self, id: u8, body: &[u8], mask: &[u8]) -> Result<u8, LayoutError> {
        let len = 2 + body.len();
        let at = self.next_capability;
        if body.len() != mask.len() {
            return Err(LayoutError::Mask { id: id.into() });
        }
        if at + len > CONVENTIONAL_BYTES {
            return Err(LayoutError::NoRoom { id: id.into(), len });
        }
        self.set(at as u16, &[id, 0]);
        self.set(at as u16 + 2, body);
        self.writable(at as u16 + 2, mask);
        let link = self.last_capability.map_or(CAPABILITIES_POINTER, |last| last as u16 + 1);
        self.set(link, &[at as u8]);
        self.set(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.last_capability = Some(at);
        self.next_capability = (at + len).next_multiple_of(4);
        Ok(at as u8)
    }

    /// Appends an extended capability: `body` follows the four-byte header. Returns its offset.
    pub fn extended_capability(
        &mut self,
        id: u16,
        version: u8,
        body: &[u8],
        mask: &[u8],
    ) -> Result<u16, LayoutError> {
        let len = 4 + body.len();
        let at = self.next_extended;
        if body.len() != mask.len() {
            return Err(LayoutError::Mask { id });
        }
        if at + len > self.reset.len() {
            return Err(LayoutError::NoRoom { id, len });
        }
        self.set(at as u16, &(u32::from(id) | u32::from(version & 0xf) << 16).to_le_bytes());
        self.set(at as u16 + 4, body);
        self.writable(at as u16 + 4, mask);
        if let Some(last) = self.last_extended {
            // The next pointer is the upper twelve bits of the header.
            let low = self.reset[last + 2] & 0xf;
            self.set(last as u16 + 2, &[low | ((at << 4) & 0xf0) as u8, (at >> 4) as u8]);
        }
        self.last_extended = Some(at);
        self.next_extended = (at + len).next_multiple_of(4);
        Ok(at as u16)
    }

    /// The registers at power-on.
    pub fn build(self) -> ConfigSpace {
        let reset = dwords(&self.reset);
        ConfigSpace {
            regs: reset.iter().map(|&value| AtomicU32::new(value)).collect(),
            reset,
            writable: dwords(&self.writable),
        }
    }
}

fn put(to: &mut [u8], offset: u16, bytes: &[u8]) {
    for (slot, byte) in to.iter_mut().skip(offset.into()).zip(bytes) {
        *slot = *byte;
    }
}

fn dwords(bytes: &[u8]) -> Box<[u32]> {
    bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
}

/// A function's configuration registers.
///
/// Reads are lock-free and may come from any thread. Each 32-bit register changes atomically; a
/// guest write that spans two registers is two changes, as on a bus.
#[derive(Debug)]
pub struct ConfigSpace {
    regs: Box<[AtomicU32]>,
    reset: Box<[u32]>,
    writable: Box<[u32]>,
}

impl ConfigSpace {
    /// Fills `data` from `offset` up, all ones where there are no registers.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self
                .regs
                .get(at / 4)
                .map_or(0xff, |reg| reg.load(Ordering::Acquire).to_le_bytes()[at % 4]);
        }
    }

    /// Takes a guest's write of `data` at `offset`; read-only bits stay as they are.
    pub fn write(&self, offset: u16, data: &[u8]) {
        let start = usize::from(offset);
        let end = start + data.len();
        for index in start / 4..end.div_ceil(4) {
            let (mut value, mut lanes) = ([0u8; 4], [0u8; 4]);
            for lane in 0..4 {
                if let Some(byte) = (index * 4 + lane).checked_sub(start).and_then(|i| data.get(i))
                {
                    (value[lane], lanes[lane]) = (*byte, 0xff);
                }
            }
            let (Some(reg), Some(writable)) = (self.regs.get(index), self.writable.get(index))
            else {
                return;
            };
            let mask = writable & u32::from_le_bytes(lanes);
            set_bits(reg, mask, u32::from_le_bytes(value));
        }
    }

    /// The byte at `offset`; all ones beyond the end, as for the wider ones.
    pub fn u8(&self, offset: u16) -> u8 {
        let mut data = [0; 1];
        self.read(offset, &mut data);
        data[0]
    }

    /// The 16 bits at `offset`.
    pub fn u16(&self, offset: u16) -> u16 {
        let mut data = [0; 2];
        self.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    /// The 32 bits at `offset`.
    pub fn u32(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Sets a byte from the device's side: masks do not apply.
    pub fn set_u8(&self, offset: u16, value: u8) {
        self.set(offset, &[value]);
    }

    /// Sets 16 bits from the device's side.
    pub fn set_u16(&self, offset: u16, value: u16) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Sets 32 bits from the device's side.
    pub fn set_u32(&self, offset: u16, value: u32) {
        self.set(offset, &value.to_le_bytes());
    }

    /// Returns every register to its power-on value.
    pub fn reset(&self) {
        for (reg, value) in self.regs.iter().zip(&self.reset) {
            reg.store(*value, Ordering::Release);
        }
    }

    /// How many bytes of registers there are: 256 or 4096.
    pub fn size(&self) -> usize {
        self.regs.len() * 4
    }

    fn set(&self, offset: u16, bytes: &[u8]) {
        for (at, byte) in (usize::from(offset)..).zip(bytes) {
            if let Some(reg) = self.regs.get(at / 4) {
                let shift = (at % 4) * 8;
                set_bits(reg, 0xff << shift, u32::from(*byte) << shift);
            }
        }
    }
}

// Compare and swap: the device's side may set a status bit while a guest writes its neighbours.
fn set_bits(reg: &AtomicU32, mask: u32, value: u32) {
    let merge = |old| Some(old & !mask | value & mask);
    let _ = reg.fetch_update(Ordering::AcqRel, Ordering::Acquire, merge);
}

/// Whether the `len` bytes written at `offset` reach into `field`, a range of offsets.
pub fn touches(offset: u16, len: usize, field: &std::ops::Range<u16>) -> bool {
    let start = usize::from(offset);
    start < usize::from(field.end) && start + len > usize::from(field.start)
}
