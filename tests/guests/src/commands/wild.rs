//! `wild`: nonsense in configuration space, BARs and registers; after each kind the device is put
//! right and has to work.

use core::fmt;

use super::proof::{self, Broken};
use super::{Args, CommandError, Session, Tally, find_disk};
use crate::cpu;
use crate::machine::Machine;
use crate::mem::OutOfMemory;
use crate::pci::{self, Bar, Bus, Function, Space};
use crate::virtio::blk::Disk;
use crate::virtio::device::Device;

/// RAM at the end of what the program uses, over which a BAR is laid.
const RAM_PROBE: usize = 4096;
const MAGIC: u64 = 0x5afe_5afe_5afe_5afe;

/// Why a kind failed.
enum Failure {
    /// A register changed that must not, or reads other than it should.
    Register { offset: u8, expected: u32, found: u32 },
    /// RAM changed under a BAR.
    Ram(u64),
    /// No memory for the test.
    Memory(OutOfMemory),
    /// The device does not work when put right.
    Broken(Broken),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { offset, expected, found } => {
                write!(f, "register {offset:#04x} reads {found:#x}, not {expected:#x}")
            }
            Self::Ram(address) => write!(f, "RAM at {address:#x} does not keep its contents"),
            Self::Memory(error) => error.fmt(f),
            Self::Broken(broken) => write!(f, "then: {broken}"),
        }
    }
}

impl<T: Into<Broken>> From<T> for Failure {
    fn from(error: T) -> Self {
        Self::Broken(error.into())
    }
}

type Result<T> = core::result::Result<T, Failure>;
type Kind = fn(&mut Machine, &Function) -> Result<()>;

const KINDS: [(&str, Kind); 8] = [
    ("read-only registers", read_only_registers),
    ("absent functions", absent_functions),
    ("odd configuration accesses", odd_accesses),
    ("BARs over RAM and devices", misplaced_bars),
    ("a BAR above RAM", moved_bar),
    ("interrupt table", interrupt_table),
    ("common configuration", common_configuration),
    ("decoding switched off", decoding_off),
];

pub(super) fn run<'a>(
    session: &mut Session,
    args: &Args<'a>,
) -> core::result::Result<(), CommandError<'a>> {
    args.allow(&["disk"], &[])?;
    let number = args.get("disk")?.unwrap_or(0);
    let function = find_disk(&Bus::scan(), number)?;
    let mut tally = Tally::default();
    for (name, kind) in KINDS {
        let machine = &mut session.machine;
        let mark = machine.arena.mark();
        let result = kind(machine, &function)
            .and_then(|()| proof::prove(machine, &function).map_err(Failure::Broken));
        machine.arena.release(mark);
        tally.report(format_args!("wild disk{number} {name}"), result);
    }
    tally.finish(session, "wild");
    Ok(())
}

fn expect_register(function: &Function, offset: u8, expected: u32) -> Result<()> {
    let found = function.location.read32(offset);
    if found == expected { Ok(()) } else { Err(Failure::Register { offset, expected, found }) }
}

fn read_only_registers(_machine: &mut Machine, function: &Function) -> Result<()> {
    let location = function.location;
    for offset in [0x00, 0x08, 0x2c, 0x34] {
        let before = location.read32(offset);
        for value in [u32::MAX, 0, 0x5555_aaaa] {
            location.write32(offset, value);
            expect_register(function, offset, before)?;
        }
        location.write8(offset + 1, 0xff);
        location.write16(offset + 2, 0xffff);
        expect_register(function, offset, before)?;
    }
    Ok(())
}

fn absent_functions(_machine: &mut Machine, function: &Function) -> Result<()> {
    let absent = [
        pci::Location { function: 7, ..function.location }.address(0),
        pci::Location::default().address(0) | 0xff << 16,
        0x80ff_ff00,
    ];
    for address in absent {
        cpu::config_write(address | 4, cpu::Width::Long, u32::MAX);
        let found = cpu::config_read(address);
        if found != u32::MAX {
            return Err(Failure::Register { offset: 0, expected: u32::MAX, found });
        }
    }
    Ok(())
}

