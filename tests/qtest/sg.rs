//! The commands of sg3_utils (Debian), with the CDBs that the tools send, against `scsi-hd`.

use crate::machine::Machine;
use crate::scsi::{Adapter, BLOCKS, Outcome, TEST_UNIT_READY, adapter};
use serde_json::json;

const UNIT: (u8, u8) = (0, 0);
const BLOCK: usize = 512;

/// What `sg_inq` and `sg_vpd` allow for.
const PAGE_ROOM: u32 = 252;

struct Rig {
    m: Machine,
    unit: Adapter,
}

fn rig() -> Rig {
    let (mut m, mut unit) = adapter(&["scsi-hd,serial=ser-1,rotation_rate=1"]);
    unit.ready(&mut m, UNIT);
    Rig { m, unit }
}

fn cdb10(code: u8, flags: u8, block: u32, count: u16) -> [u8; 10] {
    let ([a, b, c, d], [high, low]) = (block.to_be_bytes(), count.to_be_bytes());
    [code, flags, a, b, c, d, 0, high, low, 0]
}

fn cdb16(code: u8, flags: u8, block: u64, count: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (code, flags);
    cdb[2..10].copy_from_slice(&block.to_be_bytes());
    cdb[10..14].copy_from_slice(&count.to_be_bytes());
    cdb
}

impl Rig {
    fn inquire(&mut self, cdb: &[u8], len: u32) -> Vec<u8> {
        self.unit.inquire(&mut self.m, UNIT, cdb, len)
    }

    fn page(&mut self, page: u8) -> Vec<u8> {
        self.inquire(&[0x12, 1, page, 0, PAGE_ROOM as u8, 0], PAGE_ROOM)
    }

    fn simple(&mut self, cdb: &[u8]) -> Outcome {
        self.unit.simple(&mut self.m, UNIT, cdb)
    }

    fn send(&mut self, cdb: &[u8], data: &[u8]) -> Outcome {
        self.m.write(self.unit.data, data);
        self.unit.run(&mut self.m, UNIT, cdb, data.len() as u32, false)
    }

    /// A command with data to the unit, or none, that has to succeed.
    fn good(&mut self, cdb: &[u8], data: &[u8]) {
        let outcome = if data.is_empty() { self.simple(cdb) } else { self.send(cdb, data) };
        assert_eq!(outcome, Outcome::good(0), "{cdb:x?}");
    }

    fn image(&self) -> Vec<u8> {
        std::fs::read(self.unit.dir.path().join("0")).unwrap()
    }
}

