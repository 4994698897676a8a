//! Commands without a transport.

use super::opcodes;
use super::*;
use crate::block::{BoxFuture, Disk, DiskError, DiskInfo, DiskQueue, Request};
use proptest::prelude::*;
use std::io;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

/// A disk that nobody reads or writes.
struct Shape {
    bytes: u64,
    discard: Option<u32>,
}

impl Disk for Shape {
    fn name(&self) -> &'static str {
        "shape"
    }

    fn size(&self) -> u64 {
        self.bytes
    }

    fn info(&self) -> DiskInfo {
        DiskInfo {
            read_only: false,
            writeback: true,
            physical_block: 4096,
            discard_granularity: self.discard,
        }
    }

    fn queue(
        &self,
        _: &Arc<GuestMemoryMmap<()>>,
        _: usize,
        _: usize,
    ) -> io::Result<Box<dyn DiskQueue>> {
        Err(io::Error::other("nobody reads it"))
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async { Ok(()) })
    }
}

fn unit_of(options: UnitOptions, bytes: u64) -> LogicalUnit {
    LogicalUnit::new(options, Some(Arc::new(Shape { bytes, discard: Some(4096) }))).unwrap()
}

fn quiet(kind: Kind) -> LogicalUnit {
    let unit = unit_of(UnitOptions::new(kind), 1 << 30);
    assert_eq!(run(&unit, &[0]).unwrap_err(), Attention::PowerOn.sense());
    unit
}

fn cdb(bytes: &[u8]) -> Cdb {
    let mut cdb = Cdb::default();
    cdb[..bytes.len()].copy_from_slice(bytes);
    cdb
}

fn run_with(unit: &LogicalUnit, bytes: &[u8], parameters: &[u8]) -> Result<Plan, Sense> {
    let cdb = cdb(bytes);
    unit.plan(&cdb, Command::parse(&cdb, unit.kind()), &|into| {
        let n = into.len().min(parameters.len());
        into[..n].copy_from_slice(&parameters[..n]);
        n
    })
}

fn run(unit: &LogicalUnit, bytes: &[u8]) -> Result<Plan, Sense> {
    run_with(unit, bytes, &[])
}

