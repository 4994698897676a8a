//! The vendor capabilities that tell where the structures are (section 4.1.4).

use super::{COMMON, DEVICE, ISR, NOTIFY, NOTIFY_STEP, PART, STRUCTURES_BAR, Transport, common};
use crate::pci::{ConfigSpace, FunctionSpec, LayoutError, PciDevice};

const VENDOR_SPECIFIC: u8 = 0x09;
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;

/// Bytes of `struct virtio_pci_cap`, and of the two variants with four bytes more.
const LEN: usize = 16;
const LEN_LONG: usize = 20;
// Offsets in the structure.
const BAR: u16 = 4;
const OFFSET: u16 = 8;
const LENGTH: u16 = 12;
const EXTRA: u16 = 16;

/// A capability without its two-byte header.
fn body(kind: u8, len: usize, offset: u64, length: u64, extra: u32) -> [u8; LEN_LONG - 2] {
    let mut body = [0; LEN_LONG - 2];
    body[0] = len as u8;
    body[1] = kind;
    body[2] = STRUCTURES_BAR as u8;
    body[6..10].copy_from_slice(&(offset as u32).to_le_bytes());
    body[10..14].copy_from_slice(&(length as u32).to_le_bytes());
    body[14..18].copy_from_slice(&extra.to_le_bytes());
    body
}

/// Appends the capabilities to `spec`.
pub(super) fn declare(spec: &mut FunctionSpec) -> Result<CfgWindow, LayoutError> {
    let read_only = [0; LEN_LONG - 2];
    for (kind, offset, length) in
        [(COMMON_CFG, COMMON, common::LEN), (ISR_CFG, ISR, 1), (DEVICE_CFG, DEVICE, PART)]
    {
        let body = body(kind, LEN, offset, length, 0);
        spec.capability(VENDOR_SPECIFIC, &body[..LEN - 2], &read_only[..LEN - 2])?;
    }
    let notify = body(NOTIFY_CFG, LEN_LONG, NOTIFY, PART, NOTIFY_STEP as u32);
    spec.capability(VENDOR_SPECIFIC, &notify, &read_only)?;
    CfgWindow::declare(spec)
}

/// The window on the structures through configuration space (section 4.1.4.9), for software
/// that cannot reach BARs.
pub(super) struct CfgWindow {
    /// Offset of the capability.
    at: u16,
}

impl CfgWindow {
    fn declare(spec: &mut FunctionSpec) -> Result<Self, LayoutError> {
        let body = body(PCI_CFG, LEN_LONG, 0, 0, 0);
        let mut mask = [0; LEN_LONG - 2];
        mask[2] = 0xff;
        mask[6..].fill(0xff);
        let at = u16::from(spec.capability(VENDOR_SPECIFIC, &body, &mask)?);
        spec.hook(at + EXTRA..at + EXTRA + 4);
        Ok(Self { at })
    }

    /// BAR, offset and width that the guest has chosen; `None` for what it may not choose.
    fn target(&self, regs: &ConfigSpace) -> Option<(usize, u64, usize)> {
        let bar = usize::from(regs.u8(self.at + BAR));
        let offset = regs.u32(self.at + OFFSET);
        let width = regs.u32(self.at + LENGTH);
        let sound =
            matches!(width, 1 | 2 | 4) && offset.is_multiple_of(width) && bar == STRUCTURES_BAR;
        sound.then_some((bar, u64::from(offset), width as usize))
    }

    pub(super) fn read(
        &self,
        transport: &Transport,
        regs: &ConfigSpace,
        offset: u16,
        data: &mut [u8],
    ) -> bool {
        // An access that only grazes the data field is no access to the structure.
        let Some(skip) = offset.checked_sub(self.at + EXTRA) else { return false };
        let Some((bar, at, width)) = self.target(regs) else { return false };
        let mut bytes = [0; 4];
        transport.bar_read(bar, at, &mut bytes[..width]);
        for (byte, value) in data.iter_mut().zip(bytes.iter().skip(usize::from(skip))) {
            *byte = *value;
        }
        true
    }

    pub(super) fn written(&self, transport: &Transport, regs: &ConfigSpace, offset: u16) {
        if offset < self.at + EXTRA {
            return;
        }
        if let Some((bar, at, width)) = self.target(regs) {
            let bytes = regs.u32(self.at + EXTRA).to_le_bytes();
            transport.bar_write(bar, at, &bytes[..width]);
        }
    }
}
