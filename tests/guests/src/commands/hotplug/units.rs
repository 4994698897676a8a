//! The units of a SCSI host: one is written and read all the time, the others come and go.

use crate::commands::Tally;
use crate::commands::scsi::{self, Wrong};
use crate::machine::Machine;
use crate::pattern;
use crate::pci::Function;
use crate::virtio::scsi::{Data, Event, Host, Place};

/// The unit that stays.
const FIXED: Place = Place { target: 0, lun: [0, 0] };
/// How much of a unit that has come is checked.
const SPAN: u64 = 64 << 10;
const BYTES: usize = 4096;
/// REPORTED LUNS DATA HAS CHANGED.
const LUNS_CHANGED: [u8; 3] = [6, 0x3f, 0x0e];
const BLOCK: u64 = 512;
/// Pieces of the fixed unit that are used.
const PIECES: u64 = 64;

/// The host and what was done on the unit that stays.
pub(super) struct Units {
    host: Host,
    rounds: u64,
}

impl Units {
    /// Sets the host up.
    pub fn open(machine: &mut Machine, function: &Function) -> Result<Self, Wrong> {
        let mut host = Host::open(machine, function)?;
        scsi::hear_attentions(&mut host, FIXED)?;
        Ok(Self { host, rounds: 0 })
    }

    /// Looks at units that have come or gone, then uses the one that stays. How many blocks of that
    /// were verified.
    pub fn step(&mut self, tally: &mut Tally) -> Result<u64, Wrong> {
        while let Some(event) = self.host.take_event()? {
            self.look(&event, tally);
        }
        self.rounds += 1;
        let lba = self.rounds % PIECES * (BYTES as u64 / BLOCK);
        let data = self.host.data.slice(0, BYTES);
        let blocks = (BYTES as u64 / BLOCK) as u32;
        pattern::fill(data, lba * BLOCK, self.rounds);
        let write = scsi::transfer(0x8a, lba, blocks);
        self.run(&write, Data::Out(BYTES as u32))?;
        pattern::fill_with(data, pattern::POISON);
        let read = scsi::transfer(0x88, lba, blocks);
        self.run(&read, Data::In(BYTES as u32))?;
        pattern::compare(data, lba * BLOCK, self.rounds)?;
        Ok(1)
    }

    /// Runs a command on the unit that stays, which may have to tell first that others came or went.
    fn run(&mut self, cdb: &[u8], data: Data) -> Result<(), Wrong> {
        let answer = self.host.run(FIXED, cdb, data)?;
        let again = answer.is_attention() && answer.sense == LUNS_CHANGED;
        let answer = if again { self.host.run(FIXED, cdb, data)? } else { answer };
        answer.good().map_err(Wrong::Answer)
    }

    fn look(&mut self, event: &Event, tally: &mut Tally) {
        let place = event.place;
        let lun = u16::from_be_bytes(place.lun) & 0x3fff;
        match (event.kind, event.reason) {
            (Event::TRANSPORT_RESET, Event::RESCAN) => {
                let result = scsi::check_unit(&mut self.host, place, SPAN);
                tally.report(format_args!("plug unit {}:{lun}", place.target), result);
            }
            (Event::TRANSPORT_RESET, Event::REMOVED) => {
                let result = scsi::check_gone(&mut self.host, place);
                tally.report(format_args!("unplug unit {}:{lun}", place.target), result);
            }
            (kind, reason) => {
                let result = Err("nobody knows it");
                tally.report(format_args!("event {kind:#x} with reason {reason:#x}"), result);
            }
        }
    }

    /// Stops the host.
    pub fn close(&self) -> Result<(), Wrong> {
        Ok(self.host.close()?)
    }
}
