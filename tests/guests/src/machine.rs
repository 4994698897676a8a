//! What the program knows and owns of the machine it runs on.

use core::fmt;

use crate::acpi::{self, PowerBlocks};
use crate::cpu::{self, vector};
use crate::ioapic;
use crate::mem::{self, Arena, OutOfMemory, PageTables, Region};
use crate::pci::{Function, Space};
use crate::start_info::{StartError, StartInfo};
use crate::time::{self, Frequency, Source};

/// The program uses no RAM above this.
const RAM_END: u64 = 32 << 20;
const SPARE_PAGES: usize = 8 * 4096;
const GSI_SERIAL: u8 = 4;
const GSI_ACPI: u8 = 9;

/// Where the linker has put things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// First address after the program.
    pub image_end: u64,
    /// The page table's root, 4 KiB, which maps the first 4 GiB.
    pub page_tables: u64,
}

/// Why the program cannot run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MachineError {
    /// The loader's information is of no use.
    Start(StartError),
    /// Too little RAM after the program.
    Memory(OutOfMemory),
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl From<OutOfMemory> for MachineError {
    fn from(error: OutOfMemory) -> Self {
        Self::Memory(error)
    }
}

/// The machine.
pub(crate) struct Machine {
    /// What the loader said.
    pub start: StartInfo,
    /// RAM for devices.
    pub arena: Arena,
    /// How to power off.
    pub power: PowerBlocks,
    tables: PageTables,
    io_apic: Region,
    clock_page: Region,
    frequency: Option<Frequency>,
}

impl Machine {
    /// Takes the machine over.
    ///
    /// # Safety
    /// `layout` must be true, `start_info` what the loader passed, and this called once.
    pub unsafe fn take(layout: Layout, start_info: u64) -> Result<Self, MachineError> {
        let start =
            StartInfo::parse(start_info, &mem::read_physical).map_err(MachineError::Start)?;
        let power = acpi::power_blocks(start.rsdp, &mem::read_physical);
        let end = start.ram_end(layout.image_end).min(RAM_END);
        // SAFETY: RAM after the program, by the loader's map, in the mapped first 4 GiB. What the
        // loader may have left there has been copied above.
        let mut arena = unsafe { Arena::new(layout.image_end, end) };
        // SAFETY: the root is not a Rust object; only `tables` uses it from now on.
        let root = unsafe { Region::from_raw(layout.page_tables, 4096) };
        let mut tables = PageTables::new(root, arena.take(SPARE_PAGES, 4096)?);
        let clock_page = arena.take(64, 64)?;
        // SAFETY: the I/O APIC's page is never RAM.
        let io_apic = unsafe { tables.map_window(ioapic::ADDRESS, ioapic::LEN) };
        let io_apic = io_apic.unwrap_or(Region::EMPTY);
        Ok(Self { start, arena, power, tables, io_apic, clock_page, frequency: None })
    }

    /// Makes a device's registers accessible; `None` when they would lie over RAM or the address
    /// cannot be mapped.
    pub fn map_device(&mut self, address: u64, len: usize) -> Option<Region> {
        let end = address.checked_add(len as u64)?;
        if self.start.overlaps_ram(address, end) {
            return None;
        }
        // SAFETY: no RAM is in the range, so no Rust object is.
        unsafe { self.tables.map_window(address, len) }
    }

    /// Maps `len` bytes at `offset` into memory BAR `index` of `function`.
    pub fn map_bar(
        &mut self,
        function: &Function,
        index: u8,
        offset: u32,
        len: usize,
    ) -> Option<Region> {
        let bar = function.bars.get(usize::from(index)).copied().flatten()?;
        let inside = u64::from(offset).checked_add(len as u64)? <= bar.size;
        if !inside || bar.space == Space::Io || bar.address == 0 {
            return None;
        }
        self.map_device(bar.address + u64::from(offset), len)
    }

    /// Routes the serial port's and ACPI's interrupts to this processor.
    pub fn route_interrupts(&self) {
        let apic_id = cpu::apic_id();
        ioapic::route(self.io_apic, GSI_SERIAL, vector::SERIAL, apic_id);
        ioapic::route(self.io_apic, GSI_ACPI, vector::ACPI, apic_id);
    }

    /// Takes the command line's word for the frequency of the TSC.
    pub fn set_frequency(&mut self, khz: u64) {
        self.frequency = Some(Frequency { khz: khz.max(1), source: Source::CommandLine });
    }

    /// The frequency of the TSC, found out at the first call (up to 40 ms).
    pub fn frequency(&mut self) -> Option<Frequency> {
        if self.frequency.is_none() {
            self.frequency = time::frequency(self.clock_page);
        }
        self.frequency
    }
}
