use super::*;
use acpi_tables::aml::{EISAName, Name};

fn config(cpus: u32) -> AcpiConfig {
    AcpiConfig { apic_ids: (0..cpus).collect(), pci64: 0x1_8000_0000..0x80_0000_0000, bridges: 0 }
}

fn u32_at(table: &Table, offset: usize) -> u32 {
    u32::from_le_bytes(table.bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(table: &Table, offset: usize) -> u64 {
    u64::from_le_bytes(table.bytes[offset..offset + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
}

fn contains(table: &Table, needle: &[u8]) -> bool {
    table.bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_guest_that_starts_at_the_rsdp_finds_every_table() {
    let tables = build(&config(4)).unwrap();
    let at = |address| tables.tables.iter().find(|table| table.address == address).unwrap();
    let rsdp = at(tables.rsdp());
    assert_eq!(&rsdp.bytes[..8], b"RSD PTR ");
    assert_eq!((sum(&rsdp.bytes[..20]), sum(&rsdp.bytes)), (0, 0));
    let xsdt = at(u64_at(rsdp, 24));
    assert_eq!(xsdt.signature, "XSDT");
    let entries: Vec<_> =
        (36..xsdt.bytes.len()).step_by(8).map(|i| at(u64_at(xsdt, i)).signature).collect();
    assert_eq!(entries, ["FACP", "APIC", "MCFG"]);
    let fadt = tables.find("FACP").unwrap();
    assert_eq!(at(u64_at(fadt, 140)).signature, "DSDT");
    assert_eq!(u64_at(fadt, 140), u64::from(u32_at(fadt, 40)));
    assert_eq!(at(u32_at(fadt, 36).into()).signature, "FACS");
}

#[test]
fn every_table_is_whole_and_in_its_place() {
    let tables = build(&config(4)).unwrap();
    let mut end = layout::ACPI.start;
    for table in &tables.tables {
        assert!(table.address >= end, "{} overlaps", table.signature);
        assert_eq!(table.address % 16, 0);
        end = table.address + table.bytes.len() as u64;
        assert!(end <= layout::ACPI.end);
        if table.signature == "RSD PTR " {
            continue;
        }
        assert_eq!(&table.bytes[..4], table.signature.as_bytes());
        assert_eq!(u32_at(table, 4) as usize, table.bytes.len(), "{}", table.signature);
        // FACS has no checksum.
        assert!(table.signature == "FACS" || sum(&table.bytes) == 0, "{}", table.signature);
    }
}

#[test]
fn fadt_names_the_registers_and_the_reset() {
    let tables = build(&config(1)).unwrap();
    let fadt = tables.find("FACP").unwrap();
    assert_eq!(fadt.bytes.len(), 276);
    assert_eq!(u32_at(fadt, 46) & 0xffff, 9, "SCI");
    assert_eq!(u32_at(fadt, 48), 0, "no SMI port: always in ACPI mode");
    assert_eq!((u32_at(fadt, 56), u32_at(fadt, 64), u32_at(fadt, 76)), (0x600, 0x604, 0x608));
    assert_eq!((fadt.bytes[88], fadt.bytes[89], fadt.bytes[91]), (4, 2, 4), "lengths");
    assert_eq!((u32_at(fadt, 80), fadt.bytes[92]), (0xafe0, 4), "general-purpose events");
    assert_eq!(fadt.bytes[108], 0x32, "century");
    let flags = u32_at(fadt, 112);
    assert_eq!(flags >> 4 & 1, 0, "a fixed power button");
    assert_eq!(flags >> 5 & 1, 1, "no fixed sleep button");
    assert_eq!(flags >> 10 & 1, 1, "a reset register");
    assert_eq!(flags >> 20 & 1, 0, "not hardware-reduced");
    assert_eq!(fadt.bytes[116..120], [1, 8, 0, 1]);
    assert_eq!((u64_at(fadt, 120), fadt.bytes[128]), (0xcf9, 0x0e));
    assert_eq!((fadt.bytes[148], u64_at(fadt, 152)), (1, 0x600));
    assert_eq!((fadt.bytes[172], u64_at(fadt, 176)), (1, 0x604));
    assert_eq!((fadt.bytes[208], u64_at(fadt, 212)), (1, 0x608));
}

/// The MADT's structures: type and body.
fn structures(madt: &Table) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = &madt.bytes[44..];
    while let [kind, len, ..] = rest {
        let (one, tail) = rest.split_at(usize::from(*len));
        found.push((*kind, one[2..].to_vec()));
        rest = tail;
    }
    found
}

#[test]
fn madt_lists_processors_controllers_and_overrides() {
    let tables = build(&config(3)).unwrap();
    let madt = tables.find("APIC").unwrap();
    assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xfee0_0000, 1));
    let expected: [(u8, Vec<u8>); 7] = [
        (0, vec![0, 0, 1, 0, 0, 0]),
        (0, vec![1, 1, 1, 0, 0, 0]),
        (0, vec![2, 2, 1, 0, 0, 0]),
        (1, vec![0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]),
        (2, vec![0, 0, 2, 0, 0, 0, 0, 0]),
        (2, vec![0, 9, 9, 0, 0, 0, 0x0d, 0]),
        (4, vec![0xff, 0, 0, 1]),
    ];
    assert_eq!(structures(madt), expected);
}

#[test]
fn processors_beyond_the_byte_are_x2apics() {
    let mut config = config(0);
    config.apic_ids = vec![0, 254, 255, 256, 1000];
    let tables = build(&config).unwrap();
    let found = structures(tables.find("APIC").unwrap());
    let kinds: Vec<u8> = found.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0, 0, 9, 9, 9, 1, 2, 2, 4, 10]);
    assert_eq!(found[4].1, [0, 0, 0xe8, 3, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0]);
}

