//! A logical unit: what it is, its state, and what commands do.

use super::cdb::{Blocks, Cdb, Command, passes_attention};
use super::sense::{Attention, Sense};
use super::steps::Steps;
use super::{inquiry, mmc, mode, opcodes};
use crate::block::{Disk, Request};
use rcu::RcuCell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Descriptors in one UNMAP.
pub(super) const UNMAP_DESCRIPTORS_MAX: usize = 255;
/// Bytes of the longest parameter list that is read: an UNMAP's.
const PARAMETERS_MAX: usize = 8 + 16 * UNMAP_DESCRIPTORS_MAX;
/// Bytes of the largest block.
const BLOCK_MAX: usize = 4096;
const ATTENTION_NONE: u32 = 0;

/// The peripheral device types there are (SPC-4, section 6.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A direct access block device.
    Disk,
    /// A CD or DVD drive.
    Cd,
}

/// What a unit is told at creation.
#[derive(Clone, Debug)]
pub struct UnitOptions {
    /// The device type.
    pub kind: Kind,
    /// `vendor=`: up to 8 bytes.
    pub vendor: String,
    /// `product=`: up to 16 bytes.
    pub product: String,
    /// `ver=`: up to 4 bytes.
    pub version: String,
    /// `serial=`: up to 36 bytes.
    pub serial: Option<String>,
    /// `device_id=`: up to 236 bytes; the serial where it is not given.
    pub device_id: Option<String>,
    /// `wwn=`: the unit's name in NAA format; 0: none.
    pub wwn: u64,
    /// `port_wwn=`: its target port's; 0: none.
    pub port_wwn: u64,
    /// `port_index=`: relative target port; 0: none.
    pub port_index: u16,
    /// `removable=`: the medium can be ejected. CD drives always can.
    pub removable: bool,
    /// `rotation_rate=`: per minute; 1: solid state, 0: not said.
    pub rotation_rate: u16,
    /// `logical_block_size=`: a power of two, 512 to 4096.
    pub logical_block: u32,
    /// `physical_block_size=`: a power of two, from `logical_block` to 32768; 0: the disk's.
    pub physical_block: u32,
    /// `max_unmap_size=`: bytes in one UNMAP or WRITE SAME.
    pub unmap_bytes_max: u64,
    /// `write-cache=`: whether writes may sit in a volatile cache; `None`: as the disk says.
    pub write_cache: Option<bool>,
    /// `max_io_size=`: bytes in one READ or WRITE; 0: no limit.
    pub io_bytes_max: u64,
}

impl UnitOptions {
    /// The usual disk, or CD drive.
    pub fn new(kind: Kind) -> Self {
        let (product, logical_block) = match kind {
            Kind::Disk => ("HARDDISK", 512),
            Kind::Cd => ("CD-ROM", 2048),
        };
        Self {
            kind,
            vendor: "RINGVISR".to_owned(),
            product: product.to_owned(),
            version: "1.0".to_owned(),
            serial: None,
            device_id: None,
            wwn: 0,
            port_wwn: 0,
            port_index: 0,
            removable: kind == Kind::Cd,
            rotation_rate: 0,
            logical_block,
            physical_block: 0,
            unmap_bytes_max: 1 << 30,
            io_bytes_max: 0,
            write_cache: None,
        }
    }

