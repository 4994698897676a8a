//! The SCSI host adapter (Virtual I/O Device 1.2, section 5.6), and disks and CD drives behind it.

use crate::machine::Machine;
use crate::queue::Queue;
use crate::virtio::{Device, NEEDS_RESET, STATUS, VERSION_1};
use serde_json::json;

const CONTROL: u16 = 0;
const EVENT: u16 = 1;
const REQUEST: u16 = 2;
const HOTPLUG: u64 = 1 << 1;
const CHANGE: u64 = 1 << 2;
/// Bytes of a request's header and answer with the default sizes of CDB and sense data.
const HEADER: u64 = 51;
const ANSWER: u32 = 108;
pub const BLOCKS: u64 = 8192;

const GOOD: u8 = 0;
pub const CHECK_CONDITION: u8 = 2;
const BAD_TARGET: u8 = 3;

pub const TEST_UNIT_READY: [u8; 6] = [0; 6];
const SYNCHRONIZE_CACHE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What came of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub response: u8,
    pub status: u8,
    residual: u32,
    /// Key, additional code and qualifier.
    pub sense: Option<[u8; 3]>,
}

impl Outcome {
    pub fn good(residual: u32) -> Self {
        Self { response: 0, status: GOOD, residual, sense: None }
    }

    pub fn is(&self, sense: [u8; 3]) -> bool {
        self.status == CHECK_CONDITION && self.sense == Some(sense)
    }
}

/// An adapter with its queues live, and what is behind it.
pub struct Adapter {
    device: Device,
    control: Queue,
    event: Queue,
    request: Queue,
    header: u64,
    answer: u64,
    pub data: u64,
    pub dir: tempfile::TempDir,
}

/// A machine whose adapter has the units `devices`, each on an image of its own: `d0`, `d1`, ...
pub fn adapter(devices: &[&str]) -> (Machine, Adapter) {
    let dir = tempfile::tempdir().unwrap();
    let mut args = vec!["-device".to_owned(), "virtio-scsi-pci,id=s,addr=04.0".to_owned()];
    for (n, device) in devices.iter().enumerate() {
        let path = dir.path().join(n.to_string());
        std::fs::File::create(&path).unwrap().set_len(BLOCKS * 512).unwrap();
        let read_only = if device.starts_with("scsi-cd") { "on" } else { "off" };
        let path = path.display();
        let drive =
            format!("file={path},format=raw,if=none,id=d{n},readonly={read_only},discard=unmap");
        args.extend(["-drive".to_owned(), drive]);
        args.extend(["-device".to_owned(), format!("{device},bus=s.0,drive=d{n}")]);
    }
    let mut m = Machine::start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let device = Device::new(&mut m, 4);
    let [header, answer, data] = [4096, 4096, 1 << 20].map(|len| m.alloc(len));
    let [control, event, request] = start(&mut m, &device);
    (m, Adapter { device, control, event, request, header, answer, data, dir })
}

fn start(m: &mut Machine, device: &Device) -> [Queue; 3] {
    assert!(device.negotiate(m, VERSION_1 | HOTPLUG | CHANGE));
    let queues = [CONTROL, EVENT, REQUEST].map(|index| device.queue(m, index, false));
    device.driver_ok(m);
    queues
}

impl Adapter {
    fn write_header(&self, m: &mut Machine, target: u8, lun: u8, cdb: &[u8]) {
        let mut header = [0; HEADER as usize];
        header[..4].copy_from_slice(&[1, target, 0x40, lun]);
        header[8] = 1;
        header[19..19 + cdb.len()].copy_from_slice(cdb);
        m.write(self.header, &header);
        m.write(self.answer, &[0xee; ANSWER as usize]);
    }

