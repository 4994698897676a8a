//! Everything at fixed addresses: made and mapped in one go.

use crate::acpi::{
    self, AcpiConfig, AcpiError, AcpiPm, GPE0_LEN, GPE0_PORT, GpePorts, HOTPLUG_LEN, HOTPLUG_PORT,
    PM_LEN, PM1_EVENT_PORT, PciHotplug, SCI_GSI,
};
use crate::clock::Clock;
use crate::legacy::{
    Cmos, ConsoleOut, DEBUG_CONSOLE_PORT, DEBUG_EXIT_PORT, DebugConsole, DebugExit, FW_CFG_LEN,
    FW_CFG_PORT, FwCfg, I8042, I8042_COMMAND_PORT, I8042_DATA_PORT, RTC_LEN, RTC_PORT, SERIAL_IRQ,
    SERIAL_LEN, SERIAL_PORT, Serial,
};
use crate::pci::{
    CONFIG_PORTS, CONFIG_PORTS_LEN, ECAM_LEN, FIXED_PRIORITY, PciRoot, PciRootConfig, PciWindows,
};
use crate::request::{GuestRequest, RequestSink};
use std::ops::Range;
use std::sync::Arc;
use vcpu::address_space::{AddressSpace, MapError};
use vcpu::bus::BusDevice;
use vcpu::irq::Platform;
use vcpu::memory::{Ram, layout};

/// Ports that BARs may decode at; below are the devices of the board.
const PCI_IO_WINDOW: Range<u64> = 0x1000..0x1_0000;

/// What a board is made of.
pub struct BoardConfig {
    /// Interrupts and doorbells.
    pub platform: Arc<dyn Platform>,
    /// Port space.
    pub pio: Arc<AddressSpace>,
    /// Memory space.
    pub mmio: Arc<AddressSpace>,
    /// Bytes of RAM.
    pub ram_size: u64,
    /// Processors.
    pub cpus: u32,
    /// Processors there may be.
    pub cpus_max: u32,
    /// The 64-bit PCI window; may be empty.
    pub pci64: Range<u64>,
    /// The time that devices see.
    pub clock: Arc<dyn Clock>,
    /// Where the serial port transmits to.
    pub console: Arc<dyn ConsoleOut>,
    /// Where the debug console at port 0xe9 writes to, if there is one.
    pub debug_console: Option<Arc<dyn ConsoleOut>>,
    /// Takes what the guest asks of the machine.
    pub requests: RequestSink,
}

/// The board of a machine.
///
/// A value: it ends with the address spaces that it was mapped into. Made, reset and extended in
/// `main`; its parts say themselves what may be called from elsewhere.
pub struct Board {
    /// The PCI root.
    pub pci: Arc<PciRoot>,
    /// COM1.
    pub serial: Arc<Serial>,
    /// Power management.
    pub pm: Arc<AcpiPm>,
    /// How the guest hears of devices that come and go on the root bus.
    pub hotplug: Arc<PciHotplug>,
    cmos: Arc<Cmos>,
    i8042: Arc<I8042>,
    fw_cfg: Arc<FwCfg>,
    pci64: Range<u64>,
    /// PCI functions hold these weakly, since they are in them.
    _spaces: [Arc<AddressSpace>; 2],
}

impl Board {
    /// Makes all devices and maps them.
    pub fn new(config: BoardConfig) -> Result<Self, MapError> {
        let BoardConfig { platform, pio, mmio, requests, clock, .. } = config;
        let low = config.ram_size.min(layout::LOW_RAM_END);
        let pci = PciRoot::new(
            &*platform,
            PciRootConfig {
                pio: Arc::clone(&pio),
                mmio: Arc::clone(&mmio),
                windows: PciWindows {
                    io: PCI_IO_WINDOW,
                    memory32: layout::PCI32,
                    memory64: config.pci64.clone(),
                },
            },
        );
        let (sink, clock_of_pm) = (Arc::clone(&requests), Arc::clone(&clock));
        let pm = AcpiPm::new(platform.irq_line(SCI_GSI), clock_of_pm, sink);
        let board = Self {
            pci: Arc::new(pci),
            serial: Serial::new(platform.irq_line(SERIAL_IRQ), config.console),
            hotplug: PciHotplug::new(Arc::clone(&pm)),
            pm,
            cmos: Cmos::new(clock, low, config.ram_size - low, config.cpus),
            i8042: I8042::new(Arc::clone(&requests)),
            fw_cfg: FwCfg::new(config.ram_size, config.cpus, config.cpus_max),
            pci64: config.pci64,
            _spaces: [Arc::clone(&pio), Arc::clone(&mmio)],
        };
        board.map_ports(&pio, &requests)?;
        if let Some(out) = config.debug_console {
            let device = DebugConsole::new(out);
            pio.map(DEBUG_CONSOLE_PORT.into(), 1, FIXED_PRIORITY, device)?;
        }
        mmio.map(layout::ECAM.start, ECAM_LEN, FIXED_PRIORITY, board.pci.ecam())?;
        Ok(board)
    }

    fn map_ports(&self, pio: &AddressSpace, requests: &RequestSink) -> Result<(), MapError> {
        let sink = Arc::clone(requests);
        let reset = Arc::new(move || sink(GuestRequest::Reset));
        let devices: [(u64, u64, Arc<dyn BusDevice>); 10] = [
            (I8042_DATA_PORT.into(), 1, self.i8042.data_port()),
            (I8042_COMMAND_PORT.into(), 1, self.i8042.command_port()),
            (RTC_PORT.into(), RTC_LEN.into(), self.cmos.clone()),
            (DEBUG_EXIT_PORT.into(), 4, DebugExit::new(Arc::clone(requests))),
            (SERIAL_PORT.into(), SERIAL_LEN.into(), self.serial.clone()),
            (FW_CFG_PORT.into(), FW_CFG_LEN.into(), self.fw_cfg.clone()),
            (PM1_EVENT_PORT.into(), PM_LEN.into(), self.pm.clone()),
            (GPE0_PORT.into(), GPE0_LEN.into(), GpePorts::new(Arc::clone(&self.pm))),
            (HOTPLUG_PORT.into(), HOTPLUG_LEN.into(), self.hotplug.clone()),
            (CONFIG_PORTS, CONFIG_PORTS_LEN, self.pci.config_ports(reset)),
        ];
        pio.batch(|batch| {
            for (base, len, device) in devices {
                batch.map(base, len, FIXED_PRIORITY, device)?;
            }
            Ok(())
        })
    }

    /// Writes the ACPI tables into `ram` for processors with `apic_ids`, the boot processor first.
    /// Returns the address of the RSDP. Called before the guest starts and again at each reset,
    /// since the guest may have overwritten them.
    pub fn install_acpi(&self, ram: &Ram, apic_ids: &[u32]) -> Result<u64, AcpiError> {
        let config = AcpiConfig {
            apic_ids: apic_ids.to_vec(),
            pci64: self.pci64.clone(),
            bridges: self.pci.bridges(),
        };
        acpi::install(ram, &config)
    }

    /// Everything to power-on state, in tree order: the PCI functions, then the fixed devices. Runs
    /// in `main` while no vCPU does.
    pub fn reset(&self) {
        self.pci.reset();
        self.pm.reset();
        self.hotplug.reset();
        self.serial.reset();
        self.cmos.reset();
        self.i8042.reset();
        self.fw_cfg.reset();
    }
}

#[cfg(test)]
mod tests;
