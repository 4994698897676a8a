//! The block device (Virtual I/O Device 1.2, section 5.2).

use crate::machine::Machine;
use crate::pc::with_disk;
use crate::queue::{Buffer, INDIRECT, NEXT, Queue, WRITE};
use crate::virtio::{Device, EVENT_IDX, INDIRECT_DESC, NEEDS_RESET, STATUS, VERSION_1};
use std::path::{Path, PathBuf};

const SIZE: u64 = 4 << 20;
pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;
pub const OK: u8 = 0;
pub const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// What a status byte is before the device has written it.
const UNWRITTEN: u8 = 0xee;

const RO: u64 = 1 << 5;
const FLUSH_FEATURE: u64 = 1 << 9;
const CONFIG_WCE: u64 = 1 << 11;
const MQ: u64 = 1 << 12;
const DISCARD_FEATURE: u64 = 1 << 13;
const WRITE_ZEROES_FEATURE: u64 = 1 << 14;

/// A block device with its queue live.
pub struct Disk {
    pub device: Device,
    pub queue: Queue,
    pub image: PathBuf,
    header: u64,
    status: u64,
    pub data: u64,
    _dir: Option<tempfile::TempDir>,
}

/// Starts a machine with an empty disk of `size` bytes and brings it up with `features`.
pub fn disk(size: u64, args: &[&str], features: u64) -> (Machine, Disk) {
    let (mut m, image, dir) = with_disk(size, args);
    let device = Device::new(&mut m, 4);
    let mut disk = Disk { _dir: Some(dir), ..Disk::of(&mut m, device, &image) };
    disk.start(&mut m, features);
    (m, disk)
}

impl Disk {
    /// Of a device on `image`, which is not live yet.
    pub fn of(m: &mut Machine, device: Device, image: &Path) -> Self {
        let (header, status) = (m.alloc(16), m.alloc(1));
        let data = m.alloc(1 << 20);
        let queue = Queue::new(m, 0, 1, 0, false);
        Self { device, queue, image: image.to_owned(), header, status, data, _dir: None }
    }

    /// Negotiates and brings the queue up anew.
    pub fn start(&mut self, m: &mut Machine, features: u64) {
        self.start_with(m, features, |_, _| {});
    }

    /// Finds the device in `slot`, new there, and brings it up.
    pub fn restart(&mut self, m: &mut Machine, slot: u8, features: u64) {
        self.device = Device::new(m, slot);
        self.start(m, features);
    }

    /// As [`Disk::start`], with `before` the queue is enabled.
    pub fn start_with(
        &mut self,
        m: &mut Machine,
        features: u64,
        before: impl FnOnce(&mut Machine, &Device),
    ) {
        assert!(self.device.negotiate(m, features));
        before(m, &self.device);
        self.queue = self.device.queue(m, 0, features & EVENT_IDX != 0);
        self.device.driver_ok(m);
    }

    fn write_header(&self, m: &mut Machine, kind: u32, sector: u64) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        m.write(self.header, &header);
        m.writeb(self.status, UNWRITTEN);
    }

    fn buffers(&self, len: u32, device_writes: bool) -> Vec<Buffer> {
        let mut buffers = vec![(self.header, 16, false)];
        if len > 0 {
            buffers.push((self.data, len, device_writes));
        }
        buffers.push((self.status, 1, true));
        buffers
    }

    /// Writes the chain of a request; its head and the data's address.
    pub fn prepare(
        &mut self,
        m: &mut Machine,
        kind: u32,
        sector: u64,
        len: u32,
        device_writes: bool,
    ) -> (u16, u64) {
        self.write_header(m, kind, sector);
        let buffers = self.buffers(len, device_writes);
        (self.queue.chain(m, &buffers), self.data)
    }

    pub fn prepare_flush(&mut self, m: &mut Machine) -> u16 {
        self.prepare(m, FLUSH, 0, 0, false).0
    }

    /// Offers a flush and rings.
    pub fn submit_flush(&mut self, m: &mut Machine) {
        let head = self.prepare_flush(m);
        self.queue.offer(m, head);
        self.queue.ring(m);
    }

    /// Runs the chain at `head`: its status and how many bytes the device says to have written.
    fn run(&mut self, m: &mut Machine, head: u16) -> (u8, u32) {
        self.queue.offer(m, head);
        self.queue.ring(m);
        let (used, written) = self.queue.take(m);
        assert_eq!(used, head);
        (m.readb(self.status), written)
    }

    /// A whole request.
    pub fn request(&mut self, m: &mut Machine, kind: u32, sector: u64, len: u32) -> (u8, u32) {
        let (head, _) = self.prepare(m, kind, sector, len, matches!(kind, IN | GET_ID));
        self.run(m, head)
    }

    pub fn flush(&mut self, m: &mut Machine) -> u8 {
        self.request(m, FLUSH, 0, 0).0
    }

    /// With what its image is in.
    pub fn keeping(self, dir: tempfile::TempDir) -> Self {
        Self { _dir: Some(dir), ..self }
    }

    /// The status of the last request.
    pub fn status(&self, m: &mut Machine) -> u8 {
        m.readb(self.status)
    }

    /// A request of any kind for the first 8 sectors; its status.
    pub fn any(&mut self, m: &mut Machine, kind: u32) -> u8 {
        match kind {
            FLUSH => self.flush(m),
            DISCARD | WRITE_ZEROES => {
                range(m, self, 0, 8, 0);
                self.request(m, kind, 0, 16).0
            }
            _ => self.request(m, kind, 0, 4096).0,
        }
    }

    fn broken(&self, m: &mut Machine) {
        let status = self.device.common + STATUS;
        m.until("NEEDS_RESET", |m| m.readb(status) & NEEDS_RESET != 0);
    }
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| (n / 512) as u8 ^ n as u8 ^ seed).collect()
}

