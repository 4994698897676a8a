use super::*;
use crate::memory::layout::MIB;
use crate::testing::{CODE, Machine, code, guest, kvm};
use proptest::prelude::*;
use std::io::Write;
use tempfile::NamedTempFile;
use vm_memory::GuestMemoryBackend;

const RAM: u64 = 32 * MIB;

/// What an ELF file for a test holds.
#[derive(Clone)]
struct Recipe {
    /// Physical address, virtual address, bytes, and bytes of uninitialized data.
    segments: Vec<(u64, u64, Vec<u8>, u64)>,
    /// Name with its zero byte, type, descriptor.
    notes: Vec<(&'static [u8], u32, Vec<u8>)>,
    entry: u64,
}

fn pvh_note(entry: u32) -> (&'static [u8], u32, Vec<u8>) {
    (b"Xen\0", 18, u64::from(entry).to_le_bytes().to_vec())
}

fn recipe() -> Recipe {
    Recipe {
        segments: vec![(0x10_0000, 0x10_0000, vec![0x90; 100], 5000)],
        notes: Vec::new(),
        entry: 0x10_0000,
    }
}

impl Recipe {
    fn build(&self) -> Vec<u8> {
        let notes: Vec<u8> = self
            .notes
            .iter()
            .flat_map(|(name, kind, desc)| {
                let words = [name.len() as u32, desc.len() as u32, *kind];
                let mut note: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
                for part in [*name, desc] {
                    note.extend_from_slice(part);
                    note.resize(note.len().next_multiple_of(4), 0);
                }
                note
            })
            .collect();
        let count = self.segments.len() + 1;
        let mut offset = 64 + count as u64 * 56;
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([2u16, 62].into_iter().flat_map(u16::to_le_bytes));
        file.extend(1u32.to_le_bytes());
        file.extend([self.entry, 64, 0].into_iter().flat_map(u64::to_le_bytes));
        file.extend(0u32.to_le_bytes());
        file.extend([64u16, 56, count as u16, 0, 0, 0].into_iter().flat_map(u16::to_le_bytes));
        let mut body = Vec::new();
        let mut header = |kind: u32, at: (u64, u64), bytes: &[u8], extra: u64, align: u64| {
            file.extend([kind, 7].into_iter().flat_map(u32::to_le_bytes));
            let len = bytes.len() as u64;
            let fields = [offset, at.1, at.0, len, len + extra, align];
            file.extend(fields.into_iter().flat_map(u64::to_le_bytes));
            offset += len;
            body.extend_from_slice(bytes);
        };
        for (physical, virtual_start, bytes, extra) in &self.segments {
            header(1, (*physical, *virtual_start), bytes, *extra, 4096);
        }
        header(4, (0, 0), &notes, 0, 4);
        file.extend(body);
        file
    }
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn config(kernel: &NamedTempFile) -> BootConfig {
    BootConfig {
        kernel: KernelSource::File(kernel.path().to_owned()),
        initrd: None,
        cmdline: String::new(),
    }
}

fn open(bytes: &[u8]) -> Result<Boot, BootError> {
    Boot::open(config(&file(bytes)), RAM)
}

fn ram() -> Ram {
    Ram::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap()
}

/// The refusal of a kernel file, checked to be one line that names it.
fn refusal(bytes: &[u8]) -> String {
    let file = file(bytes);
    let text = Boot::open(config(&file), RAM).unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    assert!(text.contains(file.path().to_str().unwrap()), "{text}");
    assert!(text.starts_with("-kernel: "), "{text}");
    text
}

#[test]
fn the_entry_is_chosen_by_evidence() {
    let protocol = |recipe: &Recipe| open(&recipe.build()).unwrap().protocol();
    let plain = recipe();
    assert_eq!(protocol(&plain), Protocol::Linux64Elf, "no note at all");
    let pvh = Recipe { notes: vec![pvh_note(0x10_0010)], ..recipe() };
    assert_eq!(protocol(&pvh), Protocol::Pvh);
    let linux_note: (&[u8], u32, Vec<u8>) = (b"Linux\0", 0x101, vec![0; 4]);
    let linux = Recipe { notes: vec![linux_note, pvh_note(0x10_0010)], ..recipe() };
    assert_eq!(protocol(&linux), Protocol::Linux64Elf);
    let mut linked_high = pvh.clone();
    linked_high.segments[0].1 = 0xffff_ffff_8100_0000;
    assert_eq!(protocol(&linked_high), Protocol::Linux64Elf, "an older Linux");
    // A BSD is linked high too, but its ELF entry is not a physical address.
    let bsd = Recipe { entry: 0xffff_ffff_8100_0000, ..linked_high };
    assert_eq!(protocol(&bsd), Protocol::Pvh);
}

#[test]
fn a_pvh_guest_finds_its_start_info() {
    let kernel = file(&Recipe { notes: vec![pvh_note(0x10_0010)], ..recipe() }.build());
    let initrd = file(&[0x5a; 5000]);
    let config = BootConfig {
        initrd: Some(initrd.path().to_owned()),
        cmdline: "check;poweroff".into(),
        ..config(&kernel)
    };
    let ram = ram();
    let boot = Boot::open(config, RAM).unwrap();
    let state = boot.load(&ram, Some(0xe_0000)).unwrap();
    assert_eq!(state, BootState::Pvh { entry: 0x10_0010, start_info: 0x6000 });
    let word = |at: u64| ram.read_obj::<u32>(GuestAddress(at)).unwrap();
    let long = |at: u64| ram.read_obj::<u64>(GuestAddress(at)).unwrap();
    assert_eq!((word(0x6000), word(0x6004), word(0x600c)), (0x336e_c578, 1, 1));
    let (modules, line, rsdp) = (long(0x6010), long(0x6018), long(0x6020));
    let (map, entries) = (long(0x6028), word(0x6030));
    assert_eq!(rsdp, 0xe_0000);
    assert_eq!((long(modules), long(modules + 8)), (RAM - 8192, 5000));
    assert_eq!(ram.read_obj::<[u8; 2]>(GuestAddress(RAM - 8192)).unwrap(), [0x5a; 2]);
    let mut text = [0; 15];
    ram.read_slice(&mut text, GuestAddress(line)).unwrap();
    assert_eq!(&text, b"check;poweroff\0");
    let usable: u64 = (0..u64::from(entries))
        .map(|i| map + i * 24)
        .filter(|at| word(at + 16) == 1)
        .map(|at| long(at + 8))
        .sum();
    assert_eq!(usable, RAM - MIB + 0x9_fc00);
}

#[test]
fn a_linux_guest_finds_its_boot_params() {
    let kernel = file(&recipe().build());
    let initrd = file(&[0x5a; 5000]);
    let config = BootConfig {
        initrd: Some(initrd.path().to_owned()),
        cmdline: "console=ttyS0".into(),
        ..config(&kernel)
    };
    let ram = ram();
    let state = Boot::open(config, RAM).unwrap().load(&ram, Some(0xe_0000)).unwrap();
    assert_eq!(state, BootState::Linux64 { entry: 0x10_0000, boot_params: 0x7000 });
    let word = |at: u64| ram.read_obj::<u32>(GuestAddress(0x7000 + at)).unwrap();
    let long = |at: u64| ram.read_obj::<u64>(GuestAddress(0x7000 + at)).unwrap();
    assert_eq!(word(0x202), 0x5372_6448, "HdrS");
    assert_eq!(word(0x210) & 0xff, 0xff, "type_of_loader");
    assert_eq!((word(0x218), word(0x21c)), ((RAM - 8192) as u32, 5000), "initrd");
    assert_eq!(word(0x228), 0x2_0000, "command line");
    assert_eq!(long(0x70), 0xe_0000, "RSDP");
    assert_eq!(word(0x1e8) & 0xff, 6, "entries of the memory map");
    assert_eq!((long(0x2d0), long(0x2d8), word(0x2e0)), (0, 0x9_fc00, 1));
    assert_eq!(word(0x1ef) & 0xff, 0, "sentinel");
}

#[test]
fn loading_again_undoes_what_the_guest_wrote() {
    let boot = open(&recipe().build()).unwrap();
    let ram = ram();
    boot.load(&ram, None).unwrap();
    ram.write_slice(&[0xee; 5100], GuestAddress(0x10_0000)).unwrap();
    boot.load(&ram, None).unwrap();
    let mut found = [0; 5101];
    ram.read_slice(&mut found, GuestAddress(0x10_0000)).unwrap();
    assert!(found[..100].iter().all(|b| *b == 0x90));
    assert!(found[100..].iter().all(|b| *b == 0), "uninitialized data is zero again");
}

#[test]
fn each_bad_elf_file_has_its_own_message() {
    let good = recipe().build();
    assert!(refusal(&[]).contains("is empty"));
    assert!(refusal(b"#!/bin/sh\nexit\n").contains("neither an ELF file nor a bzImage"));
    assert!(refusal(b"\x1f\x8b\x08\0\0\0").contains("compressed by gzip; decompress it"));
    assert!(refusal(&good[..40]).contains("truncated: the ELF header needs 64 bytes"));
    assert!(refusal(&good[..100]).contains("the program header table needs"));
    assert!(refusal(&good[..good.len() - 1]).contains("is truncated: a segment needs"));
    let patched = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        refusal(&bad)
    };
    assert!(patched(4, 1).contains("32-bit ELF"));
    assert!(patched(18, 183).contains("another processor"));
    assert!(patched(16, 1).contains("not an executable"));
    assert!(patched(54, 57).contains("unknown size"));
    assert!(patched(56, 0).contains("nothing to load"));
    let mut shrunk = good.clone();
    shrunk[64 + 40..64 + 42].copy_from_slice(&[1, 0]);
    assert!(refusal(&shrunk).contains("larger in the file than in memory"));
    let at = |physical: u64, entry: u64| {
        let segments = vec![(physical, physical, vec![0; 64], 0)];
        refusal(&Recipe { segments, entry, ..recipe() }.build())
    };
    assert!(at(0x1000, 0x1000).contains("link it at 1 MiB or above"));
    assert!(at(RAM - 8, RAM - 8).contains("more with -m"));
    assert!(at(u64::MAX - 8, 0).contains("must be loaded at"));
    assert!(at(0x20_0000, 0x10_0000).contains("entry point outside"));
    let stray = Recipe { notes: vec![pvh_note(0x1000)], ..recipe() };
    assert!(refusal(&stray.build()).contains("PVH entry point outside"));
}

#[test]
fn files_that_cannot_be_had_are_named() {
    let text = |path: &str| {
        let kernel = KernelSource::File(path.into());
        let config = BootConfig { kernel, initrd: None, cmdline: String::new() };
        Boot::open(config, RAM).unwrap_err().to_string()
    };
    assert!(
        text("/nonexistent/vmlinux").starts_with("-kernel: cannot open '/nonexistent/vmlinux'")
    );
    assert_eq!(text("/tmp"), "-kernel: '/tmp' is not a regular file");
    assert_eq!(text("/dev/null"), "-kernel: '/dev/null' is not a regular file");
    let kernel = file(&recipe().build());
    let missing = BootConfig { initrd: Some("/nonexistent/initrd".into()), ..config(&kernel) };
    let error = Boot::open(missing, RAM).unwrap_err().to_string();
    assert!(error.starts_with("-initrd: cannot open '/nonexistent/initrd'"), "{error}");
    // Truncated behind our back: the load fails in words, not in a panic.
    let boot = Boot::open(config(&kernel), RAM).unwrap();
    kernel.as_file().set_len(10).unwrap();
    let error = boot.load(&ram(), None).unwrap_err().to_string();
    assert!(error.starts_with("-kernel: cannot read"), "{error}");
}

#[test]
fn command_lines_and_initrds_have_limits() {
    let kernel = file(&recipe().build());
    let with = |cmdline: String| Boot::open(BootConfig { cmdline, ..config(&kernel) }, RAM);
    assert!(with("x".repeat(2047)).is_ok());
    let error = with("x".repeat(2048)).unwrap_err().to_string();
    assert_eq!(error, "-append: the command line has 2048 bytes; this kernel takes at most 2047");
    assert!(with("a\0b".into()).unwrap_err().to_string().contains("zero byte"));
    let initrd = NamedTempFile::new().unwrap();
    initrd.as_file().set_len(RAM - MIB).unwrap();
    let config = BootConfig { initrd: Some(initrd.path().to_owned()), ..config(&kernel) };
    let error = Boot::open(config.clone(), RAM).unwrap_err().to_string();
    assert!(error.contains("has 31 MiB, but only") && error.contains("-m"), "{error}");
    assert!(Boot::open(config, 2 * RAM).is_ok());
}

/// A bzImage whose kernel part is `len` bytes; the fields are those of a Linux 6 header.
fn bzimage(len: usize) -> Vec<u8> {
    let mut image = vec![0; 1024 + len];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &(len as u32 / 16).to_le_bytes());
    put(0x1fe, &0xaa55u16.to_le_bytes());
    put(0x201, &[0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x020fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1]);
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x40_0000u32.to_le_bytes());
    put(1024 + 0x200, &[0xf4]);
    image
}

