//! The VMM is killed while its guest writes and flushes: what was flushed is there afterwards.

use std::os::unix::fs::FileExt;
use std::path::Path;
use testkit::Vmm;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// As the guest's command `journal` has them.
const BYTES: u64 = 4096;
const STRIDE: u64 = 7919;
/// A power of two.
const BLOCKS: u64 = 4096;

/// How often; `RINGVISOR_CRASH_ROUNDS` asks for more.
fn rounds() -> u64 {
    std::env::var("RINGVISOR_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
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

#[test]
fn flushed_writes_survive_a_killed_vmm() {
    if !testkit::kvm("flushed_writes_survive_a_killed_vmm") {
        return;
    }
    // The kernel keeps what it has, whoever dies: how slow a disk is makes no difference.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for round in 0..rounds() {
        let image = dir.path().join(format!("{round}.raw"));
        std::fs::File::create(&image).unwrap().set_len(BLOCKS * BYTES).unwrap();
        let cache = ["none", "writeback"][(round % 2) as usize];
        let drive = format!("file={},format=raw,if=virtio,cache={cache}", image.display());
        let vmm = Vmm::start(RINGVISOR, &["-drive", &drive, "-append", "journal"]);
        // Some time after that many flushes, which is another point in each round. The second line's
        // beginning is the end of the first.
        vmm.wait_for_count("journal: ", (round * 7 % 41 + 2) as usize);
        vmm.signal(libc::SIGKILL);
        let finished = vmm.finish();
        assert!(!finished.console.contains("error"), "{finished:#?}");
        let count = durable(&finished.console);
        assert!(count > 0, "{finished:#?}");
        check_records(&image, count);
        std::fs::remove_file(&image).unwrap();
    }
}