#[test]
fn the_capacity_is_in_sectors() {
    let (mut m, disk) = disk(SIZE, &[], VERSION_1);
    assert_eq!(m.readq(disk.device.config), SIZE / 512);
    assert_eq!(m.readl(disk.device.config + 20), 512);
}

#[test]
fn writes_are_read_back_and_are_in_the_image() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let bytes = pattern(8192, 1);
    m.write(disk.data, &bytes);
    assert_eq!(disk.request(&mut m, OUT, 3, 8192), (OK, 1));
    m.ok(&format!("memset {:#x} 8192 0", disk.data));
    assert_eq!(disk.request(&mut m, IN, 3, 8192), (OK, 8193));
    assert_eq!(m.read(disk.data, 8192), bytes);
    assert_eq!(disk.flush(&mut m), OK);
    let image = std::fs::read(&disk.image).unwrap();
    assert_eq!(image[3 * 512..3 * 512 + 8192], bytes[..]);
}

#[test]
fn the_last_sector_is_there_and_the_next_is_not() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let last = SIZE / 512 - 1;
    assert_eq!(disk.request(&mut m, OUT, last, 512).0, OK);
    assert_eq!(disk.request(&mut m, IN, last, 512).0, OK);
    assert_eq!(disk.request(&mut m, IN, last + 1, 512).0, IO_ERROR);
    assert_eq!(disk.request(&mut m, IN, last, 1024).0, IO_ERROR);
    assert_eq!(disk.request(&mut m, OUT, last, 1024).0, IO_ERROR);
    assert_eq!(disk.request(&mut m, IN, u64::MAX, 512).0, IO_ERROR);
    assert_eq!(disk.request(&mut m, IN, u64::MAX / 512, 512).0, IO_ERROR);
}

#[test]
fn lengths_are_whole_sectors() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    for len in [1, 511, 513] {
        assert_eq!(disk.request(&mut m, IN, 0, len).0, IO_ERROR, "{len}");
        assert_eq!(disk.request(&mut m, OUT, 0, len).0, IO_ERROR, "{len}");
    }
}

#[test]
fn the_identity_is_the_serial_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, [0; 512]).unwrap();
    let drive = format!("file={},format=raw,if=none,id=d1", path.display());
    let device = "virtio-blk-pci,drive=d1,addr=5,serial=ring-0815";
    let (mut m, mut disk) = disk(SIZE, &["-drive", &drive, "-device", device], VERSION_1);
    disk.device = Device::new(&mut m, 5);
    disk.start(&mut m, VERSION_1);
    m.ok(&format!("memset {:#x} 20 0xff", disk.data));
    assert_eq!(disk.request(&mut m, GET_ID, 0, 20).0, OK);
    assert_eq!(m.read(disk.data, 20), *b"ring-0815\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn unknown_requests_are_unsupported() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    for kind in [2, 5, 99, u32::MAX] {
        assert_eq!(disk.request(&mut m, kind, 0, 512).0, UNSUPPORTED, "{kind}");
    }
    assert_eq!(disk.flush(&mut m), OK);
}

#[test]
fn flush_is_there() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | FLUSH_FEATURE);
    assert_eq!(disk.device.offered(&mut m) & FLUSH_FEATURE, FLUSH_FEATURE);
    assert_eq!(disk.flush(&mut m), OK);
}