#[test]
fn mcfg_points_at_ecam() {
    let tables = build(&config(1)).unwrap();
    let mcfg = tables.find("MCFG").unwrap();
    assert_eq!(mcfg.bytes.len(), 60);
    assert_eq!(u64_at(mcfg, 44), 0xc000_0000);
    assert_eq!(mcfg.bytes[52..56], [0, 0, 0, 0xff]);
}

#[test]
fn dsdt_describes_what_cannot_be_enumerated() {
    let tables = build(&config(2)).unwrap();
    let dsdt = tables.find("DSDT").unwrap();
    assert_eq!(dsdt.bytes[8], 2, "64-bit integers");
    for device in ["PCI0", "MBRD", "COM1", "RTC_", "FWCF", "C000", "C001"] {
        assert!(contains(dsdt, device.as_bytes()), "{device}");
    }
    for id in ["PNP0A08", "PNP0A03", "PNP0C02", "PNP0501", "PNP0B00"] {
        assert!(contains(dsdt, &bytes_of(&EISAName::new(id))), "{id}");
    }
    assert!(!contains(dsdt, b"C002"));
    let mut soft_off = bytes_of(&Name::new("\\_S5_".into(), &0u8));
    soft_off.pop();
    soft_off.extend([0x12, 6, 4, 0, 0, 0, 0]);
    assert!(contains(dsdt, &soft_off), "a package of four zeroes");
    // The last entry of _PRT: device 31, INTD, input 16 + (31 + 3) % 8.
    assert!(contains(dsdt, &[0x0c, 0xff, 0xff, 0x1f, 0, 0x0a, 3, 0, 0x0a, 18]));
    // The windows: 32-bit memory, then 64-bit memory, by their last addresses.
    assert!(contains(dsdt, &0xfebf_ffffu32.to_le_bytes()));
    assert!(contains(dsdt, &0x7f_ffff_ffffu64.to_le_bytes()));
    let without = build(&AcpiConfig { pci64: 0..0, ..config(2) }).unwrap();
    assert!(without.find("DSDT").unwrap().bytes.len() < dsdt.bytes.len());
}

#[test]
fn many_processors_fit_and_too_many_are_refused() {
    let tables = build(&config(1024)).unwrap();
    assert!(contains(tables.find("DSDT").unwrap(), b"C3FF"));
    let tables = build(&config(4096)).unwrap();
    assert_eq!(structures(tables.find("APIC").unwrap()).len(), 4096 + 5);
    let error = build(&config(10_000)).unwrap_err();
    assert!(error.to_string().contains("-smp"), "{error}");
}

#[test]
fn installed_tables_are_in_guest_memory() {
    let ram = vcpu::memory::build(&vcpu::memory::RamConfig::new(2 << 20)).unwrap();
    let rsdp = install(&ram, &config(2)).unwrap();
    assert_eq!(rsdp, 0xe_0000);
    for table in build(&config(2)).unwrap().tables {
        let mut bytes = vec![0; table.bytes.len()];
        ram.read_slice(&mut bytes, GuestAddress(table.address)).unwrap();
        assert_eq!(bytes, table.bytes, "{}", table.signature);
    }
}

/// What Linux looks for: slots that can eject, and the event that leads to their notification.
#[test]
fn dsdt_has_a_slot_for_each_device_that_can_come() {
    let tables = build(&config(1)).unwrap();
    let dsdt = &tables.find("DSDT").unwrap().bytes;
    let count =
        |name: &str| dsdt.windows(name.len()).filter(|window| *window == name.as_bytes()).count();
    assert_eq!((count("_EJ0"), count("_ADR")), (31, 31));
    assert_eq!((count("S08_"), count("SF8_")), (2, 2), "made once, notified once");
    assert_eq!((count("S00_"), count("_E01")), (0, 1), "the host bridge stays");
}

/// A guest that looks through these slots must not get to what is below a port.
#[test]
fn dsdt_has_no_slot_where_a_bridge_is() {
    let tables = build(&AcpiConfig { bridges: 1 << 1 | 1 << 31, ..config(1) }).unwrap();
    let dsdt = &tables.find("DSDT").unwrap().bytes;
    let count =
        |name: &str| dsdt.windows(name.len()).filter(|window| *window == name.as_bytes()).count();
    assert_eq!((count("_EJ0"), count("S08_"), count("SF8_")), (29, 0, 0));
    assert_eq!((count("S10_"), count("SF0_")), (2, 2));
}

/// What ACPICA's own tools say of our tables: they are disassembled, and the AML is compiled again.
#[test]
fn acpica_takes_the_tables_apart_and_puts_them_together() {
    let directory = tempfile::tempdir().unwrap();
    for (variant, bridges) in [("acpi", 0), ("native", 0x300)] {
        let tables = build(&AcpiConfig { bridges, ..config(2) }).unwrap();
        for signature in ["DSDT", "FACP", "APIC", "MCFG", "FACS", "XSDT"] {
            let binary = directory.path().join(format!("{variant}-{signature}.dat"));
            std::fs::write(&binary, &tables.find(signature).unwrap().bytes).unwrap();
            iasl(&["-d", binary.to_str().unwrap()]);
            let source = binary.with_extension("dsl");
            let text = std::fs::read_to_string(&source).unwrap();
            if signature == "DSDT" {
                assert_eq!(text.contains("_OSC"), bridges != 0);
                iasl(&["-ve", source.to_str().unwrap()]);
            }
        }
    }
}

fn iasl(arguments: &[&str]) {
    let output = std::process::Command::new("iasl").args(arguments).output();
    let output = output.expect("iasl of Debian's package acpica-tools; install it");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "iasl {arguments:?}: {}", String::from_utf8_lossy(&text));
}
