//! What Linux finds. Run by `tests/linux/run.sh`, which builds the guest first.
//!
//! On hosts without VMX or SVM, processes of the guest that take turns lose the base of FS now and then,
//! and end by a segmentation fault, under QEMU as well: no line that the guest runs has two of them at work, as
//! a pipe would.

mod boot;
mod daily;
mod hotplug;
mod net;
mod scsi;

use testkit::LinuxGuest;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// Makes an image of so many MiB; returns its path.
fn image(directory: &std::path::Path, name: &str, mib: u64) -> String {
    let path = directory.join(name);
    std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The `-drive` option for a new image.
fn drive(directory: &std::path::Path, id: &str, mib: u64) -> String {
    format!("file={},format=raw,if=none,id={id}", image(directory, id, mib))
}

/// One boot for everything that a running guest is asked, since a boot can take minutes.
#[test]
fn linux_uses_devices_that_come_and_go() {
    const TEST: &str = "linux_uses_devices_that_come_and_go";
    if !testkit::kvm(TEST) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let args = [scsi::arguments(directory), hotplug::arguments(directory)].concat();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let log = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("linux-{TEST}.log"));
    let mut guest = LinuxGuest::boot(RINGVISOR, log, &args);
    hotplug::finds_slots(&mut guest);
    let wire = net::Wire::new(directory);
    hotplug::by_acpi(&mut guest, directory, &wire);
    hotplug::below_root_ports(&mut guest, directory, &wire);
    scsi::tools(&mut guest);
    scsi::blocks(&mut guest, directory);
    let log = guest.kernel_log();
    for wrong in ["BUG", "WARNING", "Oops", "Call Trace", "can't assign", "Timeout on hotplug"] {
        assert!(!log.contains(wrong), "{log}");
    }
    assert_eq!(guest.power_off().code(), 0);
}