fn range(m: &mut Machine, disk: &Disk, sector: u64, sectors: u32, flags: u32) {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    m.write(disk.data, &bytes);
}

#[test]
fn write_zeroes_zeroes() {
    let features = VERSION_1 | WRITE_ZEROES_FEATURE;
    let (mut m, mut disk) = disk(SIZE, &[], features);
    for flags in [0, 1] {
        m.write(disk.data, &pattern(4096, 9));
        assert_eq!(disk.request(&mut m, OUT, 0, 4096).0, OK);
        range(&mut m, &disk, 1, 2, flags);
        assert_eq!(disk.request(&mut m, WRITE_ZEROES, 0, 16).0, OK);
        assert_eq!(disk.request(&mut m, IN, 0, 4096).0, OK);
        let mut expected = pattern(4096, 9);
        expected[512..1536].fill(0);
        assert_eq!(m.read(disk.data, 4096), expected, "flags {flags}");
    }
}

#[test]
fn ranges_past_the_end_are_refused() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | WRITE_ZEROES_FEATURE | DISCARD_FEATURE);
    for kind in [DISCARD, WRITE_ZEROES] {
        for (sector, sectors) in [(SIZE / 512, 1), (SIZE / 512 - 1, 2), (u64::MAX, 2)] {
            range(&mut m, &disk, sector, sectors, 0);
            assert_eq!(disk.request(&mut m, kind, 0, 16).0, IO_ERROR, "{kind} {sector}");
        }
        range(&mut m, &disk, 0, 1, 0x80);
        assert_eq!(disk.request(&mut m, kind, 0, 16).0, UNSUPPORTED, "an unknown flag");
    }
}

#[test]
fn discard_is_taken() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | DISCARD_FEATURE);
    range(&mut m, &disk, 8, 16, 0);
    assert_eq!(disk.request(&mut m, DISCARD, 0, 16).0, OK);
}

#[test]
fn a_read_only_disk_says_so_and_takes_no_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, [7; 512]).unwrap();
    let drive = format!("file={},format=raw,if=none,id=d1,readonly=on", path.display());
    let device = "virtio-blk-pci,drive=d1,addr=5";
    let (mut m, mut disk) = disk(SIZE, &["-drive", &drive, "-device", device], VERSION_1);
    disk.device = Device::new(&mut m, 5);
    assert_eq!(disk.device.offered(&mut m) & RO, RO);
    disk.start(&mut m, VERSION_1 | RO);
    assert_eq!(disk.request(&mut m, OUT, 0, 512).0, IO_ERROR);
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    assert_eq!(m.read(disk.data, 512), [7; 512]);
}

#[test]
fn many_requests_at_a_time() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let (headers, statuses) = (m.alloc(16 * 20), m.alloc(20));
    m.write(disk.data, &pattern(20 * 512, 3));
    for n in 0..20u64 {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&OUT.to_le_bytes());
        header[8..].copy_from_slice(&n.to_le_bytes());
        m.write(headers + 16 * n, &header);
        let buffers = [
            (headers + 16 * n, 16, false),
            (disk.data + 512 * n, 512, false),
            (statuses + n, 1, true),
        ];
        let head = disk.queue.chain(&mut m, &buffers);
        disk.queue.offer(&mut m, head);
    }
    disk.queue.ring(&mut m);
    let mut heads: Vec<u16> = (0..20).map(|_| disk.queue.take(&mut m).0).collect();
    heads.sort_unstable();
    assert_eq!(heads, (0..20).map(|n| 3 * n).collect::<Vec<u16>>());
    assert_eq!(m.read(statuses, 20), [OK; 20]);
    assert_eq!(disk.request(&mut m, IN, 0, 20 * 512).0, OK);
    assert_eq!(m.read(disk.data, 20 * 512), pattern(20 * 512, 3));
}

#[test]
fn the_rings_go_round() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    for n in 0..3 * u32::from(disk.queue.size) {
        assert_eq!(disk.flush(&mut m), OK, "{n}");
    }
}

#[test]
fn data_may_be_in_pieces() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    let bytes = pattern(2048, 5);
    m.write(disk.data, &bytes);
    disk.write_header(&mut m, OUT, 0);
    let (header, data, status) = (disk.header, disk.data, disk.status);
    let buffers = [
        (header, 8, false),
        (header + 8, 8, false),
        (data, 100, false),
        (data + 100, 1000, false),
        (data + 1100, 948, false),
        (status, 1, true),
    ];
    let head = disk.queue.chain(&mut m, &buffers);
    assert_eq!(disk.run(&mut m, head).0, OK);
    assert_eq!(disk.request(&mut m, IN, 0, 2048).0, OK);
    assert_eq!(m.read(data, 2048), bytes);
}

