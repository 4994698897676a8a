//! The embedded guest checks every byte of its disks, in every shape of machine.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::Vmm;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// Runs the guest's checks and expects all of them to pass.
fn check(args: &[&str]) -> String {
    let mut all = vec!["-append", "check;poweroff"];
    all.extend(args);
    let mut vmm = Vmm::start(RINGVISOR, &all);
    vmm.close_stdin();
    let finished = vmm.finish();
    assert!(
        finished.code() == 0 && finished.console.contains(" 0 failed"),
        "{args:?}: {finished:#?}"
    );
    finished.console
}

fn image(dir: &tempfile::TempDir, mib: u64) -> String {
    let path = dir.path().join("disk.raw");
    std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn unattended_boot_checks_the_scratch_disk() {
    if !testkit::kvm("unattended_boot_checks_the_scratch_disk") {
        return;
    }
    let console = check(&[]);
    assert!(console.contains("ok "), "{console}");
}

#[test]
fn every_byte_is_right_with_1_2_and_4_queues_on_1_and_2_cores() {
    if !testkit::kvm("every_byte_is_right_with_1_2_and_4_queues_on_1_and_2_cores") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = image(&dir, 64);
    let allowed = reactor::allowed_cpus().unwrap();
    let one = format!("cores={}", allowed[0]);
    let two = format!(
        "cores={}",
        allowed.iter().take(2).map(ToString::to_string).collect::<Vec<_>>().join(":")
    );
    for cores in [&one, &two] {
        for queues in ["1", "2", "4"] {
            let device = format!("virtio-blk-pci,drive=d,serial=checked,num-queues={queues}");
            let drive = format!("file={file},format=raw,if=none,id=d,discard=unmap");
            let console = check(&["-drive", &drive, "-device", &device, "-reactor", cores]);
            assert!(console.contains("check: "), "{console}");
        }
    }
}

#[test]
fn every_cache_mode_gives_the_same_bytes() {
    if !testkit::kvm("every_cache_mode_gives_the_same_bytes") {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = image(&dir, 16);
    for cache in ["none", "writeback", "writethrough", "directsync", "unsafe"] {
        check(&["-drive", &format!("file={file},format=raw,if=virtio,cache={cache}")]);
    }
}

#[test]
fn read_only_disk_refuses_writes_and_keeps_its_bytes() {
    if !testkit::kvm("read_only_disk_refuses_writes_and_keeps_its_bytes") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = image(&dir, 4);
    let before = std::fs::read(&file).unwrap();
    check(&["-drive", &format!("file={file},format=raw,if=virtio,readonly=on")]);
    assert!(std::fs::read(&file).unwrap() == before);
}

#[test]
fn several_disks_and_vcpus() {
    if !testkit::kvm("several_disks_and_vcpus") {
        return;
    }
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = format!("file={},format=raw,if=virtio", image(&a, 8));
    let second = format!("file={},format=raw,if=virtio", image(&b, 4));
    check(&["-drive", &first, "-drive", &second, "-smp", "2"]);
}

/// 6 GiB on any host: the hole below 4 GiB is there, and the memory costs nothing until it is used.
#[test]
fn more_memory_than_fits_below_4_gib() {
    if !testkit::kvm("more_memory_than_fits_below_4_gib") {
        return;
    }
    check(&["-m", "6G"]);
}

/// Somebody else writes to the image: the guest sees bytes that it has not written, says so, and
/// the exit status tells.
#[test]
fn failed_check_is_the_exit_status() {
    if !testkit::kvm("failed_check_is_the_exit_status") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = image(&dir, 8);
    let drive = format!("file={file},format=raw,if=virtio");
    let vmm = Vmm::start(RINGVISOR, &["-drive", &drive, "-append", "check;poweroff"]);
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let spoiler = std::thread::spawn(move || {
        let image = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        while !stop.load(Ordering::Relaxed) {
            for sector in 0..16384 {
                image.write_all_at(&[0xa5; 64], sector * 512).unwrap();
            }
        }
    });
    let finished = vmm.finish();
    done.store(true, Ordering::Relaxed);
    spoiler.join().unwrap();
    assert!(finished.console.contains("FAIL disk0 "), "{finished:#?}");
    assert_eq!(finished.code(), 1);
}

#[test]
fn guest_chooses_the_exit_status() {
    if !testkit::kvm("guest_chooses_the_exit_status") {
        return;
    }
    for status in [0, 1, 7, 255] {
        let command = format!("exit {status}");
        let vmm = Vmm::start(RINGVISOR, &["-append", &command]);
        assert_eq!(vmm.finish().code(), status);
    }
}

/// Nonsense in PCI configuration space and in virtqueues: the device says NEEDS_RESET and works again after a reset.
#[test]
fn nonsense_from_the_guest_leaves_the_machine_running() {
    if !testkit::kvm("nonsense_from_the_guest_leaves_the_machine_running") {
        return;
    }
    let script = "wild;badq;check;poweroff";
    let vmm = Vmm::start(RINGVISOR, &["-append", script]);
    let finished = vmm.finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
    assert!(finished.console.contains(" 0 failed"), "{finished:#?}");
}

#[test]
fn instructions_that_kvm_refuses_are_completed() {
    if !testkit::kvm("instructions_that_kvm_refuses_are_completed") {
        return;
    }
    let vmm = Vmm::start(RINGVISOR, &["-append", "emul;poweroff"]);
    let finished = vmm.finish();
    assert_eq!(finished.code(), 0, "{finished:#?}");
}

/// What the core contexts have asked of the kernel.
fn core_counters(qmp: &mut testkit::Qmp) -> (u64, u64) {
    let reactors = qmp.execute("query-reactors");
    let cores = reactors.as_array().unwrap().iter().filter(|r| r.get("cpu").is_some());
    let count = |r: &serde_json::Value, name: &str| r[name].as_u64().unwrap();
    cores.fold((0, 0), |(enters, sqes), r| (enters + count(r, "enters"), sqes + count(r, "sqes")))
}

/// 32 reads with one doorbell cost one enter, and the interrupt rides the enter that then sleeps.
#[test]
fn batch_of_32_reads_costs_one_enter_and_one_interrupt() {
    if !testkit::kvm("batch_of_32_reads_costs_one_enter_and_one_interrupt") {
        return;
    }
    let mut vmm = Vmm::start(RINGVISOR, &[]);
    let mut qmp = vmm.qmp();
    vmm.wait_for("guest> ");
    // The first run fills the page cache and sets the queue up.
    vmm.type_in("batch n=32 rounds=10\r");
    vmm.wait_for("10 rounds of 32 reads: doorbells 10 interrupts 10 errors 0");
    let (enters, sqes) = core_counters(&mut qmp);
    vmm.type_in("batch n=32 rounds=200\r");
    vmm.wait_for("200 rounds of 32 reads: doorbells 200 interrupts 200 errors 0");
    let after = core_counters(&mut qmp);
    let (enters, sqes) = (after.0 - enters, after.1 - sqes);
    println!("200 rounds of 32 reads: {enters} enters, {sqes} SQEs");
    // A round: 32 reads, the interrupt, the next doorbell. A few more for reset and set-up.
    assert!((200 * 34..200 * 34 + 40).contains(&sqes), "{sqes} SQEs");
    // A round: one enter for the reads, one to sleep, which carries the interrupt.
    assert!(enters <= 200 * 2 + 40, "{enters} enters");
    qmp.execute("quit");
    assert_eq!(vmm.finish().code(), 0);
}
