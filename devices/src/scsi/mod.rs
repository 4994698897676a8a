//! SCSI logical units over disks, and the bus they are found on.
//!
//! | module | what lives there | source |
//! |---|---|---|
//! | [`Command`] (`cdb`, `opcodes`) | from a CDB to a command | SPC-4, SBC-3, MMC-6 |
//! | [`Sense`] (`sense`) | why a command failed, as guests are told | SPC-4, section 4.5 |
//! | [`LogicalUnit`] (`unit`) | a disk or CD drive: its state, and what a command does to it | SAM-5 |
//! | `inquiry`, `mode`, `mmc` | what it tells about itself | SPC-4, SBC-3, MMC-6 |
//! | [`Steps`] (`steps`) | commands that take several requests to the disk | SBC-3 |
//! | [`Bus`] (`bus`) | which unit answers to which address | SAM-5, section 4.7 |
//!
//! Nothing here knows a transport, waits, or touches data: a transport finds the unit of a command,
//! asks it for a [`Plan`], and carries that out on the disk with the guest's memory. All state of a
//! unit is atomic: commands come from every queue's core at once, and none takes a lock.

mod bus;
mod cdb;
mod inquiry;
mod mmc;
mod mode;
mod opcodes;
mod sense;
mod steps;
#[cfg(test)]
mod tests;
mod tray;
mod unit;

pub use bus::{Address, Bus, BusError, Found, LUNS, Member};
pub use cdb::{Blocks, CDB_BYTES, Cdb, Command, Direction};
pub use sense::{Attention, Failure, Sense, status};
pub use steps::Steps;
pub use unit::{Kind, LogicalUnit, Parameters, Plan, TrayListener, UnitError, UnitOptions};
