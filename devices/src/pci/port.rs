//! A PCI Express root port with a slot (PCI Express Base 3.0, sections 6.7 and 7.8).

use super::bar::Bar;
use super::bridge::PciBridge;
use super::config::{ConfigSpace, Identity, LayoutError, touches};
use super::device::PciDevice;
use super::function::{Function, FunctionSpec};
use super::intx::IntxPin;
use super::msix::{Msix, MsixPlace};
use super::slot::{PortSlot, SlotAnswer, SlotRequest};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use vcpu::irq::{IrqError, Platform};

// What QEMU's port says it is, so that guests know it.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x000c,
    revision: 0,
    class: 0x06_04_00,
    subsystem_vendor: 0,
    subsystem: 0,
};

const MSIX_BAR: usize = 0;
const MSIX_BAR_BYTES: u64 = 0x1000;
const PBA_OFFSET: u32 = 0x800;

const SUBSYSTEM_CAPABILITY: u8 = 0x0d;
const EXPRESS_CAPABILITY: u8 = 0x10;
/// Offsets in the PCI Express capability.
const EXPRESS_BYTES: usize = 0x3c;
const CAPABILITIES: usize = 0x02;
const DEVICE_CAPABILITIES: usize = 0x04;
const DEVICE_CONTROL: usize = 0x08;
const LINK_CAPABILITIES: usize = 0x0c;
const LINK_CONTROL: usize = 0x10;
const LINK_STATUS: usize = 0x12;
const SLOT_CAPABILITIES: usize = 0x14;
const SLOT_CONTROL: usize = 0x18;
const SLOT_STATUS: usize = 0x1a;
const ROOT_CONTROL: usize = 0x1c;
const LINK_CAPABILITIES_2: usize = 0x2c;
const LINK_CONTROL_2: usize = 0x30;

/// Version 2, a root port, with a slot.
const EXPRESS_KIND: u16 = 2 | 4 << 4 | 1 << 8;
/// Errors are told by role; eight bits of tags.
const DEVICE_HAS: u32 = 1 << 15 | 1 << 5;
/// 16 GT/s and 32 lanes: what a link of software has.
const LINK_SPEED: u16 = 4;
const LINK_WIDTH: u16 = 32 << 4;
/// Data link layer active is reported.
const LINK_REPORTS_ACTIVE: u32 = 1 << 20;
const LINK_ACTIVE: u16 = 1 << 13;
const LINK_SPEEDS: u32 = 0b1111 << 1;
/// Attention button, both indicators, interlock; surprise removal and hot-plug.
const SLOT_HAS: u32 = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 17;
const SLOT_POWER_CONTROLLER: u32 = 1 << 1;
const SLOT_HOTPLUG: u32 = 1 << 5 | 1 << 6;
const SLOT_NUMBER_SHIFT: u32 = 19;
const SLOT_NUMBER_MAX: u16 = 0x1fff;

/// Hears what the guest does with the card. On a vCPU thread; does not wait.
pub type PortAnswer = Box<dyn Fn(SlotAnswer) + Send + Sync>;

/// How a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootPortConfig {
    /// Its number.
    pub port: u8,
    /// Number of its slot, 13 bits.
    pub slot: u16,
    /// Whether devices come and go.
    pub hotplug: bool,
    /// Whether the guest can switch the slot's power.
    pub power_controller: bool,
    /// Other functions may share its place on the root bus.
    pub multifunction: bool,
}

