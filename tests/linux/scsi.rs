//! sg3_utils, in Linux, against `scsi-hd`.

use super::drive;
use std::path::Path;
use testkit::LinuxGuest;

/// A command and what its output has to contain.
const TOOLS: &[(&str, &[&str])] = &[
    ("sg_inq /dev/sg0", &["version=0x05", "Peripheral device type: disk", "RINGVISR"]),
    ("sg_vpd /dev/sg0", &["Supported VPD pages", "[sn]", "[di]", "[bl]", "[bdc]", "[lbpv]"]),
    ("sg_vpd -p sn /dev/sg0", &["Unit serial number: ser-1"]),
    ("sg_vpd -p di /dev/sg0", &["Addressed logical unit"]),
    ("sg_vpd -p bl /dev/sg0", &["Maximum unmap LBA count", "Write same non-zero (WSNZ)"]),
    ("sg_vpd -p bdc /dev/sg0", &["Non-rotating medium"]),
    ("sg_vpd -p lbpv /dev/sg0", &["Unmap command supported (LBPU): 1"]),
    ("sg_luns /dev/sg0", &["Lun list length", "0000000000000000"]),
    ("sg_turs -n 3 /dev/sg0", &[]),
    ("sg_requests /dev/sg0", &[]),
    ("sg_readcap /dev/sg0", &["Number of logical blocks=16384", "Logical block length=512 bytes"]),
    ("sg_readcap -l /dev/sg0", &["Logical block provisioning: lbpme=1", "16384"]),
    ("sg_modes -a /dev/sg0", &["Caching"]),
    ("sg_sync /dev/sg0", &[]),
    ("sg_sync --16 /dev/sg0", &[]),
    ("sg_verify --lba=0 --count=64 /dev/sg0", &[]),
    ("sg_reset -d /dev/sg0", &[]),
    // The first command after a reset is told of it, once.
    ("sg_turs /dev/sg0 || sg_turs /dev/sg0", &[]),
];

/// An adapter with a disk of 8 MiB.
pub fn arguments(directory: &Path) -> Vec<String> {
    let drive = format!("{},discard=unmap", drive(directory, "sg", 8));
    let disk = "scsi-hd,drive=sg,bus=s.0,serial=ser-1,rotation_rate=1";
    let args = ["-drive", &drive, "-device", "virtio-scsi-pci,id=s", "-device", disk];
    args.map(str::to_owned).to_vec()
}

/// What each command prints.
pub fn tools(guest: &mut LinuxGuest) {
    for (tool, wanted) in TOOLS {
        let output = guest.run(tool);
        for text in *wanted {
            assert!(output.contains(text), "{tool}: no {text:?} in\n{output}");
        }
    }
}

/// What commands that write leave in the image.
pub fn blocks(guest: &mut LinuxGuest, directory: &Path) {
    // Blocks 8 to 15: written, then zeroed; 16 to 23: written, then written by one command; 24 to 31:
    // written, then unmapped; 32 and on: as they were written.
    let repeat = |text: &str, doublings: u32, to: &str| {
        let numbers: Vec<String> = (0..doublings).map(|n| n.to_string()).collect();
        format!(
            "s='{text}\\n'; for i in {}; do s=$s$s; done; printf \"$s\" >{to}",
            numbers.join(" ")
        )
    };
    guest.run(&repeat("ringvisor", 11, "/tmp/lines"));
    guest.run("dd if=/tmp/lines of=/dev/sda bs=4096 conv=fsync 2>/dev/null");
    guest.run("sg_write_same --10 --lba=8 --num=8 --in=/dev/zero --xferlen=512 /dev/sg0");
    guest.run(&repeat("same", 7, "/tmp/same"));
    guest.run("sg_write_same --16 --lba=16 --num=8 --in=/tmp/same --xferlen=512 /dev/sg0");
    guest.run("sg_unmap --force --lba=24 --num=8 /dev/sg0");
    guest.run("sg_sync /dev/sg0");
    let image = std::fs::read(directory.join("sg")).unwrap();
    let written: Vec<u8> = b"ringvisor\n".iter().copied().cycle().take(20480).collect();
    let same: Vec<u8> = b"same\n".iter().copied().cycle().take(512).collect();
    assert_eq!(image[..4096], written[..4096]);
    assert!(image[4096..8192].iter().all(|byte| *byte == 0), "zeroes by WRITE SAME(10)");
    assert!(image[8192..12288].chunks(512).all(|block| block == same), "WRITE SAME(16)");
    assert!(image[12288..16384].iter().all(|byte| *byte == 0), "UNMAP");
    assert_eq!(image[16384..20480], written[16384..]);
}