    /// Runs a command with `len` bytes of data at `self.data`, which the device writes or reads.
    pub fn run(
        &mut self,
        m: &mut Machine,
        at: (u8, u8),
        cdb: &[u8],
        len: u32,
        read: bool,
    ) -> Outcome {
        self.write_header(m, at.0, at.1, cdb);
        let mut buffers = vec![(self.header, HEADER as u32, false)];
        if len > 0 && !read {
            buffers.push((self.data, len, false));
        }
        buffers.push((self.answer, ANSWER, true));
        if len > 0 && read {
            buffers.push((self.data, len, true));
        }
        let head = self.request.chain(m, &buffers);
        self.request.offer(m, head);
        self.request.ring(m);
        assert_eq!(self.request.take(m).0, head);
        self.outcome(m)
    }

    fn outcome(&self, m: &mut Machine) -> Outcome {
        let answer = m.read(self.answer, ANSWER as usize);
        let word = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().unwrap());
        let sense = (word(0) > 0).then(|| {
            assert_eq!(answer[12] & 0x7f, 0x70, "current information in fixed format");
            [answer[12 + 2] & 0xf, answer[12 + 12], answer[12 + 13]]
        });
        Outcome { response: answer[11], status: answer[10], residual: word(4), sense }
    }

    /// A command without data.
    pub fn simple(&mut self, m: &mut Machine, at: (u8, u8), cdb: &[u8]) -> Outcome {
        self.run(m, at, cdb, 0, true)
    }

    /// A command that returns `len` bytes at most; it has to succeed.
    pub fn inquire(&mut self, m: &mut Machine, at: (u8, u8), cdb: &[u8], len: u32) -> Vec<u8> {
        m.ok(&format!("memset {:#x} {len} 0", self.data));
        let outcome = self.run(m, at, cdb, len, true);
        assert_eq!((outcome.response, outcome.status), (0, GOOD), "{outcome:?}");
        m.read(self.data, (len - outcome.residual) as usize)
    }

    /// Takes the unit attention of power-on.
    pub fn ready(&mut self, m: &mut Machine, at: (u8, u8)) {
        assert!(self.simple(m, at, &TEST_UNIT_READY).is([6, 0x29, 0]));
        assert_eq!(self.simple(m, at, &TEST_UNIT_READY), Outcome::good(0));
    }

    /// A task management function; its response.
    pub fn manage(&mut self, m: &mut Machine, function: u32, at: (u8, u8)) -> u8 {
        let mut bytes = [0; 24];
        bytes[4..8].copy_from_slice(&function.to_le_bytes());
        bytes[8..12].copy_from_slice(&[1, at.0, 0x40, at.1]);
        m.write(self.header, &bytes);
        m.writeb(self.answer, 0xee);
        let buffers = [(self.header, 24, false), (self.answer, 1, true)];
        let head = self.control.chain(m, &buffers);
        self.control.offer(m, head);
        self.control.ring(m);
        assert_eq!(self.control.take(m), (head, 1));
        m.readb(self.answer)
    }

    /// Offers a buffer for an event.
    pub fn post_event(&mut self, m: &mut Machine) -> u64 {
        let at = m.alloc(16);
        m.write(at, &[0xee; 16]);
        let head = self.event.chain(m, &[(at, 16, true)]);
        self.event.offer(m, head);
        self.event.ring(m);
        at
    }

    /// The next event, in a buffer at `at`: its kind, target, LUN and reason.
    pub fn event(&mut self, m: &mut Machine, at: u64) -> (u32, u8, u8, u32) {
        assert_eq!(self.event.take(m).1, 16);
        let bytes = m.read(at, 16);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        (word(0), bytes[5], bytes[7], word(12))
    }
}

pub fn read10(block: u32, blocks: u16) -> [u8; 10] {
    let ([a, b, c, d], [high, low]) = (block.to_be_bytes(), blocks.to_be_bytes());
    [0x28, 0, a, b, c, d, 0, high, low, 0]
}

fn write10(block: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = read10(block, blocks);
    cdb[0] = 0x2a;
    cdb
}