#[test]
fn a_bzimage_goes_where_it_prefers_or_where_it_fits() {
    let image = bzimage(0x1000);
    let boot = open(&image).unwrap();
    assert_eq!(boot.protocol(), Protocol::BzImage);
    let ram = ram();
    let state = boot.load(&ram, None).unwrap();
    assert_eq!(state, BootState::Linux64 { entry: 0x100_0200, boot_params: 0x7000 });
    assert_eq!(ram.read_obj::<u8>(GuestAddress(0x100_0200)).unwrap(), 0xf4);
    assert_eq!(ram.read_obj::<u32>(GuestAddress(0x7214)).unwrap(), 0x100_0000, "code32_start");
    // 16 MiB end before the kernel's preferred place: it moves to the lowest aligned one.
    let small = Boot::open(config(&file(&image)), 16 * MIB).unwrap();
    let state = small.load(&ram, None).unwrap();
    assert_eq!(state, BootState::Linux64 { entry: 0x20_0200, boot_params: 0x7000 });
}

#[test]
fn each_bad_bzimage_has_its_own_message() {
    let patched = |at: usize, bytes: &[u8]| {
        let mut bad = bzimage(0x1000);
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        refusal(&bad)
    };
    assert!(patched(0x206, &[9, 2]).contains("before 2.12"));
    assert!(patched(0x211, &[0]).contains("zImage"));
    assert!(patched(0x236, &[0]).contains("32-bit Linux"));
    assert!(patched(0x1f4, &[0xff, 0xff]).contains("truncated: its compressed kernel"));
    assert!(patched(0x1f4, &[0; 4]).contains("no compressed kernel"));
    assert!(patched(0x260, &[0xff; 4]).contains("must be loaded at 0x1000000"));
    let mut fixed = bzimage(0x1000);
    fixed[0x234] = 0;
    let error = Boot::open(config(&file(&fixed)), 16 * MIB).unwrap_err().to_string();
    assert!(error.contains("must be loaded at 0x1000000 to 0x1400000"), "{error}");
    assert!(refusal(&bzimage(0x1000)[..0x210]).contains("truncated: its setup header"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..Default::default() })]

    /// Damaged kernels are refused or load into RAM; nothing panics, hangs or leaves RAM.
    #[test]
    fn damaged_kernels_never_panic(
        compressed in any::<bool>(),
        patches in prop::collection::vec((0usize..700, any::<u8>()), 0..12),
        wide in prop::option::of((0usize..30, prop_oneof![Just(u64::MAX), any::<u64>()])),
        keep in prop_oneof![2 => Just(usize::MAX), 1 => 0usize..1600],
    ) {
        let mut bytes = if compressed {
            bzimage(0x800)
        } else {
            Recipe { notes: vec![pvh_note(0x10_0010)], ..recipe() }.build()
        };
        for (at, value) in patches {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Some((slot, value)) = wide {
            let at = if compressed { 0x1f0 + slot * 4 } else { slot * 8 };
            if let Some(field) = bytes.get_mut(at..at + 8) {
                field.copy_from_slice(&value.to_le_bytes());
            }
        }
        bytes.truncate(keep);
        if let Ok(boot) = open(&bytes) {
            let ram = ram();
            let entry = match boot.load(&ram, None).unwrap() {
                BootState::Linux64 { entry, .. } => entry,
                BootState::Pvh { entry, .. } => entry.into(),
                BootState::Real { .. } => unreachable!(),
            };
            prop_assert!(ram.address_in_range(GuestAddress(entry)));
        }
    }
}