    fn check(&self) -> Result<(), UnitError> {
        for (property, value, max) in [
            ("vendor", Some(&self.vendor), 8),
            ("product", Some(&self.product), 16),
            ("ver", Some(&self.version), 4),
            ("serial", self.serial.as_ref(), 36),
            ("device_id", self.device_id.as_ref(), 236),
        ] {
            if let Some(value) = value
                && (value.len() > max || !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
            {
                return Err(UnitError::Text { property, value: value.clone(), max });
            }
        }
        let block = |property, value: u32, min: u32, max: u32| {
            let sound = value.is_power_of_two() && (min..=max).contains(&value);
            if sound { Ok(()) } else { Err(UnitError::Block { property, value, min, max }) }
        };
        block("logical_block_size", self.logical_block, 512, BLOCK_MAX as u32)?;
        if self.physical_block != 0 {
            block("physical_block_size", self.physical_block, self.logical_block, 32768)?;
        }
        Ok(())
    }
}

/// Why a unit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A name that does not fit its field.
    #[error("{property}='{value}' is not up to {max} printable ASCII characters; shorten it")]
    Text {
        /// The property.
        property: &'static str,
        /// What was given.
        value: String,
        /// Characters.
        max: usize,
    },
    /// A block size that cannot be.
    #[error("{property}={value} is not a power of two from {min} to {max}")]
    Block {
        /// The property.
        property: &'static str,
        /// What was given.
        value: u32,
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// A disk without storage.
    #[error("a disk needs storage; name it with drive=")]
    NoDrive,
}

/// What a transport does for a command that has not failed.
#[derive(Debug)]
pub enum Plan {
    /// Answers GOOD, with no data.
    Good,
    /// Answers GOOD with this data, which is cut to the allocation length already.
    Data(Vec<u8>),
    /// Answers with the list of logical units of the target ([`Bus::report_luns`](super::Bus)).
    Luns {
        /// Well-known ones only.
        well_known: bool,
    },
    /// Has the disk do this; a read or write takes exactly as much data as the CDB asks for.
    Disk(Request),
    /// Has the disk do several things, one after the other.
    Steps(Steps),
}

/// Reads the start of a command's parameter data; returns how many bytes there were.
pub type Parameters<'a> = &'a dyn Fn(&mut [u8]) -> usize;

/// A logical unit. All of it is for any thread, unless it says otherwise; nothing blocks.
pub struct LogicalUnit {
    pub(super) options: UnitOptions,
    medium: RcuCell<Option<Arc<dyn Disk>>>,
    medium_version: AtomicU64,
    attentions: AtomicU32,
    write_cache: AtomicBool,
    tray_open: AtomicBool,
    locked: AtomicBool,
    stopped: AtomicBool,
    media_event: AtomicU8,
    tray_moved: OnceLock<TrayListener>,
}

/// Takes whether the tray is open, when it has moved. Any thread, returns at once.
pub type TrayListener = Box<dyn Fn(bool) + Send + Sync>;

impl LogicalUnit {
    /// A unit on `medium`, which a disk has and a CD drive may have. Its first command tells of
    /// power-on.
    pub fn new(options: UnitOptions, medium: Option<Arc<dyn Disk>>) -> Result<Self, UnitError> {
        options.check()?;
        if options.kind == Kind::Disk && medium.is_none() {
            return Err(UnitError::NoDrive);
        }
        let write_cache = default_write_cache(&options, medium.as_ref());
        Ok(Self {
            options,
            medium: RcuCell::new(medium),
            medium_version: AtomicU64::new(0),
            attentions: AtomicU32::new(Attention::PowerOn as u32),
            write_cache: AtomicBool::new(write_cache),
            tray_open: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            media_event: AtomicU8::new(mmc::NO_EVENT),
            tray_moved: OnceLock::new(),
        })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.options.kind
    }

    /// Bytes of a block.
    pub fn block(&self) -> u32 {
        self.options.logical_block
    }

    /// The disk that requests go to, whether it can be reached or not.
    pub fn medium(&self) -> Option<Arc<dyn Disk>> {
        self.medium.read(&rcu::read()).clone()
    }

    /// Changes with each change of the medium: who has a queue of an older one opens a new one.
    pub fn medium_version(&self) -> u64 {
        self.medium_version.load(Ordering::Acquire)
    }

    /// Puts a medium in, or takes it out; the tray stays as it is. In `main`.
    pub fn set_medium(&self, medium: Option<Arc<dyn Disk>>) {
        let event = if medium.is_some() { mmc::NEW_MEDIA } else { mmc::MEDIA_REMOVED };
        if medium.is_some() {
            self.attend(Attention::MediumChanged);
        }
        self.medium.publish(medium);
        self.medium_version.fetch_add(1, Ordering::AcqRel);
        self.media_event.store(event, Ordering::Release);
    }

    /// Opens or closes the tray, whether the guest has locked it or not.
    pub fn set_tray_open(&self, open: bool) {
        let was = self.tray_open.swap(open, Ordering::AcqRel);
        if was != open {
            let event = if open { mmc::MEDIA_REMOVED } else { mmc::NEW_MEDIA };
            self.media_event.store(event, Ordering::Release);
            if !open && self.medium().is_some() {
                self.attend(Attention::MediumChanged);
            }
            if let Some(listener) = self.tray_moved.get() {
                listener(open);
            }
        }
    }