#[test]
fn the_configuration_says_what_the_driver_must_know() {
    let (mut m, adapter) = adapter(&["scsi-hd"]);
    let config = adapter.device.config;
    assert_eq!(m.readl(config), 1, "one request queue on one processor");
    assert_eq!((m.readl(config + 16), m.readl(config + 20), m.readl(config + 24)), (16, 96, 32));
    assert_eq!((m.readw(config + 28), m.readw(config + 30)), (0, 255));
    assert_eq!(m.readl(config + 32), 16383);
}

#[test]
fn the_first_command_hears_of_power_on() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    adapter.ready(&mut m, (0, 0));
}

#[test]
fn inquiry_does_not_take_the_attention_away() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    let data = adapter.inquire(&mut m, (0, 0), &[0x12, 0, 0, 0, 36, 0], 36);
    assert_eq!((data.len(), data[0]), (36, 0), "a direct access device");
    adapter.inquire(&mut m, (0, 0), &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 64);
    adapter.ready(&mut m, (0, 0));
}

#[test]
fn ids_are_given_from_zero_upward() {
    let (mut m, mut adapter) = adapter(&["scsi-hd", "scsi-hd", "scsi-hd,scsi-id=4", "scsi-hd"]);
    for target in [0, 1, 2, 4] {
        adapter.ready(&mut m, (target, 0));
    }
    for target in [3, 5, 255] {
        let outcome = adapter.simple(&mut m, (target, 0), &TEST_UNIT_READY);
        assert_eq!(outcome.response, BAD_TARGET, "{target}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    adapter.ready(&mut m, (0, 0));
    let bytes: Vec<u8> = (0..4096u32).map(|n| (n / 512 + n) as u8).collect();
    m.write(adapter.data, &bytes);
    assert_eq!(adapter.run(&mut m, (0, 0), &write10(5, 8), 4096, false), Outcome::good(0));
    assert_eq!(adapter.simple(&mut m, (0, 0), &SYNCHRONIZE_CACHE), Outcome::good(0));
    assert_eq!(adapter.inquire(&mut m, (0, 0), &read10(5, 8), 4096), bytes);
    let image = std::fs::read(adapter.dir.path().join("0")).unwrap();
    assert_eq!(image[5 * 512..5 * 512 + 4096], bytes[..]);
}

#[test]
fn blocks_past_the_end_are_out_of_range() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    adapter.ready(&mut m, (0, 0));
    let last = BLOCKS as u32 - 1;
    assert_eq!(adapter.run(&mut m, (0, 0), &read10(last, 1), 512, true), Outcome::good(0));
    for (block, blocks) in [(last + 1, 1), (last, 2), (u32::MAX, 1)] {
        let len = u32::from(blocks) * 512;
        let outcome = adapter.run(&mut m, (0, 0), &read10(block, blocks), len, true);
        assert!(outcome.is([5, 0x21, 0]), "{outcome:?}");
        let outcome = adapter.run(&mut m, (0, 0), &write10(block, blocks), len, false);
        assert!(outcome.is([5, 0x21, 0]), "{outcome:?}");
    }
}

#[test]
fn the_capacity_is_that_of_the_image() {
    let (mut m, mut adapter) = adapter(&["scsi-hd", "scsi-hd,logical_block_size=4096"]);
    for (target, block) in [(0, 512u32), (1, 4096)] {
        adapter.ready(&mut m, (target, 0));
        let data = adapter.inquire(&mut m, (target, 0), &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
        let last = (BLOCKS * 512 / u64::from(block) - 1) as u32;
        assert_eq!(data, [last.to_be_bytes(), block.to_be_bytes()].concat());
        let mut cdb = [0; 16];
        (cdb[0], cdb[1], cdb[13]) = (0x9e, 0x10, 32);
        let data = adapter.inquire(&mut m, (target, 0), &cdb, 32);
        assert_eq!(data[..8], u64::from(last).to_be_bytes());
        assert_eq!(data[8..12], block.to_be_bytes());
    }
}

#[test]
fn unknown_commands_and_fields_are_named_in_the_sense_data() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    adapter.ready(&mut m, (0, 0));
    assert!(adapter.simple(&mut m, (0, 0), &[0xc7]).is([5, 0x20, 0]), "operation code");
    let page = adapter.run(&mut m, (0, 0), &[0x12, 1, 0x77, 0, 36, 0], 36, true);
    assert!(page.is([5, 0x24, 0]), "field in CDB: {page:?}");
    assert_eq!(adapter.simple(&mut m, (0, 0), &TEST_UNIT_READY), Outcome::good(0));
}

#[test]
fn buffers_of_other_sizes_leave_a_residual() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    adapter.ready(&mut m, (0, 0));
    let longer = adapter.run(&mut m, (0, 0), &read10(0, 1), 2048, true);
    assert_eq!(longer, Outcome::good(1536));
    let inquiry = adapter.run(&mut m, (0, 0), &[0x12, 0, 0, 0, 255, 0], 255, true);
    assert!(inquiry.residual > 0 && inquiry.status == GOOD, "{inquiry:?}");
}

