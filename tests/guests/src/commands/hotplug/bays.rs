//! Where devices come and go: slots of the root bus, and those of root ports.

use core::ops::Range;

use crate::commands::Tally;
use crate::commands::scsi::Wrong;
use crate::machine::Machine;
use crate::mem::Arena;
use crate::pattern::{self, POISON};
use crate::pci::port::{Port, Power};
use crate::pci::{Bus, Function, Location, Windows, function_at};
use crate::slots;
use crate::virtio::blk::{Disk, DiskError, Options, SECTOR};
use crate::virtio::device::{TYPE_BLOCK, TYPE_NET, device_type};
use crate::virtio::net::{Echo, Net};
use crate::virtio::request::{Op, Status};

const PORTS_MAX: usize = 4;
/// Slots of the root bus that may be in use together.
const ROOT_BAYS: usize = 4;
const BAYS: usize = PORTS_MAX + ROOT_BAYS;
/// RAM for the driver of a device that comes.
const RAM: usize = 256 << 10;
/// Addresses for its BARs; above those that the scan of the bus gives.
const WINDOWS: u64 = 0xe000_0000;
const WINDOW: u64 = 1 << 20;
const BYTES: u32 = 4096;
/// Blocks of a disk that are checked.
const BLOCKS: u64 = 8;

/// A device that has come, with its driver.
#[allow(clippy::large_enum_variant, reason = "there is no heap")]
enum Live {
    Disk(Disk),
    Net(Net),
}

impl Live {
    /// Sets the device up and sees that it works.
    fn open(machine: &mut Machine, function: &Function) -> Result<Self, Wrong> {
        match device_type(function) {
            Some(TYPE_BLOCK) => {
                let options = Options {
                    queues: 1,
                    depth: 1,
                    slot_bytes: BYTES,
                    segments: 1,
                    indirect: false,
                };
                let mut disk = Disk::open(machine, function, &options)?;
                check_disk(&mut disk)?;
                Ok(Self::Disk(disk))
            }
            Some(TYPE_NET) => {
                let mut net = Net::open(machine, function)?;
                check_net(&mut net)?;
                Ok(Self::Net(net))
            }
            _ => Err(Wrong::Other("no driver for this device")),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Disk(_) => "disk",
            Self::Net(_) => "net",
        }
    }

    fn close(self) -> Result<(), DiskError> {
        match self {
            Self::Disk(mut disk) => disk.close(),
            Self::Net(net) => net.close(),
        }
    }
}

fn check_disk(disk: &mut Disk) -> Result<(), Wrong> {
    let request = |disk: &mut Disk, op, block| {
        let bytes = if op == Op::Flush { 0 } else { BYTES };
        let done = disk.request(op, block * u64::from(BYTES) / SECTOR, bytes)?;
        let failed = done.status != Status::OK;
        if failed { Err(Wrong::Other("a request failed")) } else { Ok(()) }
    };
    for block in 0..BLOCKS {
        pattern::fill(disk.data(0), block * u64::from(BYTES), block);
        request(disk, Op::Write, block)?;
    }
    request(disk, Op::Flush, 0)?;
    for block in 0..BLOCKS {
        pattern::fill_with(disk.data(0), POISON);
        request(disk, Op::Read, block)?;
        pattern::compare(disk.data(0), block * u64::from(BYTES), block)?;
    }
    Ok(())
}

fn check_net(net: &mut Net) -> Result<(), Wrong> {
    for seed in 0..BLOCKS {
        match net.echo(seed)? {
            Echo::Same => {}
            Echo::Length(_) => return Err(Wrong::Other("a frame of another length")),
            Echo::Other(mismatch) => return Err(mismatch.into()),
        }
    }
    Ok(())
}

/// What holds a device.
#[derive(Clone, Copy)]
enum Socket {
    /// Any slot of the root bus.
    Free,
    /// This slot of the root bus.
    Root(u8),
    Port(Port),
}

/// Room for one device.
struct Bay {
    socket: Socket,
    window: Range<u64>,
    arena: Arena,
    mark: u64,
    live: Option<Live>,
    occupied: bool,
}

impl Bay {
    fn is_in(&self, slot: u8) -> bool {
        matches!(self.socket, Socket::Root(own) if own == slot)
    }

