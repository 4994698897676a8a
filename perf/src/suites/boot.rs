//! From the start of the process to the first greeting, the first reply, the guest's first instruction and its prompt.

use crate::case::{Bench, Case, Side};
use crate::lab::Lab;
use crate::samples::{Measured, Samples};
use crate::vmm::{Setup, Vmm};
use crate::{Error, host};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SUITE: &str = "boot";
const STARTS: u32 = 20;
const COLD_STARTS: u32 = 4;

pub(super) fn benches() -> Vec<Bench> {
    vec![greeting(), cold_greeting(), first_instruction(), guest()]
}

fn greeting() -> Bench {
    let cases = vec![
        Case::time(SUITE, "process start to QMP greeting", "ms").goal(Side::Peer, 0.15),
        Case::time(SUITE, "process start to the first reply, machine built", "ms"),
        Case::time(SUITE, "quit to the end of the process", "ms"),
    ];
    Bench::new(cases, |lab, side| {
        let [mut greetings, mut replies, mut ends] = std::array::from_fn(|_| Samples::new());
        for _ in 0..lab.scaled(STARTS) {
            if side == Side::Limit {
                greetings.add(smallest_process()?);
                continue;
            }
            let vmm = ask(lab, side, &mut greetings, &mut replies)?;
            let begun = Instant::now();
            vmm.quit()?;
            ends.add(begun.elapsed());
        }
        Ok([greetings, replies, ends].map(Measured::Times).into())
    })
}

/// Starts a VMM and has it answer a question; adds the times until it has greeted and has answered.
fn ask(
    lab: &Lab,
    side: Side,
    greetings: &mut Samples,
    replies: &mut Samples,
) -> Result<Vmm, Error> {
    let mut vmm = Setup::new(lab.cpus()).start(lab, side)?;
    vmm.qmp().exchange(b"{\"execute\":\"query-status\"}\n")?;
    replies.add(vmm.begun.elapsed());
    greetings.add(vmm.greeted);
    Ok(vmm)
}

/// With nothing of the programs in the page cache.
fn cold_greeting() -> Bench {
    let cases = vec![
        Case::time(SUITE, "cold: process start to QMP greeting", "ms").goal(Side::Peer, 0.15),
        Case::time(SUITE, "cold: process start to the first reply, machine built", "ms"),
    ];
    let bench = Bench::new(cases, |lab, side| {
        if side == Side::Limit {
            return Ok(Vec::new());
        }
        let [mut greetings, mut replies] = std::array::from_fn(|_| Samples::new());
        for _ in 0..lab.scaled(COLD_STARTS) {
            if let Err(error) = host::drop_caches() {
                let reason = format!("the page cache cannot be emptied: {error}");
                return Ok(vec![Measured::cannot(&reason); 2]);
            }
            let vmm = ask(lab, side, &mut greetings, &mut replies)?;
            vmm.quit()?;
        }
        Ok([greetings, replies].map(Measured::Times).into())
    });
    bench.rounds(2)
}

/// The shortest a process can take to be started, to run and to be found ended.
fn smallest_process() -> Result<Duration, Error> {
    let begun = Instant::now();
    Command::new("/bin/true").status().map_err(|e| Error::io("/bin/true", e))?;
    Ok(begun.elapsed())
}

/// With a kernel whose first instructions print a character.
fn first_instruction() -> Bench {
    let case = Case::time(SUITE, "process start to the guest's first instruction", "ms");
    Bench::new(vec![case], |lab, side| {
        if side == Side::Limit {
            return Ok(Vec::new());
        }
        let kernel = lab.dir().join("first.elf");
        std::fs::write(&kernel, first_kernel()).map_err(|e| Error::io("first.elf", e))?;
        times_to(lab, side, &kernel, "!")
    })
}

fn guest() -> Bench {
    let case = Case::time(SUITE, "process start to the embedded guest's prompt", "ms");
    Bench::new(vec![case], |lab, side| {
        if side == Side::Limit {
            Ok(Vec::new())
        } else {
            times_to(lab, side, &lab.guest(), "guest> ")
        }
    })
}

/// From the start of the process until `text` is on the console.
fn times_to(lab: &Lab, side: Side, kernel: &Path, text: &str) -> Result<Vec<Measured>, Error> {
    let mut samples = Samples::new();
    for _ in 0..lab.scaled(STARTS) {
        let mut vmm = Setup::new(lab.cpus()).kernel(kernel.to_path_buf(), "").start(lab, side)?;
        vmm.wait_console(text)?;
        samples.add(vmm.begun.elapsed());
        vmm.quit()?;
    }
    host::bind_thread(0, lab.cpus())?;
    Ok(vec![Measured::Times(samples)])
}

/// A PVH kernel of six instructions: one segment at 1 MiB, and the note that names its entry
/// (System V ABI, ELF-64 headers; Xen's note 18).
fn first_kernel() -> Vec<u8> {
    const LOAD: u64 = 0x10_0000;
    // mov dx, 0x3f8; mov al, '!'; out dx, al; cli; hlt; jmp to the hlt
    const CODE: [u8; 11] = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'!', 0xee, 0xfa, 0xf4, 0xeb, 0xfd];
    const HEADERS: u64 = 64 + 2 * 56;
    let mut note = Vec::new();
    for word in [4u32, 8, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(LOAD.to_le_bytes());
    let code_at = HEADERS + note.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    put(&mut file, &[2u16, 62].map(u16::to_le_bytes));
    put(&mut file, &[1].map(u32::to_le_bytes));
    put(&mut file, &[LOAD, 64, 0].map(u64::to_le_bytes));
    put(&mut file, &[0].map(u32::to_le_bytes));
    put(&mut file, &[64, 56, 2, 0, 0, 0].map(u16::to_le_bytes));
    put(&mut file, &[1, 7].map(u32::to_le_bytes));
    let len = CODE.len() as u64;
    put(&mut file, &[code_at, LOAD, LOAD, len, len, 1].map(u64::to_le_bytes));
    put(&mut file, &[4, 4].map(u32::to_le_bytes));
    let len = note.len() as u64;
    put(&mut file, &[HEADERS, 0, 0, len, len, 4].map(u64::to_le_bytes));
    file.extend(note);
    file.extend(CODE);
    file
}

fn put<const N: usize>(file: &mut Vec<u8>, values: &[[u8; N]]) {
    file.extend(values.as_flattened());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_kernel_is_an_elf_file_with_its_code_at_the_end() {
        let file = first_kernel();
        let long = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
        assert_eq!(&file[..4], b"\x7fELF");
        assert_eq!((long(24), long(32)), (0x10_0000, 64), "entry and program headers");
        let (at, len) = (long(64 + 8) as usize, long(64 + 32) as usize);
        assert_eq!(at + len, file.len());
        assert_eq!(file[at..][4..6], [0xb0, b'!']);
        let note = long(64 + 56 + 8) as usize;
        assert_eq!(&file[note + 12..note + 16], b"Xen\0");
    }
}