#[test]
fn luns_of_a_target_are_reported() {
    let units = ["scsi-hd,scsi-id=2,lun=0", "scsi-hd,scsi-id=2,lun=5"];
    let (mut m, mut adapter) = adapter(&units);
    let data = adapter.inquire(&mut m, (2, 0), &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0], 64);
    assert_eq!(data[..4], 16u32.to_be_bytes());
    assert_eq!(data[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]);
    adapter.ready(&mut m, (2, 5));
    // A LUN that is not there says so in its INQUIRY data.
    let data = adapter.inquire(&mut m, (2, 3), &[0x12, 0, 0, 0, 36, 0], 36);
    assert_eq!(data[0], 0x7f);
    let outcome = adapter.simple(&mut m, (2, 3), &TEST_UNIT_READY);
    assert!(outcome.is([5, 0x25, 0]), "{outcome:?}");
}

#[test]
fn a_cd_is_write_protected() {
    let (mut m, mut adapter) = adapter(&["scsi-cd"]);
    adapter.ready(&mut m, (0, 0));
    let data = adapter.inquire(&mut m, (0, 0), &[0x12, 0, 0, 0, 36, 0], 36);
    assert_eq!((data[0], data[1] & 0x80), (5, 0x80), "a CD drive with a removable medium");
    let outcome = adapter.run(&mut m, (0, 0), &write10(0, 1), 2048, false);
    assert!(outcome.is([7, 0x27, 0]), "{outcome:?}");
    assert_eq!(adapter.run(&mut m, (0, 0), &read10(3, 1), 2048, true), Outcome::good(0));
}

#[test]
fn unmap_and_write_same_zero() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    adapter.ready(&mut m, (0, 0));
    m.write(adapter.data, &[0x5a; 4096]);
    assert_eq!(adapter.run(&mut m, (0, 0), &write10(0, 8), 4096, false), Outcome::good(0));
    // WRITE SAME(16) with UNMAP of blocks 1 and 2, from a block of zeroes.
    m.write(adapter.data, &[0; 512]);
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[9], cdb[13]) = (0x93, 8, 1, 2);
    assert_eq!(adapter.run(&mut m, (0, 0), &cdb, 512, false), Outcome::good(0));
    // UNMAP of blocks 4 and 5.
    let mut list = [0; 24];
    (list[1], list[3], list[15], list[19]) = (22, 16, 4, 2);
    m.write(adapter.data, &list);
    let unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    assert_eq!(adapter.run(&mut m, (0, 0), &unmap, 24, false), Outcome::good(0));
    let data = adapter.inquire(&mut m, (0, 0), &read10(0, 8), 4096);
    for (block, bytes) in data.chunks(512).enumerate() {
        let expected = if matches!(block, 1 | 2) { 0 } else { 0x5a };
        // What a file without discard support reads after UNMAP is not ours to say.
        if !matches!(block, 4 | 5) {
            assert!(bytes.iter().all(|byte| *byte == expected), "{block}");
        }
    }
}

