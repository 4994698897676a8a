//! A Linux guest reaches its init and reads its disk.

use super::RINGVISOR;
use std::io::Write;
use std::process::Command;
use testkit::{LinuxGuest, LinuxImages, Vmm};

/// A disk of 8 MiB with bytes that no other has, and the SHA-256 of its first MiB.
fn disk(dir: &tempfile::TempDir) -> (String, String) {
    let path = dir.path().join("disk.raw");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut state = u64::from(std::process::id()) | 1;
    let mut bytes = Vec::with_capacity(8 << 20);
    while bytes.len() < 8 << 20 {
        // xorshift64: enough to tell any two sectors apart.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    file.write_all(&bytes).unwrap();
    let first = dir.path().join("first");
    std::fs::write(&first, &bytes[..1 << 20]).unwrap();
    let output = Command::new("sha256sum").arg(&first).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (path.to_str().unwrap().to_owned(), text.split_whitespace().next().unwrap().to_owned())
}

/// Another boot than that of the other tests, with what can be had only from the start.
fn boot(extra: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (image, sum) = disk(&dir);
    let drive = format!("file={image},format=raw,if=virtio");
    let own = LinuxImages::from_environment().arguments("rv.poweroff");
    let mut args: Vec<&str> = own.iter().map(String::as_str).collect();
    args.extend(["-drive", &drive]);
    args.extend(extra);
    let mut vmm = Vmm::start(RINGVISOR, &args);
    vmm.set_patience(LinuxGuest::PATIENCE);
    vmm.close_stdin();
    vmm.wait_for("ringvisor-linux: init reached");
    vmm.wait_for(&format!("ringvisor-linux: vda 8388608 {sum}"));
    let finished = vmm.finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
}

#[test]
fn linux_with_memory_above_4_gib_and_two_queues() {
    if testkit::kvm("linux_with_memory_above_4_gib_and_two_queues") {
        boot(&["-m", "6G", "-smp", "2"]);
    }
}