#[track_caller]
fn data(unit: &LogicalUnit, bytes: &[u8]) -> Vec<u8> {
    match run(unit, bytes) {
        Ok(Plan::Data(data)) => data,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_table_of_commands_is_what_is_understood() {
    for kind in [Kind::Disk, Kind::Cd] {
        for opcode in opcodes::of(kind) {
            assert_eq!(opcode.usage[0], opcode.code);
            let lengths = [6, 10, 10, 0, 16, 12, 0, 0];
            assert_eq!(opcode.usage.len(), lengths[usize::from(opcode.code >> 5)]);
            let mut cdb = Cdb::default();
            (cdb[0], cdb[1]) = (opcode.code, opcode.action.unwrap_or(0));
            let parsed = Command::parse(&cdb, kind);
            assert_ne!(parsed, Err(Sense::INVALID_OPCODE), "{:#x}", opcode.code);
        }
        for code in 0..=u8::MAX {
            let known = opcodes::of(kind).any(|opcode| opcode.code == code);
            let parsed = Command::parse(&cdb(&[code]), kind);
            assert_eq!(parsed == Err(Sense::INVALID_OPCODE), !known, "{code:#x}");
        }
    }
}

#[test]
fn standard_inquiry_names_the_device() {
    let options = UnitOptions { removable: true, ..UnitOptions::new(Kind::Disk) };
    let unit = unit_of(options, 1 << 20);
    // A unit attention stays for the next command.
    let inquiry = data(&unit, &[0x12, 0, 0, 0, 96, 0]);
    assert_eq!(inquiry[..8], [0, 0x80, 5, 0x12, 31, 0, 0, 2]);
    assert_eq!(&inquiry[8..], b"RINGVISRHARDDISK        1.0 ");
    let cd = quiet(Kind::Cd);
    assert_eq!(data(&cd, &[0x12, 0, 0, 0, 36, 0])[..2], [5, 0x80]);
    assert_eq!(run(&unit, &[0]).unwrap_err(), Attention::PowerOn.sense());
}

#[test]
fn vital_product_data_pages_are_complete() {
    let options = UnitOptions {
        serial: Some("S-1".to_owned()),
        wwn: 0x5000_c500_1234_5678,
        port_index: 3,
        rotation_rate: 1,
        ..UnitOptions::new(Kind::Disk)
    };
    let unit = unit_of(options, 1 << 30);
    let page = |page| data(&unit, &[0x12, 1, page, 1, 0, 0]);
    assert_eq!(page(0), [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
    assert_eq!(page(0x80), [&[0, 0x80, 0, 3][..], b"S-1"].concat());
    let designators = [
        &[0, 0x83, 0, 7 + 12 + 8, 2, 0, 0, 3][..],
        b"S-1",
        &[1, 3, 0, 8, 0x50, 0, 0xc5, 0, 0x12, 0x34, 0x56, 0x78],
        &[1, 0x14, 0, 4, 0, 0, 0, 3],
    ];
    assert_eq!(page(0x83), designators.concat());
    let limits = page(0xb0);
    assert_eq!((limits.len(), limits[3], limits[4]), (64, 60, 1));
    assert_eq!(limits[6..8], [0, 8], "blocks in a physical one");
    assert_eq!(limits[20..32], [0, 0x20, 0, 0, 0, 0, 0, 255, 0, 0, 0, 8]);
    assert_eq!(limits[36..44], [0, 0, 0, 0, 0, 0x20, 0, 0]);
    assert_eq!(page(0xb1)[4..6], [0, 1]);
    assert_eq!(page(0xb2)[4..], [0, 0xe0, 2, 0]);
    let cd = quiet(Kind::Cd);
    assert_eq!(data(&cd, &[0x12, 1, 0, 1, 0, 0]), [5, 0, 0, 2, 0, 0x83]);
    assert_eq!(run(&cd, &[0x12, 1, 0xb0, 1, 0, 0]).unwrap_err(), Sense::INVALID_FIELD);
    assert_eq!(run(&cd, &[0x12, 1, 0x80, 1, 0, 0]).unwrap_err(), Sense::INVALID_FIELD);
}

#[test]
fn capacity_is_told_up_to_the_largest_numbers() {
    let unit = unit_of(UnitOptions::new(Kind::Disk), 1 << 42);
    run(&unit, &[0]).unwrap_err();
    assert_eq!(data(&unit, &[0x25]), [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
    let mut long = [0; 16];
    (long[0], long[1], long[13]) = (0x9e, 0x10, 32);
    let capacity = data(&unit, &long);
    assert_eq!(capacity[..12], [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
    assert_eq!((capacity.len(), capacity[13], capacity[14]), (32, 3, 0x80));
    long[13] = 8;
    assert_eq!(data(&unit, &long).len(), 8, "cut to the allocation length");
}

#[test]
fn attentions_are_told_one_after_the_other() {
    let unit = quiet(Kind::Disk);
    for attention in [Attention::LunsChanged, Attention::ModeChanged, Attention::CapacityChanged] {
        unit.attend(attention);
        unit.attend(attention);
    }
    for expected in [(0x2a, 9), (0x2a, 1), (0x3f, 0x0e)] {
        let sense = run(&unit, &[0]).unwrap_err();
        assert_eq!((sense.key, sense.asc, sense.ascq), (6, expected.0, expected.1));
    }
    assert!(run(&unit, &[0]).is_ok());
    // REQUEST SENSE tells it as data; REPORT LUNS takes what it is about.
    unit.attend(Attention::CapacityChanged);
    unit.attend(Attention::LunsChanged);
    let luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
    assert!(matches!(run(&unit, &luns), Ok(Plan::Luns { well_known: false })));
    let sense = data(&unit, &[3, 0, 0, 0, 18, 0]);
    assert_eq!((sense[0], sense[2], sense[12], sense[13]), (0x70, 6, 0x2a, 9));
    assert_eq!(data(&unit, &[3, 1, 0, 0, 18, 0]), [0x72, 0, 0, 0, 0, 0, 0, 0]);
    assert!(run(&unit, &[0]).is_ok());
    // A reset covers what was before, and is not covered by less.
    unit.attend(Attention::ModeChanged);
    unit.reset(Attention::PowerOn);
    unit.reset(Attention::DeviceReset);
    // Commands that are refused tell it as well.
    assert_eq!(run(&unit, &[0xff]).unwrap_err(), Attention::PowerOn.sense());
    assert_eq!(run(&unit, &[0xff]).unwrap_err(), Sense::INVALID_OPCODE);
    unit.set_write_cache(false);
    assert_eq!(run(&unit, &[0]).unwrap_err(), Attention::ModeChanged.sense());
}

#[test]
fn mode_pages_are_told_as_asked() {
    let unit = quiet(Kind::Disk);
    let all = data(&unit, &[0x1a, 0, 0x3f, 0, 255, 0]);
    assert_eq!(usize::from(all[0]), all.len() - 1);
    assert_eq!(all[1..4], [0, 0x10, 8], "DPOFUA, one block descriptor");
    assert_eq!(all[4..12], [0, 0x20, 0, 0, 0, 0, 2, 0]);
    let mut pages = Vec::new();
    let mut rest = &all[12..];
    while let [code, length, ..] = *rest {
        pages.push(code);
        rest = &rest[2 + usize::from(length)..];
    }
    assert_eq!(pages, [0x01, 0x04, 0x08, 0x0a]);
    let long = data(&unit, &[0x5a, 8, 0x3f, 0xff, 0, 0, 0, 1, 0, 0]);
    assert_eq!((long[1] as usize, long[7]), (long.len() - 2, 0), "no block descriptor");
    assert_eq!(long[8..], all[12..]);
    let changeable = data(&unit, &[0x1a, 8, 0x48, 0, 255, 0]);
    assert_eq!(changeable[4..8], [8, 18, 4, 0]);
    assert!(changeable[8..].iter().all(|byte| *byte == 0));
    let cd = data(&quiet(Kind::Cd), &[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 255, 0]);
    assert_eq!(cd[8..10], [0x2a, 20]);
}

#[test]
fn mode_select_checks_all_before_it_changes_any() {
    let unit = quiet(Kind::Disk);
    let select =
        |list: &[u8]| run_with(&unit, &[0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], list);
    let page = |wce: u8| [&[8, 18, wce][..], &[0; 17]].concat();
    let list = |descriptor: &[u8], pages: &[u8]| {
        [&[0, 0, 0, 0, 0, 0, 0, descriptor.len() as u8][..], descriptor, pages].concat()
    };
    let on = || data(&unit, &[0x1a, 8, 8, 0, 64, 0])[6] == 4;
    let control = [&[0x0a, 10][..], &[0; 10]].concat();
    let (parameter, length) = (Sense::INVALID_PARAMETER, Sense::PARAMETER_LENGTH);
    let off_and = |more: &[u8]| list(&[], &[&page(0)[..], more].concat());
    for (bytes, sense) in [
        (off_and(&[8]), length),
        (off_and(&[8, 18, 0]), length),
        (off_and(&[0x0a, 10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), parameter),
        (off_and(&[0x0e, 2, 0, 0]), parameter),
        (off_and(&[0x48, 0, 0, 0]), parameter),
        (list(&[0, 0, 0, 0, 0, 0, 4, 0], &page(0)), parameter),
        (list(&[0; 7], &page(0)), parameter),
        (vec![0; 7], length),
    ] {
        assert_eq!(select(&bytes).unwrap_err(), sense, "{bytes:x?}");
        assert!(on());
    }
    let good = list(&[0, 0, 0, 0, 0, 0, 2, 0], &[page(0), control].concat());
    assert!(matches!(select(&good), Ok(Plan::Disk(Request::Flush))));
    assert!(!on());
    assert!(matches!(select(&list(&[], &page(4))), Ok(Plan::Good)));
    assert!(on());
    // Not as the standard's pages, or to be saved.
    for flags in [0x00, 0x11] {
        assert_eq!(run(&unit, &[0x15, flags, 0, 0, 0, 0]).unwrap_err(), Sense::INVALID_FIELD);
    }
}

#[test]
fn supported_commands_are_reported() {
    let unit = quiet(Kind::Disk);
    let report = |options: u8, code: u8, action: u8| {
        run(&unit, &[0xa3, 0x0c, options, code, 0, action, 0, 0, 4, 0, 0, 0])
    };
    let Ok(Plan::Data(all)) = report(0, 0, 0) else { panic!("all of them") };
    assert_eq!(all.len() - 4, u32::from_be_bytes(all[..4].try_into().unwrap()) as usize);
    assert_eq!(all.len() - 4, 8 * opcodes::of(Kind::Disk).count());
    let Ok(Plan::Data(one)) = report(1, 0x28, 0) else { panic!("READ(10)") };
    assert_eq!(one, [0, 3, 0, 10, 0x28, 0x18, 255, 255, 255, 255, 0, 255, 255, 0]);
    let Ok(Plan::Data(one)) = report(0x83, 0x9e, 0x10) else { panic!("READ CAPACITY(16)") };
    assert_eq!((one[1], one[3], one[4], one[5], one.len()), (0x83, 16, 0x9e, 0x10, 32));
    let Ok(Plan::Data(none)) = report(1, 0xff, 0) else { panic!("none") };
    assert_eq!(none, [0, 1, 0, 0]);
    assert_eq!(report(1, 0x9e, 0x10).unwrap_err(), Sense::INVALID_FIELD);
    assert_eq!(report(2, 0x28, 0).unwrap_err(), Sense::INVALID_FIELD);
    assert_eq!(report(4, 0, 0).unwrap_err(), Sense::INVALID_FIELD);
}

#[test]
fn the_disc_is_one_track_in_one_session() {
    let unit = quiet(Kind::Cd);
    let toc =
        |format: u8, track: u8, msf: u8| run(&unit, &[0x43, msf, format, 0, 0, 0, track, 1, 0, 0]);
    let Ok(Plan::Data(full)) = toc(2, 0, 2) else { panic!("full TOC") };
    assert_eq!((full.len(), full[1]), (4 + 4 * 11, 46));
    let Ok(Plan::Data(end)) = toc(0, 0xaa, 0) else { panic!("lead-out") };
    assert_eq!(end, [0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 8, 0, 0]);
    let Ok(Plan::Data(sessions)) = toc(1, 0, 0) else { panic!("sessions") };
    assert_eq!(sessions, [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0]);
    assert_eq!(toc(0, 2, 0).unwrap_err(), Sense::INVALID_FIELD);
    assert_eq!(toc(4, 0, 0).unwrap_err(), Sense::INVALID_FIELD);
    let disc = data(&unit, &[0x51, 0, 0, 0, 0, 0, 0, 0, 64, 0]);
    assert_eq!((disc.len(), disc[1], disc[2]), (34, 32, 0x0e));
    let mechanism = data(&unit, &[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    assert_eq!(mechanism, [0, 0, 0, 0, 0, 1, 0, 0]);
    // One gigabyte: no CD holds it.
    let features = data(&unit, &[0x46, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(features[6..8], [0, 0x10], "DVD-ROM");
    assert_eq!(features.len() - 4, usize::from(features[3]));
    let one = data(&unit, &[0x46, 2, 0, 3, 0, 0, 0, 1, 0, 0]);
    assert_eq!(one[8..12], [0, 3, 0x0b, 4]);
}

#[test]
fn options_that_cannot_be_are_refused() {
    let new = |change: fn(&mut UnitOptions)| {
        let mut options = UnitOptions::new(Kind::Disk);
        change(&mut options);
        LogicalUnit::new(options, Some(Arc::new(Shape { bytes: 512, discard: None }))).err()
    };
    let error = new(|options| options.serial = Some("x".repeat(37))).unwrap();
    assert!(error.to_string().starts_with("serial='xxx"), "{error}");
    assert!(new(|options| options.vendor = "too long vendor".to_owned()).is_some());
    assert!(new(|options| options.version = "\u{7}".to_owned()).is_some());
    assert!(new(|options| options.logical_block = 513).is_some());
    assert!(new(|options| options.physical_block = 256).is_some());
    assert_eq!(new(|_| {}), None);
    assert!(LogicalUnit::new(UnitOptions::new(Kind::Disk), None).is_err());
    assert!(LogicalUnit::new(UnitOptions::new(Kind::Cd), None).is_ok());
}

proptest! {
    #[test]
    fn no_command_does_more_than_it_may(
        bytes in any::<[u8; 16]>(),
        parameters in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..64),
        cd in any::<bool>(),
    ) {
        let kind = if cd { Kind::Cd } else { Kind::Disk };
        let unit = quiet(kind);
        let end = 1 << 30;
        let command = Command::parse(&bytes, kind);
        match run_with(&unit, &bytes, &parameters) {
            Ok(Plan::Data(data)) => {
                let (direction, room) = command.unwrap().data(unit.block());
                prop_assert_eq!(direction, Direction::In);
                prop_assert!(data.len() as u64 <= room);
            }
            Ok(Plan::Disk(request)) => {
                let (_, bytes) = command.unwrap().data(unit.block());
                match request {
                    Request::Read { offset } => prop_assert!(offset + bytes <= end),
                    Request::Write { offset, .. } => prop_assert!(!cd && offset + bytes <= end),
                    Request::WriteZeroes { offset, len, .. } => prop_assert!(offset + len <= end),
                    Request::Discard { .. } => prop_assert!(false, "a discard is one of several"),
                    Request::Flush => {}
                }
            }
            Ok(Plan::Good | Plan::Luns { .. } | Plan::Steps(_)) | Err(_) => {}
        }
    }
}