#[test]
fn resets_are_followed_by_an_attention() {
    let (mut m, mut adapter) = adapter(&["scsi-hd,scsi-id=1", "scsi-hd,scsi-id=2"]);
    adapter.ready(&mut m, (1, 0));
    adapter.ready(&mut m, (2, 0));
    // LOGICAL UNIT RESET, of one.
    assert_eq!(adapter.manage(&mut m, 5, (1, 0)), 0);
    assert!(adapter.simple(&mut m, (1, 0), &TEST_UNIT_READY).is([6, 0x29, 3]));
    assert_eq!(adapter.simple(&mut m, (1, 0), &TEST_UNIT_READY), Outcome::good(0));
    assert_eq!(adapter.simple(&mut m, (2, 0), &TEST_UNIT_READY), Outcome::good(0));
    // I_T NEXUS RESET.
    assert_eq!(adapter.manage(&mut m, 4, (2, 0)), 0);
    let outcome = adapter.simple(&mut m, (2, 0), &TEST_UNIT_READY);
    assert!(outcome.sense.is_some_and(|[key, code, _]| (key, code) == (6, 0x29)), "{outcome:?}");
}

#[test]
fn task_management_of_nothing_succeeds_and_of_nobody_does_not() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    adapter.ready(&mut m, (0, 0));
    for function in [0, 1, 3, 6, 7] {
        assert_eq!(adapter.manage(&mut m, function, (0, 0)), 0, "{function}");
        assert_eq!(adapter.manage(&mut m, function, (9, 0)), BAD_TARGET, "{function}");
    }
    assert_eq!(adapter.manage(&mut m, 99, (0, 0)), 11, "function rejected");
}

#[test]
fn a_disk_that_comes_and_goes_is_told() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    let path = adapter.dir.path().join("new");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut qmp = m.qmp();
    let node = json!({"driver": "file", "filename": path, "node-name": "n"});
    qmp.execute_with("blockdev-add", node);
    let at = adapter.post_event(&mut m);
    let disk = json!({"driver": "scsi-hd", "drive": "n", "id": "h", "bus": "s.0", "scsi-id": 7});
    qmp.execute_with("device_add", disk);
    assert_eq!(adapter.event(&mut m, at), (1, 7, 0, 1), "RESCAN");
    adapter.ready(&mut m, (7, 0));
    let at = adapter.post_event(&mut m);
    qmp.execute_with("device_del", json!({"id": "h"}));
    assert_eq!(adapter.event(&mut m, at), (1, 7, 0, 2), "REMOVED");
    qmp.wait_event("DEVICE_DELETED");
    assert_eq!(adapter.simple(&mut m, (7, 0), &TEST_UNIT_READY).response, BAD_TARGET);
    qmp.execute_with("blockdev-del", json!({"node-name": "n"}));
}

#[test]
fn events_without_a_buffer_are_told_as_missed() {
    let (mut m, mut adapter) = adapter(&["scsi-hd", "scsi-hd"]);
    let mut qmp = m.qmp();
    let path = adapter.dir.path().join("new");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let node = json!({"driver": "file", "filename": path, "node-name": "n"});
    qmp.execute_with("blockdev-add", node);
    for _ in 0..2 {
        let disk = json!({"driver": "scsi-hd", "drive": "n", "id": "h", "bus": "s.0"});
        qmp.execute_with("device_add", disk);
        qmp.execute_with("device_del", json!({"id": "h"}));
        qmp.wait_event("DEVICE_DELETED");
    }
    // The queue's core hears of them a little later; the clock waits for all it has to do.
    m.step(1);
    let at = adapter.post_event(&mut m);
    assert_eq!(adapter.event(&mut m, at).0 & 1 << 31, 1 << 31, "events were missed");
}