#[test]
fn sg_inq_and_sg_vpd() {
    let mut rig = rig();
    let data = rig.inquire(&[0x12, 0, 0, 0, 36, 0], 36);
    assert_eq!(data[..4], [0, 0, 5, 0x12], "a disk, SPC-3");
    assert_eq!(&data[8..32], b"RINGVISRHARDDISK        ");
    assert_eq!(rig.page(0x00), [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    assert_eq!(rig.page(0x80), b"\x00\x80\x00\x05ser-1");
    assert_eq!(rig.page(0x83)[..13], *b"\x00\x83\x00\x09\x02\x00\x00\x05ser-1");
    let limits = rig.page(0xb0);
    let number = |at: usize| u32::from_be_bytes(limits[at..at + 4].try_into().unwrap());
    assert_eq!(limits.len(), 64);
    assert!(number(20) > 0 && number(24) > 0, "blocks and ranges of UNMAP: {limits:x?}");
    assert_eq!(rig.page(0xb1)[4..6], [0, 1], "it does not rotate");
    assert_eq!(rig.page(0xb2)[5] & 0xe0, 0xe0, "UNMAP and both WRITE SAME unmap");
}

#[test]
fn sg_luns_and_sg_readcap() {
    let mut rig = rig();
    // SELECT REPORT 0, room for 8192 bytes.
    let luns = rig.inquire(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0], 8192);
    assert_eq!(luns, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let last = BLOCKS as u32 - 1;
    let capacity = rig.inquire(&cdb10(0x25, 0, 0, 0), 8);
    assert_eq!(capacity, [last.to_be_bytes(), 512u32.to_be_bytes()].concat());
    let capacity = rig.inquire(&cdb16(0x9e, 0x10, 0, 32), 32);
    assert_eq!(capacity[..8], u64::from(last).to_be_bytes());
    assert_eq!(capacity[14] & 0x80, 0x80, "blocks can be unmapped");
}

#[test]
fn sg_turs_sg_requests_sg_modes_and_sg_start() {
    let mut rig = rig();
    rig.good(&TEST_UNIT_READY, &[]);
    let sense = rig.inquire(&[3, 0, 0, 0, 252, 0], 252);
    assert_eq!((sense[0], sense[2]), (0x70, 0), "nothing to tell");
    let pages = rig.inquire(&[0x5a, 0, 0x3f, 0, 0, 0, 0, 0x10, 0, 0], 4096);
    assert_eq!(u16::from_be_bytes([pages[0], pages[1]]) as usize, pages.len() - 2);
    rig.good(&[0x1b, 0, 0, 0, 0, 0], &[]);
    assert!(rig.simple(&TEST_UNIT_READY).is([2, 4, 2]), "stopped: it wants to be started");
    rig.good(&[0x1b, 0, 0, 0, 1, 0], &[]);
    rig.good(&TEST_UNIT_READY, &[]);
}

#[test]
fn reads_and_writes_of_every_length_with_fua() {
    const FUA: u8 = 8;
    let mut rig = rig();
    let pattern = |seed: u8| vec![seed; 2 * BLOCK];
    let mut cdb12 = [0; 12];
    (cdb12[0], cdb12[1], cdb12[5], cdb12[9]) = (0xaa, FUA, 6, 2);
    let writes: [&[u8]; 4] =
        [&[0x0a, 0, 0, 2, 2, 0], &cdb10(0x2a, FUA, 4, 2), &cdb12, &cdb16(0x8a, FUA, 8, 2)];
    for (seed, write) in (1..).zip(writes) {
        rig.good(write, &pattern(seed));
        // What is forced to the medium is in the image at once.
        let at = 2 * BLOCK * usize::from(seed);
        assert_eq!(rig.image()[at..at + 2 * BLOCK], pattern(seed), "{write:x?}");
        let mut read = write.to_vec();
        read[0] -= 2;
        assert_eq!(rig.inquire(&read, 2 * BLOCK as u32), pattern(seed), "{read:x?}");
    }
}

#[test]
fn sg_write_same_sg_unmap_sg_verify_and_sg_sync() {
    let mut rig = rig();
    rig.good(&cdb10(0x2a, 0, 0, 40), &vec![0x5a; 40 * BLOCK]);
    rig.good(&cdb10(0x41, 0, 4, 4), &[0; BLOCK]);
    let same: Vec<u8> = b"same\n".iter().copied().cycle().take(BLOCK).collect();
    rig.good(&cdb16(0x93, 0, 8, 4), &same);
    rig.good(&cdb16(0x93, 8, 16, 8), &[0; BLOCK]);
    // No number of blocks stands for all that follow, which page B0 says is refused.
    assert!(rig.send(&cdb16(0x93, 0, 8, 0), &same).is([5, 0x24, 0]));
    let mut list = [0; 24];
    (list[1], list[3], list[15], list[19]) = (22, 16, 24, 8);
    rig.good(&cdb10(0x42, 0, 0, 24), &list);
    let end = u32::try_from(BLOCKS).unwrap();
    list[12..16].copy_from_slice(&end.to_be_bytes());
    assert!(rig.send(&cdb10(0x42, 0, 0, 24), &list).is([5, 0x21, 0]), "past the end");
    rig.good(&cdb10(0x2f, 0, 0, 64), &[]);
    assert!(rig.simple(&cdb10(0x2f, 0, end, 1)).is([5, 0x21, 0]));
    rig.good(&cdb10(0x35, 0, 0, 0), &[]);
    rig.good(&cdb16(0x91, 0, 0, 0), &[]);
    let image = rig.image();
    for (number, block) in image[..40 * BLOCK].chunks(BLOCK).enumerate() {
        let expected = match number {
            4..8 | 16..32 => vec![0; BLOCK],
            8..12 => same.clone(),
            _ => vec![0x5a; BLOCK],
        };
        assert_eq!(block, expected, "block {number}");
    }
}

#[test]
fn sg_reset() {
    // LOGICAL UNIT RESET and I_T NEXUS RESET: what a device reset and a host reset become.
    for function in [5, 4] {
        let mut rig = rig();
        assert_eq!(rig.unit.manage(&mut rig.m, function, UNIT), 0);
        let outcome = rig.simple(&TEST_UNIT_READY);
        assert_eq!(outcome.sense.map(|[key, code, _]| (key, code)), Some((6, 0x29)));
        rig.good(&TEST_UNIT_READY, &[]);
    }
}

#[test]
fn a_new_size_is_told_by_an_event_and_an_attention() {
    let mut rig = rig();
    let mut qmp = rig.m.qmp();
    let at = rig.unit.post_event(&mut rig.m);
    let bigger = (BLOCKS + 8) * BLOCK as u64;
    qmp.execute_with("block_resize", json!({"device": "d0", "size": bigger}));
    let (kind, target, lun, reason) = rig.unit.event(&mut rig.m, at);
    assert_eq!((kind, target, lun, reason), (3, 0, 0, 0x092a), "capacity data has changed");
    assert!(rig.simple(&TEST_UNIT_READY).is([6, 0x2a, 9]));
    let capacity = rig.inquire(&cdb10(0x25, 0, 0, 0), 8);
    assert_eq!(capacity[..4], (BLOCKS as u32 + 7).to_be_bytes());
}
