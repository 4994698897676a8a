use super::layout::{ECAM, GIB, HIGH_RAM_START, LOW_RAM_END, MIB, PCI32, pci64_window};
use super::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

const MEMFD: Backing = Backing::Memfd { huge: None, seal: true };

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn ram_has_a_hole_below_4_gib() {
    assert_eq!(ranges(128 * MIB), vec![0..128 * MIB]);
    assert_eq!(ranges(LOW_RAM_END), vec![0..LOW_RAM_END]);
    let large = ranges(6 * GIB);
    assert_eq!(large, [0..LOW_RAM_END, HIGH_RAM_START..HIGH_RAM_START + 3 * GIB]);
    assert_eq!(large.iter().map(|r| r.end - r.start).sum::<u64>(), 6 * GIB);
}

#[test]
fn six_gib_can_be_built_anywhere_and_cost_nothing_until_written() {
    let before = resident_kib();
    let ram = build(&RamConfig::new(6 * GIB)).unwrap();
    assert_eq!(ram.num_regions(), 2);
    ram.write_obj(0x1122_3344u32, GuestAddress(HIGH_RAM_START + 3 * GIB - 4)).unwrap();
    assert_eq!(
        ram.read_obj::<u32>(GuestAddress(HIGH_RAM_START + 3 * GIB - 4)).unwrap(),
        0x1122_3344
    );
    assert!(ram.read_obj::<u8>(GuestAddress(LOW_RAM_END)).is_err());
    assert!(resident_kib() < before + 8192, "building RAM touched it");
}

#[test]
fn shared_ram_has_a_file_behind_it() {
    let ram =
        build(&RamConfig { shared: true, backing: MEMFD, ..RamConfig::new(4 * GIB) }).unwrap();
    let offsets: Vec<_> = ram.iter().map(|r| r.file_offset().unwrap().start()).collect();
    assert_eq!(offsets, [0, LOW_RAM_END]);
}

#[test]
fn memory_can_be_in_a_file_and_outlive_the_guest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ram");
    let config = RamConfig {
        backing: Backing::File { path: path.clone(), offset: 0x1000 },
        shared: true,
        ..RamConfig::new(2 * MIB)
    };
    let ram = build(&config).unwrap();
    ram.write_obj(0x1122_3344u32, GuestAddress(MIB)).unwrap();
    drop(ram);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 * MIB + 0x1000);
    let again = build(&config).unwrap();
    assert_eq!(again.read_obj::<u32>(GuestAddress(MIB)).unwrap(), 0x1122_3344);
    // What a private mapping writes stays its own.
    let private = build(&RamConfig { shared: false, ..config.clone() }).unwrap();
    private.write_obj(5u32, GuestAddress(MIB)).unwrap();
    assert_eq!(again.read_obj::<u32>(GuestAddress(MIB)).unwrap(), 0x1122_3344);
    // A directory gets a file that nobody sees.
    let backing = Backing::File { path: directory.path().to_owned(), offset: 0 };
    build(&RamConfig { backing, ..config }).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn memory_can_be_there_from_the_start() {
    let before = resident_kib();
    let size = 64 * MIB;
    let memory = spare(&RamConfig { populate: 2, backing: MEMFD, ..RamConfig::new(size) }).unwrap();
    // Other tests come and go.
    assert!(resident_kib() >= before + 48 * 1024);
    drop(memory);
}

#[test]
fn what_cannot_hold_memory_says_so() {
    let text = |backing, size| {
        spare(&RamConfig { backing, ..RamConfig::new(size) }).unwrap_err().to_string()
    };
    let file = |path: &str, offset| Backing::File { path: path.into(), offset };
    assert_eq!(
        text(file("/nonexistent/x", 0), MIB),
        "can't open backing store /nonexistent/x for guest RAM: No such file or directory (os error 2)"
    );
    assert_eq!(text(MEMFD, MIB + 1), "memory size must be multiple of 4 KiB");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(text(file(path, 1), MIB), "memory size must be multiple of 4 KiB");
}

#[test]
fn refusals_name_the_option_and_the_cure() {
    let text = |size| check(size).unwrap_err().to_string();
    assert!(text(4097).contains("multiple of 4096"));
    assert!(text(MIB).contains("at least 2 MiB"));
    let large = text(1 << 60);
    assert!(large.contains("physical address bits") && large.contains("ask for less"), "{large}");
    assert!(!large.contains('\n'));
    // Below the processor's limit but above what one process can map, on hosts with 52 bits.
    if let Err(e) = build(&RamConfig::new(1 << 47)) {
        assert!(e.to_string().starts_with("-m: "), "{e}");
    }
}

#[test]
fn the_memory_map_is_ascending_and_covers_all_ram() {
    for size in [2 * MIB, 128 * MIB, LOW_RAM_END, 6 * GIB] {
        let map = e820(size);
        assert!(map.windows(2).all(|w| w[0].start + w[0].len <= w[1].start), "{map:x?}");
        let ram: u64 = map.iter().filter(|e| e.kind == E820Kind::Ram).map(|e| e.len).sum();
        // All but the legacy area between 639 KiB and 1 MiB.
        assert_eq!(ram, size - (MIB - layout::LOW_MEMORY.end));
    }
}

#[test]
fn windows_do_not_meet_ram() {
    assert_eq!(ECAM.end, PCI32.start);
    let window = pci64_window(6 * GIB, 40);
    assert_eq!(window.start, HIGH_RAM_START + 3 * GIB);
    assert_eq!(window.end - window.start, 512 * GIB);
    assert!(pci64_window(63 * GIB, 36).is_empty());
    assert_eq!(pci64_window(GIB, 36), 4 * GIB..64 * GIB);
}

#[test]
fn sizes_print_in_the_unit_people_use() {
    assert_eq!(Size(6 * GIB).to_string(), "6 GiB");
    assert_eq!(Size(1536 * MIB).to_string(), "1536 MiB");
    assert_eq!(Size(4097).to_string(), "4097 bytes");
}