    /// Has `listener` told when the tray moves, whoever moves it. The first one stays.
    pub fn on_tray_moved(&self, listener: TrayListener) {
        let _first = self.tray_moved.set(listener);
    }

    /// The medium can be taken out.
    pub fn is_removable(&self) -> bool {
        self.options.removable
    }

    /// The guest's lock is off.
    pub(super) fn unlock(&self) {
        self.locked.store(false, Ordering::Release);
    }

    pub(super) fn set_media_event(&self, event: u8) {
        self.media_event.store(event, Ordering::Release);
    }

    /// Whether the tray is open.
    pub fn tray_open(&self) -> bool {
        self.tray_open.load(Ordering::Acquire)
    }

    /// Whether the guest has locked the medium in.
    pub fn locked(&self) -> bool {
        self.locked.load(Ordering::Acquire)
    }

    /// The guest is to be told something.
    pub fn attend(&self, attention: Attention) {
        self.attentions.fetch_or(attention as u32, Ordering::AcqRel);
    }

    /// As after power-on, told as `attention`; what waited to be told is covered by that.
    pub fn reset(&self, attention: Attention) {
        let before = self.attentions.load(Ordering::Acquire) & Attention::RESETS;
        self.attentions.store(before | attention as u32, Ordering::Release);
        self.locked.store(false, Ordering::Release);
        self.stopped.store(false, Ordering::Release);
        self.write_cache.store(self.default_write_cache(), Ordering::Release);
    }

    /// As at power-on.
    pub(super) fn default_write_cache(&self) -> bool {
        default_write_cache(&self.options, self.medium().as_ref())
    }

    /// Writes may sit in a volatile cache.
    pub(super) fn write_cache(&self) -> bool {
        self.write_cache.load(Ordering::Acquire)
    }

    /// Switches the volatile cache; a guest that did not do it itself is told.
    pub fn set_write_cache(&self, on: bool) {
        if self.write_cache.swap(on, Ordering::AcqRel) != on {
            self.attend(Attention::ModeChanged);
        }
    }

    pub(super) fn take_media_event(&self) -> u8 {
        self.media_event.swap(mmc::NO_EVENT, Ordering::AcqRel)
    }

    /// The unit attention to tell next, which then is told. The others of resets go with the
    /// first.
    fn take_attention(&self) -> Option<Attention> {
        // On the data path: one load.
        if self.attentions.load(Ordering::Acquire) == ATTENTION_NONE {
            return None;
        }
        let told = |bits| {
            let first = Attention::first_of(bits)? as u32;
            Some(bits & !if first & Attention::RESETS != 0 { Attention::RESETS } else { first })
        };
        let before = self.attentions.fetch_update(Ordering::AcqRel, Ordering::Acquire, told);
        before.ok().and_then(Attention::first_of)
    }

    /// Forgets a unit attention that something else has told of.
    pub(super) fn forget(&self, attention: Attention) {
        self.attentions.fetch_and(!(attention as u32), Ordering::AcqRel);
    }

