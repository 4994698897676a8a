//! A PCI function: its registers, what they switch, and the device behind them.

use super::bar::{BAR_COUNT, Bar, Bars};
use super::bridge::{self, BRIDGE_BAR_COUNT, PciBridge};
use super::config::{
    BAR0, COMMAND, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, ConfigBuilder,
    ConfigSpace, HEADER_MULTIFUNCTION, HEADER_TYPE, INTERRUPT_LINE, INTERRUPT_PIN, Identity,
    LayoutError, STATUS, STATUS_INTERRUPT, touches,
};
use super::decode::{BAR_PRIORITY, BarRegion, PciWindows};
use super::device::PciDevice;
use super::intx::{IntxPin, SharedLine};
use super::msix::{MSIX_CAPABILITY, Msix, MsixPlace};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use vcpu::address_space::{AddressSpace, RegionId};
use vcpu::bus::{BusDevice, Space};

const COMMAND_REPORTED: u16 = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_DISABLE;

/// The declaration of a function.
pub struct FunctionSpec {
    config: ConfigBuilder,
    bars: Bars,
    msix: Option<(Arc<Msix>, MsixPlace)>,
    msix_control: Range<u16>,
    intx: Option<Arc<IntxPin>>,
    hook: Range<u16>,
    bridge: Option<Arc<PciBridge>>,
}

impl FunctionSpec {
    /// A conventional function (256 bytes of configuration space) without BARs or capabilities.
    pub fn new(identity: Identity) -> Self {
        Self::with_space(&identity, false)
    }

    /// The same with the 4096 bytes of PCI Express.
    pub fn express(identity: Identity) -> Self {
        Self::with_space(&identity, true)
    }

    /// A PCI Express bridge to the bus of `bridge`; the identity's subsystem is not shown.
    pub fn bridge(identity: Identity, bridge: &Arc<PciBridge>) -> Self {
        let mut new = Self::express(identity);
        bridge::lay_out(&mut new.config);
        new.bridge = Some(Arc::clone(bridge));
        new
    }

    fn with_space(identity: &Identity, extended: bool) -> Self {
        Self {
            config: ConfigBuilder::new(identity, extended),
            bars: Bars::default(),
            msix: None,
            msix_control: 0..0,
            intx: None,
            hook: 0..0,
            bridge: None,
        }
    }

    /// The layout of the registers, for what has no method here.
    pub fn config(&mut self) -> &mut ConfigBuilder {
        &mut self.config
    }

    /// Declares `bar` at register `index`.
    pub fn bar(&mut self, index: usize, bar: Bar) -> Result<(), LayoutError> {
        if self.bridge.is_some() && index >= BRIDGE_BAR_COUNT {
            let (size, reason) = (bar.size(), "a bridge has two registers");
            return Err(LayoutError::Bar { index, size, reason });
        }
        self.bars.declare(index, bar, &mut self.config)
    }

    /// Appends a capability; see [`ConfigBuilder::capability`].
    pub fn capability(&mut self, id: u8, body: &[u8], mask: &[u8]) -> Result<u8, LayoutError> {
        self.config.capability(id, body, mask)
    }

    /// Appends the MSI-X capability. The table and the PBA must lie in declared BARs, at multiples
    /// of 8, and not overlap.
    pub fn msix(&mut self, msix: &Arc<Msix>, place: MsixPlace) -> Result<(), LayoutError> {
        let table = self.check(place.table_bar, place.table_offset, msix.table_size())?;
        let pba = self.check(place.pba_bar, place.pba_offset, msix.pba_size())?;
        if place.table_bar == place.pba_bar && table.start < pba.end && pba.start < table.end {
            let (index, size) = (place.pba_bar, pba.end);
            return Err(LayoutError::Bar { index, size, reason: "MSI-X table and PBA overlap" });
        }
        let (body, mask) = msix.capability(place);
        let at = u16::from(self.config.capability(MSIX_CAPABILITY, &body, &mask)?);
        self.msix_control = at + 2..at + 4;
        self.msix = Some((Arc::clone(msix), place));
        Ok(())
    }

    fn check(&self, index: usize, offset: u32, len: u64) -> Result<Range<u64>, LayoutError> {
        let range = u64::from(offset)..u64::from(offset) + len;
        let error = |reason| LayoutError::Bar { index, size: range.end, reason };
        let bar = self.bars.get(index).ok_or(error("MSI-X lies in a BAR that is not declared"))?;
        if bar.space() != Space::Mmio || range.end > bar.size() || !offset.is_multiple_of(8) {
            return Err(error("MSI-X does not fit the BAR"));
        }
        Ok(range)
    }

    /// Gives the function INTA, driven through `pin`.
    pub fn intx(&mut self, pin: &Arc<IntxPin>) {
        self.config.set(INTERRUPT_PIN, &[1]);
        self.intx = Some(Arc::clone(pin));
    }

    /// Has accesses that reach into `offsets` shown to the device.
    pub fn hook(&mut self, offsets: Range<u16>) {
        self.hook = offsets;
    }

