//! SCSI disks and CD drives: the embedded guest finds them, and checks every byte.

use serde_json::json;
use std::path::Path;
use testkit::Vmm;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// An image of so many MiB, and the `-drive` option for it.
fn drive(directory: &Path, id: &str, mib: u64) -> String {
    let path = directory.join(id);
    std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
    format!("file={},format=raw,if=none,id={id}", path.display())
}

#[test]
fn the_guest_finds_and_checks_every_unit() {
    if !testkit::kvm("the_guest_finds_and_checks_every_unit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let drives = ["a", "b", "c"].map(|id| drive(directory.path(), id, 4));
    let cd = format!("{},readonly=on", drives[2]);
    let mut vmm = Vmm::start(
        RINGVISOR,
        &[
            "-append",
            "scsi;poweroff",
            "-device",
            "virtio-scsi-pci,id=s,num_queues=2",
            "-drive",
            &drives[0],
            "-device",
            "scsi-hd,bus=s.0,drive=a,serial=first",
            "-drive",
            &drives[1],
            "-device",
            "scsi-hd,bus=s.0,drive=b,scsi-id=3,lun=2,logical_block_size=4096",
            "-drive",
            &cd,
            "-device",
            "scsi-cd,bus=s.0,drive=c",
        ],
    );
    vmm.close_stdin();
    let finished = vmm.finish();
    let console = &finished.console;
    assert_eq!(finished.code(), 0, "{finished:#?}");
    for line in [
        "scsi: 0: disk of 8192 blocks of 512",
        "scsi: 3: disk of 1024 blocks of 4096",
        "scsi: 1: cd of 2048 blocks of 2048",
        " 0 failed",
    ] {
        assert!(console.contains(line), "{line}: {console}");
    }
    // What the guest wrote is in the images.
    for id in ["a", "b"] {
        let bytes = std::fs::read(directory.path().join(id)).unwrap();
        assert!(bytes[..1 << 20].chunks(4096).all(|page| page.iter().any(|byte| *byte != 0)));
    }
}

#[test]
fn a_disk_is_plugged_in_and_out_by_qmp() {
    if !testkit::kvm("a_disk_is_plugged_in_and_out_by_qmp") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let drive = drive(directory.path(), "a", 1);
    let vmm =
        &mut Vmm::start(RINGVISOR, &["-S", "-device", "virtio-scsi-pci,id=s", "-drive", &drive]);
    let mut qmp = vmm.qmp();
    let disk = json!({"driver": "scsi-hd", "drive": "a", "id": "h", "bus": "s.0"});
    qmp.execute_with("device_add", disk);
    qmp.execute_with("device_del", json!({"id": "h"}));
    let deleted = qmp.wait_event("DEVICE_DELETED");
    assert_eq!(deleted["data"], json!({"device": "h", "path": "/machine/peripheral/h"}));
    let error = qmp.execute_raw("device_del", json!({"id": "h"}));
    assert_eq!(error["error"]["class"], "DeviceNotFound");
    qmp.execute("quit");
}
