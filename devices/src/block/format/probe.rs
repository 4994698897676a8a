//! Telling formats by their first bytes.

/// Bytes that [`probe`] looks at.
pub const PROBE_BYTES: usize = 512;

/// What an image's first bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// Nothing known: the bytes are those of the disk.
    Raw,
    /// `qcow2`.
    Qcow2,
    /// `vmdk`, as a descriptor or with one inside.
    Vmdk,
    /// A format that cannot be read here, by QEMU's name.
    Other(&'static str),
}

impl Probed {
    /// QEMU's name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Other(name) => name,
        }
    }
}

/// Formats with a fixed signature: where it is, what it is, and whose.
const SIGNATURES: &[(usize, &[u8], Probed)] = &[
    (0, b"QFI\xfb\x00\x00\x00\x02", Probed::Qcow2),
    (0, b"QFI\xfb\x00\x00\x00\x03", Probed::Qcow2),
    (0, b"QFI\xfb\x00\x00\x00\x01", Probed::Other("qcow")),
    (0, b"KDMV", Probed::Vmdk),
    (0, b"COWD", Probed::Vmdk),
    (0, b"LUKS\xba\xbe", Probed::Other("luks")),
    (0, b"QED\0", Probed::Other("qed")),
    (0, b"conectix", Probed::Other("vpc")),
    (0, b"vhdxfile", Probed::Other("vhdx")),
    (0, b"WithoutFreeSpace", Probed::Other("parallels")),
    (0, b"WithouFreSpacExt", Probed::Other("parallels")),
    (0, b"Bochs Virtual HD Image", Probed::Other("bochs")),
    (0x40, &[0x7f, 0x10, 0xda, 0xbe], Probed::Other("vdi")),
];

/// Tells the format of an image by its first [`PROBE_BYTES`] bytes, or all where it has fewer. A guest
/// that writes to a raw image chooses what this says of it.
pub fn probe(first: &[u8]) -> Probed {
    let signed = |(at, signature, _): &&(usize, &[u8], Probed)| {
        first.get(*at..).is_some_and(|rest| rest.starts_with(signature))
    };
    match SIGNATURES.iter().find(signed) {
        Some((.., format)) => *format,
        None if is_descriptor(first) => Probed::Vmdk,
        None => Probed::Raw,
    }
}

/// Whether it is the text of a VMDK descriptor: the first line that says something is its version.
fn is_descriptor(first: &[u8]) -> bool {
    let mut lines = first.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let said = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    said.and_then(|line| line.strip_prefix(b"version="))
        .is_some_and(|version| matches!(version, [b'1'..=b'3']))
}

#[cfg(test)]
mod tests {
    use super::{Probed, probe};

    #[test]
    fn formats_are_told_apart() {
        let mut vdi = [0; 512];
        vdi[0x40..0x44].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        for (bytes, format) in [
            (&b""[..], Probed::Raw),
            (b"QFI", Probed::Raw),
            (b"QFI\xfb\0\0\0\x02", Probed::Qcow2),
            (b"QFI\xfb\0\0\0\x03and so on", Probed::Qcow2),
            (b"QFI\xfb\0\0\0\x09", Probed::Raw),
            (b"KDMV\x01", Probed::Vmdk),
            (b"# Disk DescriptorFile\r\n\r\nversion=1\nCID=1", Probed::Vmdk),
            (b"# version=1\n", Probed::Raw),
            (b"version=9\n", Probed::Raw),
            (b"LUKS\xba\xbe\0\x01", Probed::Other("luks")),
            (&vdi, Probed::Other("vdi")),
        ] {
            assert_eq!(probe(bytes), format, "{bytes:?}");
        }
    }
}