#[test]
fn header_and_data_may_share_a_descriptor() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    disk.write_header(&mut m, OUT, 0);
    let (header, status) = (disk.header, disk.status);
    m.write(header + 16, &pattern(512, 6));
    let head = disk.queue.chain(&mut m, &[(header, 16 + 512, false), (status, 1, true)]);
    assert_eq!(disk.run(&mut m, head).0, OK);
    assert_eq!(disk.request(&mut m, IN, 0, 512).0, OK);
    assert_eq!(m.read(disk.data, 512), pattern(512, 6));
}

#[test]
fn data_and_status_may_share_a_descriptor() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1);
    disk.write_header(&mut m, IN, 0);
    let (header, data) = (disk.header, disk.data);
    m.writeb(data + 512, UNWRITTEN);
    let head = disk.queue.chain(&mut m, &[(header, 16, false), (data, 513, true)]);
    disk.queue.offer(&mut m, head);
    disk.queue.ring(&mut m);
    assert_eq!(disk.queue.take(&mut m), (head, 513));
    assert_eq!(m.readb(data + 512), OK);
}

#[test]
fn indirect_chains() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | INDIRECT_DESC);
    m.write(disk.data, &pattern(1024, 8));
    disk.write_header(&mut m, OUT, 2);
    let buffers = disk.buffers(1024, false);
    let head = disk.queue.indirect(&mut m, &buffers);
    assert_eq!(disk.run(&mut m, head).0, OK);
    disk.write_header(&mut m, IN, 2);
    m.ok(&format!("memset {:#x} 1024 0", disk.data));
    let buffers = disk.buffers(1024, true);
    let head = disk.queue.indirect(&mut m, &buffers);
    assert_eq!(disk.run(&mut m, head), (OK, 1025));
    assert_eq!(m.read(disk.data, 1024), pattern(1024, 8));
}

#[test]
fn with_event_indices_nothing_is_lost() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | EVENT_IDX);
    for n in 0..100 {
        assert_eq!(disk.flush(&mut m), OK, "{n}");
    }
}

#[test]
fn a_chain_of_65_over_one_buffer_is_not_gathered_blindly() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | INDIRECT_DESC);
    disk.write_header(&mut m, OUT, 0);
    let mut buffers = vec![(disk.header, 16, false)];
    // 63 times the whole of 64 MiB: gigabytes.
    buffers.extend(vec![(0x10_0000, 64 << 20, false); 63]);
    buffers.push((disk.status, 1, true));
    let head = disk.queue.indirect(&mut m, &buffers);
    disk.queue.offer(&mut m, head);
    disk.queue.ring(&mut m);
    let (used, status) = (disk.queue.used + 2, disk.device.common + STATUS);
    m.until("completed or dropped", |m| m.readw(used) == 1 || m.readb(status) & NEEDS_RESET != 0);
    disk.device.set_status(&mut m, 0);
    disk.start(&mut m, VERSION_1);
    assert_eq!(disk.flush(&mut m), OK);
}

/// A chain that cannot be understood: the device needs a reset, and works after it.
fn malformed(features: u64, chain: impl FnOnce(&mut Machine, &mut Disk) -> u16) {
    let (mut m, mut disk) = disk(SIZE, &[], features);
    disk.write_header(&mut m, FLUSH, 0);
    let head = chain(&mut m, &mut disk);
    disk.queue.offer(&mut m, head);
    disk.queue.ring(&mut m);
    disk.broken(&mut m);
    // Reading clears it: the configuration change comes with both bits.
    let isr = disk.device.isr;
    m.until("the driver is told", |m| m.readb(isr) == 3);
    assert_eq!(disk.queue.device_used(&mut m), 0);
    disk.device.set_status(&mut m, 0);
    disk.start(&mut m, VERSION_1);
    assert_eq!(disk.flush(&mut m), OK);
}

#[test]
fn a_chain_that_loops() {
    malformed(VERSION_1, |m, disk| {
        disk.queue.describe(m, 0, (disk.header, 16), NEXT, 1);
        disk.queue.describe(m, 1, (disk.data, 512), NEXT, 0);
        0
    });
}

#[test]
fn a_head_out_of_range() {
    malformed(VERSION_1, |_, disk| disk.queue.size);
}