// Reports the magic number that EBX leads to.
guest!(".code32", vt_pvh, vt_pvh_end, "movl (%ebx), %eax", "outl %eax, $0xe0", "1: hlt", "jmp 1b",);

// Reports the magic number of the setup header that RSI leads to.
guest!(
    ".code64",
    vt_linux,
    vt_linux_end,
    "movl 0x202(%rsi), %eax",
    "outl %eax, $0xe0",
    "1: hlt",
    "jmp 1b",
);

#[test]
fn loaded_kernels_run_as_their_protocol_says() {
    let started = |boot: &Boot, kvm| {
        let machine = Machine::with(kvm, RAM, 1, |ram| boot.load(ram, None).unwrap());
        drop(machine.vcpus.resume());
        let magic = machine.reported();
        machine.finish();
        magic
    };
    let name = "loaded_kernels_run_as_their_protocol_says";
    let (Some(first), Some(second)) = (kvm(name), kvm(name)) else { return };
    let with = |code: &[u8], notes| {
        let segments = vec![(CODE, CODE, code.to_vec(), 0)];
        open(&Recipe { segments, notes, entry: CODE }.build()).unwrap()
    };
    let pvh = with(code!(vt_pvh, vt_pvh_end), vec![pvh_note(CODE as u32)]);
    assert_eq!(started(&pvh, first), 0x336e_c578);
    let linux = with(code!(vt_linux, vt_linux_end), Vec::new());
    assert_eq!(started(&linux, second), 0x5372_6448);
}