/// Why a port cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RootPortError {
    /// The slot number has more than 13 bits.
    #[error("slot {0} of a root port: give 0 to {SLOT_NUMBER_MAX}")]
    Slot(u16),
    /// Vectors ran out.
    #[error(transparent)]
    Interrupts(#[from] IrqError),
    /// The registers do not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

struct State {
    slot: PortSlot,
    /// The interrupt condition as it was last told: a message is sent when it comes true.
    wanted: bool,
}

/// A root port.
///
/// The guest's accesses come from vCPU threads; cards come and go in `main`. One short lock, off the data
/// path.
pub struct RootPort {
    bridge: Arc<PciBridge>,
    msix: Arc<Msix>,
    pin: Arc<IntxPin>,
    express: OnceLock<u16>,
    state: Mutex<State>,
    answer: OnceLock<PortAnswer>,
}

impl RootPort {
    /// A port and its function, which goes on the root bus. In `main`; may take the accelerator's locks.
    pub fn new(
        id: &str,
        platform: &dyn Platform,
        config: RootPortConfig,
    ) -> Result<(Arc<Self>, Arc<Function>), RootPortError> {
        if config.slot > SLOT_NUMBER_MAX {
            return Err(RootPortError::Slot(config.slot));
        }
        let port = Arc::new(Self {
            bridge: PciBridge::new(),
            msix: Msix::new(platform, 1)?,
            pin: IntxPin::new(),
            express: OnceLock::new(),
            state: State { slot: PortSlot::new(config.power_controller), wanted: false }.into(),
            answer: OnceLock::new(),
        });
        let spec = port.declare(config)?;
        let function = Function::new(id, spec, Arc::<Self>::clone(&port));
        Ok((port, function))
    }

    fn declare(&self, config: RootPortConfig) -> Result<FunctionSpec, LayoutError> {
        let mut spec = FunctionSpec::bridge(IDENTITY, &self.bridge);
        spec.multifunction(config.multifunction);
        spec.bar(MSIX_BAR, Bar::memory32(MSIX_BAR_BYTES))?;
        // No subsystem is named; the capability says so where a type 0 header would.
        spec.capability(SUBSYSTEM_CAPABILITY, &[0; 6], &[0; 6])?;
        let place = MsixPlace {
            table_bar: MSIX_BAR,
            table_offset: 0,
            pba_bar: MSIX_BAR,
            pba_offset: PBA_OFFSET,
        };
        spec.msix(&self.msix, place)?;
        spec.intx(&self.pin);
        let (body, mask) = express(config);
        let at = u16::from(spec.capability(EXPRESS_CAPABILITY, &body, &mask)?);
        spec.hook(at + LINK_STATUS as u16..at + ROOT_CONTROL as u16);
        let _once = self.express.set(at);
        Ok(spec)
    }

    /// The bus below.
    pub fn bridge(&self) -> &Arc<PciBridge> {
        &self.bridge
    }

    /// Says who hears what the guest does with cards. Once; the first one stays.
    pub fn connect(&self, answer: PortAnswer) {
        let _first = self.answer.set(answer);
    }

    /// A card was there when the machine started.
    pub fn present(&self) {
        self.with(PortSlot::present);
    }

    /// A card has come while the machine runs: the guest is told.
    pub fn came(&self) {
        self.with(PortSlot::came);
    }

    /// The card has gone.
    pub fn went(&self) {
        self.with(PortSlot::went);
    }

    /// The card shall go: the guest is asked, where it has a say.
    pub fn request(&self) -> SlotRequest {
        self.with(PortSlot::request)
    }

    /// Reads or changes the slot; the interrupt follows.
    fn with<T>(&self, f: impl FnOnce(&mut PortSlot) -> T) -> T {
        let mut state = self.lock();
        let result = f(&mut state.slot);
        self.interrupt(&mut state);
        result
    }

    // Section 6.7.3.4: a level on the pin, or a message each time the condition comes true.
    fn interrupt(&self, state: &mut State) {
        let wanted = state.slot.interrupts();
        let was_wanted = std::mem::replace(&mut state.wanted, wanted);
        let came = wanted && !was_wanted;
        if !self.msix.enabled() {
            self.pin.set(wanted);
        } else if came && let Some(vector) = self.msix.vector(0) {
            super::signal(vector.eventfd());
        }
    }

    /// Where register `register` of the capability is in configuration space, as a range of 2 bytes.
    fn word(&self, register: usize) -> Range<u16> {
        let at = self.express.get().copied().unwrap_or_default() + register as u16;
        at..at + 2
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Body and write mask of the capability, without its header of two bytes.
fn express(config: RootPortConfig) -> ([u8; EXPRESS_BYTES - 2], [u8; EXPRESS_BYTES - 2]) {
    let (mut body, mut mask) = ([0; EXPRESS_BYTES - 2], [0; EXPRESS_BYTES - 2]);
    let link = u32::from(LINK_SPEED | LINK_WIDTH) | LINK_REPORTS_ACTIVE;
    let mut slot = SLOT_HAS | u32::from(config.slot) << SLOT_NUMBER_SHIFT;
    if config.hotplug {
        slot |= SLOT_HOTPLUG;
    }
    if config.power_controller {
        slot |= SLOT_POWER_CONTROLLER;
    }
    for (register, value) in [
        (CAPABILITIES, u32::from(EXPRESS_KIND)),
        (DEVICE_CAPABILITIES, DEVICE_HAS),
        (LINK_CAPABILITIES, link | u32::from(config.port) << 24),
        (LINK_CONTROL, u32::from(LINK_SPEED | LINK_WIDTH) << 16),
        (SLOT_CAPABILITIES, slot),
        (LINK_CAPABILITIES_2, LINK_SPEEDS),
        (LINK_CONTROL_2, LINK_SPEED.into()),
    ] {
        // The kind shares its dword with the header.
        let bytes = value.to_le_bytes();
        let len = if register == CAPABILITIES { 2 } else { 4 };
        body[register - 2..register - 2 + len].copy_from_slice(&bytes[..len]);
    }
    // Error reporting, payload and read request sizes; retrain is not kept; PME and error interrupts.
    for (register, value) in [
        (DEVICE_CONTROL, 0x70efu16),
        (LINK_CONTROL, 0x0fdb),
        (ROOT_CONTROL, 0x001f),
        (LINK_CONTROL_2, 0x000f),
    ] {
        mask[register - 2..register].copy_from_slice(&value.to_le_bytes());
    }
    (body, mask)
}

/// The bytes of `data`, written at `offset`, that fall on the 16 bits at `word`: their bits, and which bits
/// those are.
fn written(word: &Range<u16>, offset: u16, data: &[u8]) -> (u16, u16) {
    let (mut value, mut lanes) = ([0; 2], [0; 2]);
    for (at, byte) in (offset..).zip(data) {
        if word.contains(&at) {
            let lane = usize::from(at - word.start);
            (value[lane], lanes[lane]) = (*byte, 0xff);
        }
    }
    (u16::from_le_bytes(value), u16::from_le_bytes(lanes))
}

impl PciDevice for RootPort {
    // What the slot knows stands over the registers.
    fn config_read(&self, regs: &ConfigSpace, offset: u16, data: &mut [u8]) -> bool {
        regs.read(offset, data);
        let state = self.lock();
        let link = LINK_SPEED | LINK_WIDTH | if state.slot.occupied() { LINK_ACTIVE } else { 0 };
        for (register, value) in [
            (LINK_STATUS, link),
            (SLOT_CONTROL, state.slot.control()),
            (SLOT_STATUS, state.slot.status()),
        ] {
            let word = self.word(register);
            for (at, byte) in (offset..).zip(data.iter_mut()) {
                if word.contains(&at) {
                    *byte = value.to_le_bytes()[usize::from(at - word.start)];
                }
            }
        }
        true
    }

    fn config_written(&self, _regs: &ConfigSpace, offset: u16, data: &[u8]) {
        let (control, status) = (self.word(SLOT_CONTROL), self.word(SLOT_STATUS));
        let answer = self.with(|slot| {
            if touches(offset, data.len(), &status) {
                slot.write_status(written(&status, offset, data).0);
            }
            let (value, lanes) = written(&control, offset, data);
            if lanes == 0 { None } else { slot.write_control(value, lanes) }
        });
        if let (Some(answer), Some(hear)) = (answer, self.answer.get()) {
            hear(answer);
        }
    }

    fn msix_changed(&self, enabled: bool) {
        let mut state = self.lock();
        if enabled {
            self.pin.set(false);
        }
        // What is wanted still is told in the new way.
        state.wanted = false;
        self.interrupt(&mut state);
    }

    fn reset(&self) {
        self.with(PortSlot::reset);
    }
}