    /// Looks at the medium: fails where there is none to reach.
    pub(super) fn with_medium<R>(&self, f: impl FnOnce(&dyn Disk) -> R) -> Result<R, Sense> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(Sense::STOPPED);
        }
        if self.tray_open() {
            return Err(Sense::TRAY_OPEN);
        }
        let section = rcu::read();
        let disk = self.medium.read(&section).as_ref().ok_or(Sense::NO_MEDIUM)?;
        Ok(f(&**disk))
    }

    /// Whole blocks of the medium.
    pub(super) fn blocks(&self) -> Result<u64, Sense> {
        self.with_medium(|disk| disk.size() / u64::from(self.block()))
    }

    /// The first byte of `blocks`, which must be blocks of the medium.
    fn offset(&self, blocks: Blocks) -> Result<u64, Sense> {
        let total = self.blocks()?;
        let inside = blocks.lba <= total && blocks.count <= total - blocks.lba;
        if !inside {
            return Err(Sense::LBA_RANGE);
        }
        blocks.lba.checked_mul(self.block().into()).ok_or(Sense::LBA_RANGE)
    }

    fn check_writable(&self) -> Result<(), Sense> {
        let read_only = self.with_medium(|disk| disk.info().read_only)?;
        if read_only || self.kind() == Kind::Cd { Err(Sense::WRITE_PROTECTED) } else { Ok(()) }
    }

    /// Blocks in one UNMAP or WRITE SAME.
    pub(super) fn unmap_blocks_max(&self) -> u32 {
        let blocks = self.options.unmap_bytes_max / u64::from(self.block());
        u32::try_from(blocks).unwrap_or(u32::MAX).max(1)
    }

    /// What there is to do for a command, or why it fails: `command` is what was made of `cdb`,
    /// and `parameters` reads its data. A unit attention comes before anything else.
    pub fn plan(
        &self,
        cdb: &Cdb,
        command: Result<Command, Sense>,
        parameters: Parameters<'_>,
    ) -> Result<Plan, Sense> {
        if !passes_attention(cdb[0])
            && let Some(attention) = self.take_attention()
        {
            return Err(attention.sense());
        }
        self.act(&command?, parameters)
    }

    fn act(&self, command: &Command, parameters: Parameters<'_>) -> Result<Plan, Sense> {
        match *command {
            Command::Read(blocks) => {
                let offset = self.offset(blocks)?;
                Ok(transfer(blocks, Request::Read { offset }))
            }
            Command::Write { blocks, stable } => {
                self.check_writable()?;
                let offset = self.offset(blocks)?;
                let stable = stable || !self.write_cache();
                Ok(transfer(blocks, Request::Write { offset, stable }))
            }
            Command::Verify(blocks) => self.offset(blocks).map(|_| Plan::Good),
            Command::WriteSame { blocks, unmap, zeroes } => {
                self.write_same(blocks, unmap, zeroes, parameters)
            }
            Command::Unmap { length } => self.unmap(length, parameters),
            Command::SynchronizeCache(blocks) => {
                self.offset(blocks).map(|_| Plan::Disk(Request::Flush))
            }
            Command::TestUnitReady => self.with_medium(|_| Plan::Good),
            Command::StartStop { start, medium, power } => self.start_stop(start, medium, power),
            Command::PreventRemoval(prevent) => {
                self.locked.store(prevent, Ordering::Release);
                Ok(Plan::Good)
            }
            Command::Reserve => Ok(Plan::Good),
            Command::ModeSelect { long, length } => self.mode_select(long, length, parameters),
            _ => self.tell(command),
        }
    }

    /// Commands that only tell something.
    fn tell(&self, command: &Command) -> Result<Plan, Sense> {
        let mut data = match *command {
            Command::RequestSense { descriptor, .. } => {
                let sense = self.take_attention().map_or(Sense::NONE, Attention::sense);
                if descriptor { sense.descriptor().to_vec() } else { sense.fixed().to_vec() }
            }
            Command::Inquiry { page: None, .. } => inquiry::standard(self),
            Command::Inquiry { page: Some(page), .. } => {
                inquiry::page(self, page).ok_or(Sense::INVALID_FIELD)?
            }
            Command::ReportLuns { well_known, .. } => {
                self.forget(Attention::LunsChanged);
                return Ok(Plan::Luns { well_known });
            }
            Command::ModeSense { long, bare, control, page, subpage, .. } => {
                mode::sense(self, long, bare, control, (page, subpage))?
            }
            Command::ReadCapacity10 => inquiry::capacity10(self)?,
            Command::ReadCapacity16 { .. } => inquiry::capacity16(self)?,
            Command::ReportOpcodes { options, code, action, .. } => {
                opcodes::report(self.kind(), options, code, action).ok_or(Sense::INVALID_FIELD)?
            }
            Command::ReadToc { msf, format, track, .. } => {
                mmc::toc(self.blocks()?, msf, format, track)?
            }
            Command::GetConfiguration { choice, first, .. } => {
                mmc::configuration(self, choice, first)?
            }
            Command::GetEvent { classes, .. } => mmc::event(self, classes),
            Command::ReadDiscInformation { .. } => self.with_medium(|_| mmc::disc_information())?,
            Command::MechanismStatus { .. } => mmc::mechanism_status(self),
            _ => return Err(Sense::INVALID_OPCODE),
        };
        if let Some(room) = command.room() {
            data.truncate(room as usize);
        }
        Ok(Plan::Data(data))
    }

    /// SBC-3, section 5.20.
    fn start_stop(&self, start: bool, medium: bool, power: bool) -> Result<Plan, Sense> {
        if power {
            // Power conditions change nothing that could be seen.
            return Ok(Plan::Good);
        }
        if medium && self.options.removable {
            if !start && !self.tray_open() && self.locked() {
                return Err(Sense::REMOVAL_PREVENTED);
            }
            self.set_tray_open(!start);
            return Ok(Plan::Good);
        }
        self.stopped.store(!start, Ordering::Release);
        let flush = !start && self.kind() == Kind::Disk;
        Ok(if flush { Plan::Disk(Request::Flush) } else { Plan::Good })
    }

    /// SBC-3, section 5.43.
    fn write_same(
        &self,
        blocks: Blocks,
        unmap: bool,
        zeroes: bool,
        parameters: Parameters<'_>,
    ) -> Result<Plan, Sense> {
        self.check_writable()?;
        let offset = self.offset(blocks)?;
        // Zero blocks would mean "up to the end", which page B0 says is not supported.
        if blocks.count == 0 || blocks.count > u64::from(self.unmap_blocks_max()) {
            return Err(Sense::INVALID_FIELD);
        }
        let len = blocks.count * u64::from(self.block());
        let stable = !self.write_cache();
        let mut block = [0; BLOCK_MAX];
        let zero = zeroes || {
            let block = &mut block[..self.block() as usize];
            parameters(block);
            block.iter().all(|byte| *byte == 0)
        };
        Ok(if zero {
            Plan::Disk(Request::WriteZeroes { offset, len, unmap, stable })
        } else {
            Plan::Steps(Steps::same(offset, len, stable))
        })
    }

    /// SBC-3, section 5.30.
    fn unmap(&self, length: u32, parameters: Parameters<'_>) -> Result<Plan, Sense> {
        self.check_writable()?;
        if length == 0 {
            return Ok(Plan::Good);
        }
        let mut list = [0; PARAMETERS_MAX];
        let list = read_list(length, &mut list, parameters)?;
        let (header, descriptors) = list.split_at_checked(8).ok_or(Sense::PARAMETER_LENGTH)?;
        let total = usize::from(u16::from_be_bytes([header[0], header[1]])) + 2;
        let bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if total > list.len() || bytes > descriptors.len() || bytes % 16 != 0 {
            return Err(Sense::PARAMETER_LENGTH);
        }
        let mut ranges = Vec::new();
        let mut left = u64::from(self.unmap_blocks_max());
        for descriptor in descriptors[..bytes].chunks_exact(16) {
            let [l0, l1, l2, l3, l4, l5, l6, l7, n0, n1, n2, n3, ..] = *descriptor else {
                continue;
            };
            let lba = u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
            let count = u64::from(u32::from_be_bytes([n0, n1, n2, n3]));
            let offset = self.offset(Blocks { lba, count })?;
            left = left.checked_sub(count).ok_or(Sense::INVALID_PARAMETER)?;
            if count > 0 {
                ranges.push((offset, count * u64::from(self.block())));
            }
        }
        Ok(if ranges.is_empty() { Plan::Good } else { Plan::Steps(Steps::unmap(ranges)) })
    }

    fn mode_select(
        &self,
        long: bool,
        length: u32,
        parameters: Parameters<'_>,
    ) -> Result<Plan, Sense> {
        if length == 0 {
            return Ok(Plan::Good);
        }
        let mut list = [0; PARAMETERS_MAX];
        let list = read_list(length, &mut list, parameters)?;
        let write_cache = mode::select(self, long, list)?;
        let before = self.write_cache.swap(write_cache, Ordering::AcqRel);
        // What is in the cache when it is switched off is stable afterwards.
        let flush = before && !write_cache;
        Ok(if flush { Plan::Disk(Request::Flush) } else { Plan::Good })
    }
}

fn default_write_cache(options: &UnitOptions, medium: Option<&Arc<dyn Disk>>) -> bool {
    options.write_cache.unwrap_or_else(|| medium.is_some_and(|disk| disk.info().writeback))
}

fn transfer(blocks: Blocks, request: Request) -> Plan {
    if blocks.count == 0 { Plan::Good } else { Plan::Disk(request) }
}

/// Reads a parameter list of exactly `length` bytes.
fn read_list<'a>(
    length: u32,
    room: &'a mut [u8; PARAMETERS_MAX],
    parameters: Parameters<'_>,
) -> Result<&'a [u8], Sense> {
    let list = room.get_mut(..length as usize).ok_or(Sense::PARAMETER_LENGTH)?;
    if parameters(list) < list.len() {
        return Err(Sense::PARAMETER_LENGTH);
    }
    Ok(list)
}
