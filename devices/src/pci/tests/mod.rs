//! Functions on a root, reached as a guest reaches them.

mod access;
mod bridge;
mod decode;
mod interrupts;
mod nonsense;

use super::*;
use crate::test_platform::TestPlatform;
use std::sync::{Arc, Mutex};
use vcpu::address_space::AddressSpace;
use vcpu::bus::Space;

pub(super) const WINDOWS: PciWindows = PciWindows {
    io: 0x1000..0x1_0000,
    memory32: 0xd000_0000..0xfec0_0000,
    memory64: 0x2_0000_0000..0x82_0000_0000,
};

/// What a device was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Mapped(usize, Option<u64>),
    Wrote(usize, u64, Vec<u8>),
    Command(u16),
    Msix(bool),
    Config(u16, Vec<u8>),
    Reset,
}

/// A device that keeps what it hears; its BARs read as offset and BAR number.
#[derive(Default)]
pub(super) struct Recorder(pub(super) Mutex<Vec<Heard>>);

impl Recorder {
    fn note(&self, heard: Heard) {
        self.0.lock().unwrap().push(heard);
    }

    pub(super) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl PciDevice for Recorder {
    fn bar_read(&self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
        data[0] = bar as u8;
    }

    fn bar_write(&self, bar: usize, offset: u64, data: &[u8]) {
        self.note(Heard::Wrote(bar, offset, data.to_vec()));
    }

    fn bar_mapped(&self, bar: usize, base: Option<u64>) {
        self.note(Heard::Mapped(bar, base));
    }

    fn config_read(&self, _regs: &ConfigSpace, _offset: u16, data: &mut [u8]) -> bool {
        data.fill(0x5a);
        true
    }

    fn config_written(&self, _regs: &ConfigSpace, offset: u16, data: &[u8]) {
        self.note(Heard::Config(offset, data.to_vec()));
    }

    fn command_changed(&self, command: u16) {
        self.note(Heard::Command(command));
    }

    fn msix_changed(&self, enabled: bool) {
        self.note(Heard::Msix(enabled));
    }

    fn reset(&self) {
        self.note(Heard::Reset);
    }
}

pub(super) const IDENTITY: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 1,
    class: 0x01_80_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// A machine's PCI side with its two spaces.
pub(super) struct Machine {
    pub(super) platform: Arc<TestPlatform>,
    pub(super) pio: Arc<AddressSpace>,
    pub(super) mmio: Arc<AddressSpace>,
    pub(super) root: PciRoot,
    pub(super) resets: Arc<Mutex<usize>>,
}

pub(super) const ECAM: u64 = 0xc000_0000;

impl Machine {
    pub(super) fn new() -> Self {
        let platform = TestPlatform::new();
        let (pio, mmio) = (AddressSpace::new(Space::Pio), AddressSpace::new(Space::Mmio));
        let root = PciRoot::new(
            &*platform,
            PciRootConfig {
                pio: Arc::clone(&pio),
                mmio: Arc::clone(&mmio),
                windows: WINDOWS.clone(),
            },
        );
        let resets = Arc::new(Mutex::new(0));
        let count = Arc::clone(&resets);
        let ports = root.config_ports(Arc::new(move || *count.lock().unwrap() += 1));
        pio.map(CONFIG_PORTS, CONFIG_PORTS_LEN, FIXED_PRIORITY, ports).unwrap();
        mmio.map(ECAM, ECAM_LEN, FIXED_PRIORITY, root.ecam()).unwrap();
        Self { platform, pio, mmio, root, resets }
    }

    pub(super) fn outl(&self, port: u64, value: u32) {
        self.pio.write(port, &value.to_le_bytes());
    }

    pub(super) fn inl(&self, port: u64) -> u32 {
        let mut data = [0; 4];
        self.pio.read(port, &mut data);
        u32::from_le_bytes(data)
    }

    pub(super) fn config_u32(&self, device: u8, register: u16) -> u32 {
        let mut data = [0; 4];
        self.mmio.read(ECAM + (u64::from(device) << 15) + u64::from(register), &mut data);
        u32::from_le_bytes(data)
    }

    pub(super) fn set_config_u32(&self, device: u8, register: u16, value: u32) {
        let at = ECAM + (u64::from(device) << 15) + u64::from(register);
        self.mmio.write(at, &value.to_le_bytes());
    }

    pub(super) fn set_command(&self, device: u8, command: u16) {
        let at = ECAM + (u64::from(device) << 15) + u64::from(COMMAND);
        self.mmio.write(at, &command.to_le_bytes());
    }

    /// What a byte of memory reads as.
    pub(super) fn peek(&self, address: u64) -> u8 {
        let mut data = [0; 1];
        self.mmio.read(address, &mut data);
        data[0]
    }
}

/// A function with a 32-bit BAR 0, an I/O BAR 1, a 64-bit BAR 4 and a hook at 0x80.
pub(super) fn made() -> (Arc<Function>, Arc<Recorder>) {
    let device = Arc::new(Recorder::default());
    let mut spec = FunctionSpec::new(IDENTITY);
    spec.bar(0, Bar::memory32(0x1000)).unwrap();
    spec.bar(1, Bar::io(0x40)).unwrap();
    spec.bar(4, Bar::memory64(0x4000).prefetchable()).unwrap();
    spec.config().writable(0x80, &[0xff; 4]);
    spec.hook(0x80..0x84);
    (Function::new("plain", spec, device.clone()), device)
}

/// The same, plugged in on the root bus.
pub(super) fn plain(machine: &Machine, slot: u8) -> (Arc<Function>, Arc<Recorder>) {
    let (function, device) = made();
    machine.root.plug(Some(Slot::new(slot, 0).unwrap()), &function).unwrap();
    (function, device)
}
