//! Which logical unit answers to which address.

use super::cdb::Command;
use super::inquiry;
use super::sense::{Attention, Sense};
use super::unit::{LogicalUnit, Plan};
use rcu::RcuList;
use reactor::sync::oneshot;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Logical units of a target, numbered from 0.
pub const LUNS: u16 = 0x4000;

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The target: QEMU's `scsi-id`.
    pub target: u8,
    /// The logical unit, 0 to 16383.
    pub lun: u16,
}

impl Address {
    /// The unit's number as it appears in data, 8 bytes (SAM-5, section 4.7): peripheral
    /// addressing up to 255, flat space addressing beyond.
    pub fn encoded_lun(self) -> [u8; 8] {
        let [high, low] = self.lun.to_be_bytes();
        let method = if self.lun < 256 { 0x00 } else { 0x40 };
        [method | high, low, 0, 0, 0, 0, 0, 0]
    }
}

/// Why a unit cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Somebody is there.
    #[error("lun already used by another device: scsi-id={0} lun={1}")]
    Taken(u8, u16),
    /// There is no such number.
    #[error("bad scsi device lun: {0}; use 0 to 16383")]
    Lun(u16),
}

/// A unit at its place.
pub struct Member {
    /// Its place.
    pub address: Address,
    /// The unit.
    pub unit: Arc<LogicalUnit>,
    removed: AtomicBool,
    /// Whom to tell when it is freed.
    gone: Mutex<Option<oneshot::Sender<()>>>,
}

impl Member {
    /// Whether it has been removed: it takes no command any more.
    pub fn removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let gone = self.gone.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(gone) = gone {
            // Whoever removed it may have lost interest.
            let _ = gone.send(());
        }
    }
}

/// What is at an address.
#[derive(Clone)]
pub enum Found {
    /// A unit.
    Unit(Arc<Member>),
    /// No unit, but the target has others.
    Target,
    /// No target.
    Nothing,
}

/// The units of an adapter: looked up on any thread without a lock, changed in `main`.
#[derive(Default)]
pub struct Bus {
    members: RcuList<Arc<Member>>,
}

impl Bus {
    /// What is at `address`. Any thread; never blocks.
    pub fn find(&self, address: Address) -> Found {
        let mut found = Found::Nothing;
        for member in self.members.iter(&rcu::read()) {
            if member.address == address {
                return Found::Unit(Arc::clone(member));
            }
            if member.address.target == address.target {
                found = Found::Target;
            }
        }
        found
    }

    /// The units for which `wanted` holds. Any thread; never blocks.
    pub fn select(&self, wanted: impl Fn(Address) -> bool) -> Vec<Arc<Member>> {
        let section = rcu::read();
        self.members.iter(&section).filter(|member| wanted(member.address)).cloned().collect()
    }

    /// The lowest target without a unit.
    pub fn free_target(&self) -> Option<u8> {
        let section = rcu::read();
        (0..=u8::MAX)
            .find(|target| self.members.iter(&section).all(|m| m.address.target != *target))
    }

    /// Adds a unit; the other ones of its target tell of it. In `main`, the list's only writer.
    pub fn add(&self, address: Address, unit: Arc<LogicalUnit>) -> Result<(), BusError> {
        if address.lun >= LUNS {
            return Err(BusError::Lun(address.lun));
        }
        if matches!(self.find(address), Found::Unit(_)) {
            return Err(BusError::Taken(address.target, address.lun));
        }
        self.luns_changed(address);
        let removed = AtomicBool::new(false);
        let member = Member { address, unit, removed, gone: Mutex::default() };
        self.members.write().push_back(Arc::new(member));
        Ok(())
    }

    /// Takes a unit out of the list: no new command finds it. Returns what completes once a grace
    /// period has passed and nobody who had found it uses it any more; `None` where there was no
    /// unit. In `main`.
    pub fn remove(&self, address: Address) -> Option<oneshot::Receiver<()>> {
        let mut writer = self.members.write();
        let mut place = writer.find(|member| member.address == address)?;
        let member = place.get()?;
        member.removed.store(true, Ordering::Release);
        let (gone, wait) = oneshot::channel();
        *member.gone.lock().unwrap_or_else(PoisonError::into_inner) = Some(gone);
        place.remove();
        drop(writer);
        self.luns_changed(address);
        Some(wait)
    }

    fn luns_changed(&self, address: Address) {
        for member in self.members.iter(&rcu::read()) {
            if member.address.target == address.target && member.address != address {
                member.unit.attend(Attention::LunsChanged);
            }
        }
    }

    /// The answer to REPORT LUNS (SPC-4, section 6.33): LUN 0 is always among them.
    pub fn report_luns(&self, target: u8, well_known: bool, room: usize) -> Vec<u8> {
        let mut data = vec![0; 8];
        if !well_known {
            let mut luns = vec![0];
            luns.extend(
                self.select(|address| address.target == target).iter().map(|m| m.address.lun),
            );
            luns.sort_unstable();
            luns.dedup();
            data.extend(luns.iter().flat_map(|lun| Address { target, lun: *lun }.encoded_lun()));
        }
        let length = (data.len() - 8) as u32;
        data[..4].copy_from_slice(&length.to_be_bytes());
        data.truncate(room);
        data
    }

    /// What a target does for a command to a unit that it does not have (SPC-4, section 6.6.2).
    pub fn plan_absent(address: Address, command: &Command) -> Result<Plan, Sense> {
        let mut data = match *command {
            Command::Inquiry { page: None, .. } => inquiry::absent(address.lun),
            Command::ReportLuns { well_known, .. } => return Ok(Plan::Luns { well_known }),
            Command::RequestSense { descriptor: false, .. } => Sense::NO_UNIT.fixed().to_vec(),
            Command::RequestSense { descriptor: true, .. } => Sense::NO_UNIT.descriptor().to_vec(),
            _ => return Err(Sense::NO_UNIT),
        };
        data.truncate(command.room().unwrap_or(0) as usize);
        Ok(Plan::Data(data))
    }
}
