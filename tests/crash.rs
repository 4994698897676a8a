//! The VMM is killed while its guest writes and flushes: what was flushed is there afterwards.

use nix::fcntl::{FcntlArg, fcntl};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use testkit::Vmm;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// As the guest's command `journal` has them.
const BYTES: u64 = 4096;
const STRIDE: u64 = 7919;
/// A power of two.
const BLOCKS: u64 = 4096;
/// Small clusters, so that tables grow all the time.
const SHAPES: [&str; 2] = ["cluster_size=4k,refcount_bits=16", "cluster_size=64k"];

/// How often with each format; `RINGVISOR_CRASH_ROUNDS` asks for more.
fn rounds(usual: u64) -> u64 {
    std::env::var("RINGVISOR_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// The records that a guest has said to be durable.
fn durable(console: &str) -> u64 {
    // The last line may be half a line.
    let whole = console.rfind('\n').map_or("", |end| &console[..end]);
    let number = |line: &str| line.trim().strip_prefix("journal: ")?.parse().ok();
    whole.lines().filter_map(number).max().unwrap_or(0)
}

fn check_records(image: &Path, count: u64) {
    let file = std::fs::File::open(image).unwrap();
    let mut block = vec![0; BYTES as usize];
    for record in 0..count {
        file.read_exact_at(&mut block, record * STRIDE % BLOCKS * BYTES).unwrap();
        let expected = (record + 1).to_le_bytes();
        assert!(block.chunks(8).all(|word| word == expected), "record {record} of {count}");
    }
}

fn qemu_img(args: &[&str]) -> Output {
    let output = Command::new("qemu-img").args(args).output();
    output.expect("qemu-img of Debian's package qemu-utils; install it")
}

/// Kills a VMM that writes to `image` at some time that is another one in each round; returns how many
/// records are durable.
fn crash(image: &Path, format: &str, round: u64) -> u64 {
    let cache = ["none", "writeback"][(round % 2) as usize];
    let drive = format!("file={},format={format},if=virtio,cache={cache}", image.display());
    let vmm = Vmm::start(RINGVISOR, &["-drive", &drive, "-append", "journal"]);
    // Some time after that many flushes. The last line may be half a line: one before it is whole.
    vmm.wait_for_count("journal: ", (round * 7 % 41 + 2) as usize);
    vmm.signal(libc::SIGKILL);
    let finished = vmm.finish();
    assert!(!finished.console.contains("error"), "{finished:#?}");
    let count = durable(&finished.console);
    assert!(count > 0, "{finished:#?}");
    wait_for_locks(image);
    count
}

/// Waits until nobody has locks on a file: the kernel ends the rings of a process that was killed, and
/// lets go of their files, after it has been waited for.
fn wait_for_locks(image: &Path) {
    let file = std::fs::File::options().read(true).write(true).open(image).unwrap();
    let all = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLKW(&all)).unwrap();
}

/// The kernel keeps what it has, whoever dies: how slow a disk is makes no difference.
fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn flushed_writes_survive_a_killed_vmm() {
    if !testkit::kvm("flushed_writes_survive_a_killed_vmm") {
        return;
    }
    let dir = memory();
    for round in 0..rounds(6) {
        let image = dir.path().join(format!("{round}.raw"));
        std::fs::File::create(&image).unwrap().set_len(BLOCKS * BYTES).unwrap();
        let count = crash(&image, "raw", round);
        check_records(&image, count);
        std::fs::remove_file(&image).unwrap();
    }
}

#[test]
fn flushed_writes_to_qcow2_survive_a_killed_vmm() {
    if !testkit::kvm("flushed_writes_to_qcow2_survive_a_killed_vmm") {
        return;
    }
    let dir = memory();
    let (image, raw) = (dir.path().join("image"), dir.path().join("raw"));
    let (path, out) = (image.to_str().unwrap(), raw.to_str().unwrap());
    let size = (BLOCKS * BYTES).to_string();
    for round in 0..rounds(6) {
        let shape = SHAPES[(round / 2 % 2) as usize];
        assert!(qemu_img(&["create", "-f", "qcow2", "-o", shape, path, &size]).status.success());
        let count = crash(&image, "qcow2", round);
        let check = qemu_img(&["check", "-f", "qcow2", path]);
        // 3: clusters that were allocated and not yet used are lost, as after a crash of QEMU; they do no
        // harm. Anything else is an error.
        assert!(matches!(check.status.code(), Some(0 | 3)), "round {round}, {shape}: {check:?}");
        assert!(qemu_img(&["convert", "-f", "qcow2", "-O", "raw", path, out]).status.success());
        check_records(&raw, count);
    }
}