    /// Sets the multi-function bit, which function 0 of a device with several functions needs.
    pub fn multifunction(&mut self, on: bool) {
        let kind = u8::from(self.bridge.is_some());
        let bit = if on { HEADER_MULTIFUNCTION } else { 0 };
        self.config.set(HEADER_TYPE, &[kind | bit]);
    }
}

/// What a function is given when it is plugged in.
#[derive(Clone)]
pub(super) struct Attachment {
    // Weak: the spaces hold the configuration ports, which hold the functions.
    pub(super) pio: Weak<AddressSpace>,
    pub(super) mmio: Weak<AddressSpace>,
    pub(super) windows: Arc<PciWindows>,
    pub(super) line: Arc<SharedLine>,
    pub(super) gsi: u8,
    /// The bridge that accesses have to pass.
    pub(super) bridge: Option<Weak<PciBridge>>,
}

impl Attachment {
    fn space(&self, space: Space) -> Option<Arc<AddressSpace>> {
        match space {
            Space::Pio => self.pio.upgrade(),
            Space::Mmio => self.mmio.upgrade(),
        }
    }

    /// Whether accesses to `size` bytes at `base` come this far.
    fn admits(&self, space: Space, base: u64, size: u64) -> bool {
        let forwarded = self.bridge.as_ref().is_none_or(|bridge| {
            bridge.upgrade().is_some_and(|bridge| bridge.forwards(space, base, size))
        });
        forwarded && self.windows.admit(space, base, size)
    }
}

#[derive(Default)]
struct Decoding {
    attachment: Option<Attachment>,
    mapped: [Option<(u64, RegionId)>; BAR_COUNT],
    command: u16,
}

/// A PCI function.
///
/// Configuration reads are lock-free. Configuration writes and everything they switch (BAR regions,
/// MSI-X, INTx) are serialised by one lock per function, off the data path.
pub struct Function {
    id: String,
    config: ConfigSpace,
    bars: Bars,
    regions: [Option<Arc<BarRegion>>; BAR_COUNT],
    msix: Option<Arc<Msix>>,
    msix_control: Range<u16>,
    intx: Option<Arc<IntxPin>>,
    hook: Range<u16>,
    bridge: Option<Arc<PciBridge>>,
    device: Arc<dyn PciDevice>,
    decoding: Mutex<Decoding>,
}

impl Function {
    /// The function that `spec` declares, with `device` behind it. `id` names it in messages.
    pub fn new(id: impl Into<String>, spec: FunctionSpec, device: Arc<dyn PciDevice>) -> Arc<Self> {
        let regions = std::array::from_fn(|bar| {
            spec.bars.get(bar)?;
            let (device, msix) = (Arc::clone(&device), spec.msix.clone());
            Some(Arc::new(BarRegion { bar, device, msix }))
        });
        Arc::new(Self {
            id: id.into(),
            config: spec.config.build(),
            bars: spec.bars,
            regions,
            msix: spec.msix.map(|(msix, _)| msix),
            msix_control: spec.msix_control,
            intx: spec.intx,
            hook: spec.hook,
            bridge: spec.bridge,
            device,
            decoding: Mutex::default(),
        })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its registers, for the device's side.
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// The device behind it.
    pub fn device(&self) -> &Arc<dyn PciDevice> {
        &self.device
    }

    /// The bridge that it is, if it is one.
    pub fn bridge(&self) -> Option<&Arc<PciBridge>> {
        self.bridge.as_ref()
    }

    /// The BAR declared at register `index`.
    pub fn bar(&self, index: usize) -> Option<Bar> {
        self.bars.get(index)
    }

    /// The Command register.
    pub fn command(&self) -> u16 {
        self.config.u16(COMMAND)
    }

    /// Where BAR `index` decodes now.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        let decoding = self.lock();
        decoding.mapped.get(index).copied().flatten().map(|(base, _)| base)
    }

    /// A guest's configuration read: 1, 2, 4 or 8 bytes.
    pub fn config_read(&self, offset: u16, data: &mut [u8]) {
        if touches(offset, data.len(), &self.hook)
            && self.device.config_read(&self.config, offset, data)
        {
            return;
        }
        self.config.read(offset, data);
        if self.intx.as_ref().is_some_and(|pin| pin.asserted())
            && let Some(at) = STATUS.checked_sub(offset)
            && let Some(status) = data.get_mut(usize::from(at))
        {
            *status |= STATUS_INTERRUPT as u8;
        }
    }

    /// A guest's configuration write: 1, 2, 4 or 8 bytes.
    pub fn config_write(&self, offset: u16, data: &[u8]) {
        let mut decoding = self.lock();
        self.config.write(offset, data);
        if touches(offset, data.len(), &(COMMAND..COMMAND + 2)) {
            self.command_written(&mut decoding);
        }
        if touches(offset, data.len(), &(COMMAND..BAR0 + 4 * BAR_COUNT as u16)) {
            self.decode(&mut decoding);
        }
        if let Some(bridge) = &self.bridge
            && bridge::FORWARDING.iter().any(|range| touches(offset, data.len(), range))
        {
            bridge.follow(&self.config);
        }
        if touches(offset, data.len(), &self.msix_control)
            && let Some(msix) = &self.msix
            && msix.set_control(self.config.u16(self.msix_control.start))
        {
            self.device.msix_changed(msix.enabled());
        }
        if touches(offset, data.len(), &self.hook) {
            self.device.config_written(&self.config, offset, data);
        }
    }