/// Bytes and words of the data port at every offset, and with the enable bit off.
fn odd_accesses(_machine: &mut Machine, function: &Function) -> Result<()> {
    let identity = u32::from(function.device) << 16 | u32::from(function.vendor);
    for port in 0xcfc..0xd00u16 {
        cpu::out32(0xcf8, function.location.address(0));
        let byte = u32::from(cpu::in8(port));
        let expected = identity >> (8 * (port & 3)) & 0xff;
        if byte != expected {
            return Err(Failure::Register { offset: (port & 3) as u8, expected, found: byte });
        }
        cpu::in16(port);
        cpu::out8(port, 0xff);
        cpu::out16(port, 0xffff);
    }
    for select in [0, 0x7fff_fffc, 0xffff_ffff] {
        cpu::out32(0xcf8, select);
        cpu::in8(0xcfd);
        cpu::in16(0xcfe);
    }
    expect_register(function, 0, identity)
}

fn memory_bars(function: &Function) -> impl Iterator<Item = &Bar> {
    function.bars.iter().flatten().filter(|bar| bar.space != Space::Io)
}

fn misplaced_bars(machine: &mut Machine, function: &Function) -> Result<()> {
    let ram = machine.arena.take(RAM_PROBE, 4096).map_err(Failure::Memory)?;
    ram.store(0, MAGIC);
    let over_ram = ram.address();
    let wide_top = 0xffff_ffff_ffff_0000;
    for bar in memory_bars(function) {
        for address in [0, over_ram, 0xfec0_0000, 0xfee0_0000, 0xffff_f000, wide_top] {
            pci::write_bar(function.location, bar, address);
            let kept = ram.load::<u64>(0) == MAGIC;
            ram.store(8, !address);
            if !kept || ram.load::<u64>(8) != !address {
                pci::write_bar(function.location, bar, bar.address);
                return Err(Failure::Ram(over_ram));
            }
        }
        pci::write_bar(function.location, bar, bar.address);
    }
    // All at one address.
    let bars = || memory_bars(function);
    let first = bars().next().map_or(0, |bar| bar.address);
    bars().for_each(|bar| pci::write_bar(function.location, bar, first));
    bars().for_each(|bar| pci::write_bar(function.location, bar, bar.address));
    bars().try_for_each(|bar| {
        let offset = pci::Location::bar_offset(bar.index);
        let low = function.location.read32(offset) & !15;
        let expected = bar.address as u32;
        let right = low == expected;
        if right { Ok(()) } else { Err(Failure::Register { offset, expected, found: low }) }
    })
}

/// Moves the 64-bit BARs above all RAM, where the device has to work, and back.
fn moved_bar(machine: &mut Machine, function: &Function) -> Result<()> {
    let bits = cpu::cpuid(0x8000_0008, 0)[0] & 0xff;
    let mut address = 1u64 << bits.clamp(36, 40).saturating_sub(1);
    let mut moved = *function;
    for bar in moved.bars.iter_mut().flatten() {
        if matches!(bar.space, Space::Memory { wide: true, .. }) {
            bar.address = address.next_multiple_of(bar.size);
            address = bar.address + bar.size;
            pci::write_bar(function.location, bar, bar.address);
        }
    }
    let result = proof::prove(machine, &moved);
    memory_bars(function).for_each(|bar| pci::write_bar(function.location, bar, bar.address));
    Ok(result?)
}

/// Entries masked and filled with nonsense, the capability's bits in all states.
fn interrupt_table(machine: &mut Machine, function: &Function) -> Result<()> {
    let mut disk = Disk::open(machine, function, &proof::OPTIONS)?;
    disk.device().scramble_interrupts();
    disk.close()?;
    Ok(())
}

fn common_configuration(machine: &mut Machine, function: &Function) -> Result<()> {
    let device = Device::open(machine, function).map_err(crate::virtio::blk::DiskError::from)?;
    device.scramble_common();
    Ok(())
}

/// Registers are touched while the function does not decode memory.
fn decoding_off(machine: &mut Machine, function: &Function) -> Result<()> {
    let device = Device::open(machine, function).map_err(crate::virtio::blk::DiskError::from)?;
    let command = function.location.command();
    function.location.set_command(0);
    device.status();
    device.scramble_common();
    function.location.set_command(0xffff);
    function.location.set_command(command);
    expect_register(function, 0, u32::from(function.device) << 16 | u32::from(function.vendor))
}