#[test]
fn an_adapter_that_moves_forgets_nothing() {
    let (mut m, mut adapter) = adapter(&["scsi-hd", "scsi-hd"]);
    let mut qmp = m.qmp();
    for id in ["io0", "io1"] {
        qmp.execute_with("object-add", json!({"qom-type": "iothread", "id": id}));
    }
    adapter.ready(&mut m, (0, 0));
    let at = adapter.post_event(&mut m);
    for n in 0..10 {
        crate::rehome::to(&mut qmp, "s", n % 2);
        assert_eq!(adapter.simple(&mut m, (0, 0), &TEST_UNIT_READY), Outcome::good(0));
        assert_eq!(adapter.manage(&mut m, 1, (0, 0)), 0);
    }
    let path = adapter.dir.path().join("new");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let node = json!({"driver": "file", "filename": path, "node-name": "n"});
    qmp.execute_with("blockdev-add", node);
    let disk = json!({"driver": "scsi-hd", "drive": "n", "id": "h", "bus": "s.0", "scsi-id": 7});
    qmp.execute_with("device_add", disk);
    assert_eq!(adapter.event(&mut m, at), (1, 7, 0, 1), "RESCAN");
    // Nobody has a buffer for this one.
    qmp.execute_with("device_del", json!({"id": "h"}));
    qmp.wait_event("DEVICE_DELETED");
    m.step(1);
    crate::rehome::to(&mut qmp, "s", 0);
    let at = adapter.post_event(&mut m);
    assert_eq!(adapter.event(&mut m, at).0 & 1 << 31, 1 << 31, "an event was missed");
}

#[test]
fn a_reset_of_the_adapter_forgets_and_goes_on() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    adapter.ready(&mut m, (0, 0));
    for _ in 0..3 {
        let [control, event, request] = start(&mut m, &adapter.device);
        (adapter.control, adapter.event, adapter.request) = (control, event, request);
        let outcome = adapter.simple(&mut m, (0, 0), &TEST_UNIT_READY);
        assert!(outcome.sense.is_none_or(|[key, code, _]| (key, code) == (6, 0x29)));
        assert_eq!(adapter.simple(&mut m, (0, 0), &TEST_UNIT_READY), Outcome::good(0));
    }
}

#[test]
fn short_chains_need_a_reset() {
    for (header, answer) in [(HEADER as u32 - 1, ANSWER), (HEADER as u32, ANSWER - 1), (1, 0)] {
        let (mut m, mut adapter) = adapter(&["scsi-hd"]);
        adapter.write_header(&mut m, 0, 0, &TEST_UNIT_READY);
        let mut buffers = vec![(adapter.header, header, false)];
        if answer > 0 {
            buffers.push((adapter.answer, answer, true));
        }
        let head = adapter.request.chain(&mut m, &buffers);
        adapter.request.offer(&mut m, head);
        adapter.request.ring(&mut m);
        let status = adapter.device.common + STATUS;
        m.until("NEEDS_RESET", |m| m.readb(status) & NEEDS_RESET != 0);
        let [_, _, request] = start(&mut m, &adapter.device);
        adapter.request = request;
        assert_eq!(adapter.simple(&mut m, (0, 0), &TEST_UNIT_READY).response, 0);
    }
}

#[test]
fn gigabytes_over_one_buffer_end() {
    let (mut m, mut adapter) = adapter(&["scsi-hd"]);
    adapter.ready(&mut m, (0, 0));
    adapter.write_header(&mut m, 0, 0, &read10(0, 1));
    // 62 descriptors of 64 MiB each over the same memory.
    let mut buffers = vec![(adapter.header, HEADER as u32, false), (adapter.answer, ANSWER, true)];
    buffers.resize(64, (0, 64 << 20, true));
    let table = m.alloc(4096);
    buffers.iter_mut().skip(2).for_each(|buffer| buffer.0 = table);
    let head = adapter.request.chain(&mut m, &buffers);
    adapter.request.offer(&mut m, head);
    adapter.request.ring(&mut m);
    let status = adapter.device.common + STATUS;
    let used = adapter.request.used + 2;
    let before = adapter.request.used_index;
    m.until("an answer, or a device that wants a reset", |m| {
        m.readw(used) != before || m.readb(status) & NEEDS_RESET != 0
    });
}