    /// Power-on state: nothing decodes, MSI-X and INTx are off, then the device resets itself, then
    /// every register is as it was when the machine started. Runs in `main`; may take the
    /// accelerator's locks.
    pub fn reset(&self) {
        let mut decoding = self.lock();
        for bar in 0..BAR_COUNT {
            self.unmap(&mut decoding, bar);
        }
        if let Some(msix) = &self.msix {
            let was_enabled = msix.enabled();
            msix.reset();
            if was_enabled {
                self.device.msix_changed(false);
            }
        }
        self.device.reset();
        if let Some(pin) = &self.intx {
            pin.set(false);
        }
        self.config.reset();
        self.wire(&decoding);
        self.command_written(&mut decoding);
        if let Some(bridge) = &self.bridge {
            bridge.follow(&self.config);
        }
    }

    /// Connects the function to the machine; its BARs decode as its registers say.
    pub(super) fn attach(&self, attachment: Attachment) {
        let mut decoding = self.lock();
        if let Some(bridge) = &self.bridge {
            bridge.connect(Some(&attachment));
        }
        decoding.attachment = Some(attachment);
        self.wire(&decoding);
        self.decode(&mut decoding);
    }

    /// What reaches the function from above has changed.
    pub(super) fn redecode(&self) {
        self.decode(&mut self.lock());
    }

    /// Takes the function off the machine: nothing decodes, its interrupt pin drives nothing.
    pub(super) fn detach(&self) {
        let mut decoding = self.lock();
        for bar in 0..BAR_COUNT {
            self.unmap(&mut decoding, bar);
        }
        decoding.attachment = None;
        self.wire(&decoding);
        if let Some(bridge) = &self.bridge {
            bridge.connect(None);
        }
    }

    fn command_written(&self, decoding: &mut Decoding) {
        let command = self.command();
        let changed = (command ^ decoding.command) & COMMAND_REPORTED != 0;
        decoding.command = command;
        if let Some(pin) = &self.intx {
            pin.set_disabled(command & COMMAND_INTX_DISABLE != 0);
        }
        if changed {
            self.device.command_changed(command);
        }
    }

    // The line register holds what firmware would put there, since there is none.
    fn wire(&self, decoding: &Decoding) {
        let Some(pin) = &self.intx else { return };
        let attachment = decoding.attachment.as_ref();
        pin.connect(attachment.map(|at| Arc::clone(&at.line)));
        if let Some(attachment) = attachment {
            self.config.set_u8(INTERRUPT_LINE, attachment.gsi);
        }
    }

    // Brings the regions in line with the registers. All that has to go goes first, so that two
    // BARs may swap places.
    fn decode(&self, decoding: &mut Decoding) {
        let wanted: [Option<u64>; BAR_COUNT] =
            std::array::from_fn(|bar| self.admitted(decoding, bar));
        for (bar, wanted) in wanted.iter().enumerate() {
            if decoding.mapped[bar].map(|(base, _)| base) != *wanted {
                self.unmap(decoding, bar);
            }
        }
        for (bar, wanted) in wanted.iter().enumerate() {
            if let (Some(base), None) = (*wanted, decoding.mapped[bar]) {
                self.map(decoding, bar, base);
            }
        }
    }

    fn admitted(&self, decoding: &Decoding, index: usize) -> Option<u64> {
        let bar = self.bars.get(index)?;
        let base = self.bars.decoded_at(index, &self.config, decoding.command)?;
        let attachment = decoding.attachment.as_ref()?;
        attachment.admits(bar.space(), base, bar.size()).then_some(base)
    }

    fn map(&self, decoding: &mut Decoding, index: usize, base: u64) {
        let attachment = decoding.attachment.as_ref();
        let (Some(bar), Some(region)) = (self.bars.get(index), self.regions[index].as_ref()) else {
            return;
        };
        let Some(space) = attachment.and_then(|at| at.space(bar.space())) else { return };
        let device: Arc<dyn BusDevice> = Arc::<BarRegion>::clone(region);
        match space.map(base, bar.size(), BAR_PRIORITY, device) {
            Ok(region) => {
                decoding.mapped[index] = Some((base, region));
                self.device.bar_mapped(index, Some(base));
            }
            Err(error) => {
                let device = &self.id;
                tracing::warn!(%device, bar = index, base, %error, "a BAR stays unmapped");
            }
        }
    }

    fn unmap(&self, decoding: &mut Decoding, index: usize) {
        let Some((_, region)) = decoding.mapped[index].take() else { return };
        self.device.bar_mapped(index, None);
        let space = self.bars.get(index).map(|bar| bar.space());
        let attachment = decoding.attachment.as_ref();
        if let Some(space) = attachment.zip(space).and_then(|(at, space)| at.space(space)) {
            space.unmap(region);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Decoding> {
        self.decoding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