#[test]
fn a_next_out_of_range() {
    malformed(VERSION_1, |m, disk| {
        disk.queue.describe(m, 0, (disk.header, 16), NEXT, disk.queue.size);
        0
    });
}

#[test]
fn a_buffer_outside_ram() {
    malformed(VERSION_1, |m, disk| {
        let (header, status) = (disk.header, disk.status);
        disk.queue.chain(m, &[(header, 16, false), (0xe000_0000, 512, false), (status, 1, true)])
    });
}

#[test]
fn a_buffer_across_the_end_of_ram() {
    malformed(VERSION_1, |m, disk| {
        let (header, status) = (disk.header, disk.status);
        let end = (128 << 20) - 256;
        disk.queue.chain(m, &[(header, 16, false), (end, 512, false), (status, 1, true)])
    });
}

#[test]
fn a_buffer_that_wraps_around() {
    malformed(VERSION_1, |m, disk| {
        let (header, status) = (disk.header, disk.status);
        disk.queue.chain(m, &[(header, 16, false), (u64::MAX - 3, 512, false), (status, 1, true)])
    });
}

#[test]
fn a_buffer_of_no_bytes() {
    malformed(VERSION_1, |m, disk| {
        let (header, status, data) = (disk.header, disk.status, disk.data);
        disk.queue.chain(m, &[(header, 16, false), (data, 0, false), (status, 1, true)])
    });
}

#[test]
fn a_readable_buffer_behind_a_writable_one() {
    malformed(VERSION_1, |m, disk| {
        let (header, status, data) = (disk.header, disk.status, disk.data);
        disk.queue.chain(m, &[(header, 16, false), (status, 1, true), (data, 512, false)])
    });
}

#[test]
fn a_header_that_is_too_short() {
    malformed(VERSION_1, |m, disk| {
        let (header, status) = (disk.header, disk.status);
        disk.queue.chain(m, &[(header, 15, false), (status, 1, true)])
    });
}

#[test]
fn no_room_for_a_status() {
    malformed(VERSION_1, |m, disk| {
        let header = disk.header;
        disk.queue.chain(m, &[(header, 16, false)])
    });
}

#[test]
fn an_indirect_table_of_a_broken_length() {
    malformed(VERSION_1 | INDIRECT_DESC, |m, disk| {
        disk.queue.describe(m, 0, (disk.data, 17), INDIRECT, 0);
        0
    });
}

#[test]
fn an_indirect_table_outside_ram() {
    malformed(VERSION_1 | INDIRECT_DESC, |m, disk| {
        disk.queue.describe(m, 0, (0xe000_0000, 32), INDIRECT, 0);
        0
    });
}

#[test]
fn an_indirect_table_inside_an_indirect_table() {
    malformed(VERSION_1 | INDIRECT_DESC, |m, disk| {
        let mut inner = Vec::new();
        inner.extend(disk.data.to_le_bytes());
        inner.extend(32u32.to_le_bytes());
        inner.extend((INDIRECT | WRITE).to_le_bytes());
        inner.extend(0u16.to_le_bytes());
        m.write(disk.data, &inner);
        disk.queue.describe(m, 0, (disk.data, 16), INDIRECT, 0);
        0
    });
}

#[test]
fn several_queues_are_served_each() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    let drive = format!("file={},format=raw,if=none,id=d1", path.display());
    let args = ["-drive", &drive, "-device", "virtio-blk-pci,drive=d1,addr=5,num-queues=4"];
    let (mut m, mut disk) = disk(SIZE, &args, VERSION_1);
    disk.device = Device::new(&mut m, 5);
    assert_eq!(m.readw(disk.device.common + crate::virtio::NUM_QUEUES), 4);
    assert!(disk.device.negotiate(&mut m, VERSION_1 | MQ));
    let mut queues: Vec<_> = (0..4).map(|n| disk.device.queue(&mut m, n, false)).collect();
    disk.device.driver_ok(&mut m);
    for queue in queues.drain(..).rev() {
        disk.queue = queue;
        assert_eq!(disk.flush(&mut m), OK);
    }
}

#[test]
fn the_cache_mode_can_be_changed() {
    let (mut m, mut disk) = disk(SIZE, &[], VERSION_1 | CONFIG_WCE | FLUSH_FEATURE);
    let register = disk.device.config + 32;
    let before = m.readb(register);
    m.writeb(register, 1 - before);
    assert_eq!(m.readb(register), 1 - before);
    assert_eq!(disk.request(&mut m, OUT, 0, 512).0, OK);
}