    /// Drives the device that has come to `location`.
    fn plug(&mut self, machine: &mut Machine, location: Location, tally: &mut Tally) {
        self.occupied = true;
        match self.open(machine, location) {
            Ok(live) => {
                let name = live.name();
                self.live = Some(live);
                tally.report(format_args!("plug {location} {name}"), Ok::<_, Wrong>(()));
            }
            Err(wrong) => tally.report(format_args!("plug {location}"), Err(wrong)),
        }
    }

    fn open(&mut self, machine: &mut Machine, location: Location) -> Result<Live, Wrong> {
        let mut windows = Windows::memory(self.window.start, self.window.end);
        let function = function_at(location, &mut windows);
        let function = function.ok_or(Wrong::Other("nothing answers there"))?;
        // The driver's memory goes back by itself, whatever has come meanwhile.
        core::mem::swap(&mut machine.arena, &mut self.arena);
        let live = Live::open(machine, &function);
        core::mem::swap(&mut machine.arena, &mut self.arena);
        live
    }

    /// Ends the driver.
    fn close(&mut self) -> Result<(), DiskError> {
        self.occupied = false;
        let result = self.live.take().map_or(Ok(()), Live::close);
        self.arena.release(self.mark);
        result
    }
}

/// All room for devices.
pub(super) struct Bays([Option<Bay>; BAYS]);

impl Bays {
    /// Sets up the root ports of `bus`, and room for devices of the root bus.
    pub fn open(machine: &mut Machine, bus: &Bus) -> Result<Self, Wrong> {
        let mut bays = Self([const { None }; BAYS]);
        let window = |index: usize| {
            let start = WINDOWS + index as u64 * WINDOW;
            start..start + WINDOW
        };
        let mut count = 0;
        for function in bus.functions() {
            if count == PORTS_MAX {
                break;
            }
            let Some(port) = Port::open(machine, function, count as u8 + 1, &window(count)) else {
                continue;
            };
            bays.0[count] = Some(new_bay(machine, Socket::Port(port), window(count))?);
            count += 1;
        }
        for index in count..count + ROOT_BAYS {
            bays.0[index] = Some(new_bay(machine, Socket::Free, window(index))?);
        }
        Ok(bays)
    }

    fn each(&mut self) -> impl Iterator<Item = &mut Bay> {
        self.0.iter_mut().flatten()
    }

    /// Does what the slots of the root bus ask for.
    pub fn serve_root(&mut self, machine: &mut Machine, tally: &mut Tally) {
        let changes = slots::take();
        let named = |bits: u32| (0..32u8).filter(move |slot| bits >> slot & 1 != 0);
        for slot in named(changes.down) {
            // One that was ejected shows until it is gone.
            let Some(bay) = self.each().find(|bay| bay.is_in(slot)) else { continue };
            bay.socket = Socket::Free;
            let result = bay.close();
            slots::eject(1 << slot);
            tally.report(format_args!("unplug {}", root(slot)), result);
        }
        for slot in named(changes.up) {
            let free = self.each().find(|bay| matches!(bay.socket, Socket::Free));
            match free {
                Some(bay) => {
                    bay.socket = Socket::Root(slot);
                    bay.plug(machine, root(slot), tally);
                }
                None => tally.report(format_args!("plug {}", root(slot)), Err("no room for it")),
            }
        }
    }

    /// Does what the slots of root ports ask for.
    pub fn serve_ports(&mut self, machine: &mut Machine, tally: &mut Tally) {
        for bay in self.each() {
            let Socket::Port(port) = bay.socket else { continue };
            let news = port.news();
            if bay.occupied && news.button {
                port.set_power(Power::Blinks);
                let result = bay.close();
                port.set_power(Power::Off);
                tally.report(format_args!("unplug {}", port.below()), result);
            } else if !bay.occupied && news.present {
                port.set_power(Power::On);
                bay.plug(machine, port.below(), tally);
            }
        }
    }

    /// Ends the drivers of what is there still.
    pub fn close(mut self) -> Result<(), Wrong> {
        self.each().try_for_each(|bay| Ok(bay.close()?))
    }
}

fn root(slot: u8) -> Location {
    Location { bus: 0, device: slot, function: 0 }
}

fn new_bay(machine: &mut Machine, socket: Socket, window: Range<u64>) -> Result<Bay, Wrong> {
    let arena = machine.arena.split(RAM).map_err(DiskError::from)?;
    let mark = arena.mark();
    Ok(Bay { socket, window, arena, mark, live: None, occupied: false })
}
