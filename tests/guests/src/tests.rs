//! What the finished program looks like from outside.

use crate::EMBEDDED;
use crate::text::{u16_at, u32_at, u64_at};

const LOAD: u32 = 1;
const NOTE: u32 = 4;

/// Type, file offset, address, bytes in the file and in memory of each program header.
fn segments() -> Vec<(u32, usize, u64, usize, u64)> {
    let table = u64_at(EMBEDDED, 32) as usize;
    let (size, count) = (usize::from(u16_at(EMBEDDED, 54)), usize::from(u16_at(EMBEDDED, 56)));
    (0..count)
        .map(|index| {
            let at = table + index * size;
            (
                u32_at(EMBEDDED, at),
                u64_at(EMBEDDED, at + 8) as usize,
                u64_at(EMBEDDED, at + 24),
                u64_at(EMBEDDED, at + 32) as usize,
                u64_at(EMBEDDED, at + 40),
            )
        })
        .collect()
}

#[test]
fn image_is_a_64_bit_x86_executable() {
    assert!(EMBEDDED.starts_with(b"\x7fELF\x02\x01\x01"));
    assert_eq!((u16_at(EMBEDDED, 16), u16_at(EMBEDDED, 18)), (2, 62));
}

#[test]
fn pvh_note_names_an_entry_inside_the_image() {
    let (_, at, _, len, _) =
        segments().into_iter().find(|it| it.0 == NOTE).expect("a note segment");
    let note = &EMBEDDED[at..at + len];
    assert_eq!((u32_at(note, 0), u32_at(note, 4), u32_at(note, 8)), (4, 8, 18));
    assert_eq!(&note[12..16], b"Xen\0");
    let entry = u64_at(note, 16);
    let holds = |it: &(u32, usize, u64, usize, u64)| {
        it.0 == LOAD && (it.2..it.2 + it.3 as u64).contains(&entry)
    };
    assert!(segments().iter().any(holds), "{entry:#x}");
    assert_eq!(u64_at(EMBEDDED, 24), entry, "the ELF entry is the same");
}

#[test]
fn image_loads_between_2_and_4_mib() {
    for (_, _, address, _, len) in segments().into_iter().filter(|it| it.0 == LOAD) {
        assert!(address >= 2 << 20 && address + len <= 4 << 20, "{address:#x}+{len:#x}");
    }
}
