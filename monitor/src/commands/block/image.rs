//! What an image is, with those behind it.

use crate::error::QmpError;
use crate::registry::{At, Qapi, Type, Value};
use crate::wire::Writer;
use crate::{qapi_enum, qapi_struct, qapi_union};
use devices::block::format::{Compression, Qcow2Header, Snapshot};
use devices::block::graph::Node;
use std::sync::Arc;

qapi_struct! {
    /// A snapshot inside an image.
    pub struct SnapshotInfo {
        /// Its number.
        pub id: String = "id",
        /// What its maker has called it.
        pub name: String = "name",
        /// Bytes of the guest's state.
        pub vm_state_size: u64 = "vm-state-size",
        /// When it was made: seconds since 1970.
        pub date_sec: u64 = "date-sec",
        /// Nanoseconds beyond.
        pub date_nsec: u64 = "date-nsec",
        /// How long the guest had run: seconds.
        pub vm_clock_sec: u64 = "vm-clock-sec",
        /// Nanoseconds beyond.
        pub vm_clock_nsec: u64 = "vm-clock-nsec",
        /// Instructions that the guest had run.
        pub icount: Option<u64> = "icount",
    }
}

qapi_struct! {
    /// An image.
    pub struct ImageInfo {
        /// Where it is.
        pub filename: String = "filename",
        /// Its format.
        pub format: String = "format",
        /// It was not closed, and is to be repaired.
        pub dirty_flag: Option<bool> = "dirty-flag",
        /// Bytes that it takes on the host.
        pub actual_size: Option<u64> = "actual-size",
        /// Bytes that its user sees.
        pub virtual_size: u64 = "virtual-size",
        /// Bytes of a cluster.
        pub cluster_size: Option<u64> = "cluster-size",
        /// The image behind, as the image names it.
        pub backing_filename: Option<String> = "backing-filename",
        /// The image behind, as it is found.
        pub full_backing_filename: Option<String> = "full-backing-filename",
        /// Its format.
        pub backing_filename_format: Option<String> = "backing-filename-format",
        /// The snapshots inside, where there are any.
        pub snapshots: Option<Vec<SnapshotInfo>> = "snapshots",
        /// The image behind.
        pub backing_image: Option<BackingImage> = "backing-image",
        /// What only images of its format have.
        pub format_specific: Option<ImageInfoSpecific> = "format-specific",
    }
}

qapi_enum! {
    /// Formats of which there is more to tell.
    pub enum ImageInfoSpecificKind {
        /// Clusters.
        Qcow2 = "qcow2",
        /// A file of the host.
        File = "file",
    }
}

qapi_enum! {
    /// How compressed clusters are compressed.
    pub enum Qcow2CompressionType {
        /// Deflate.
        Zlib = "zlib",
        /// Zstandard.
        Zstd = "zstd",
    }
}

qapi_struct! {
    /// What a qcow2 image tells.
    pub struct ImageInfoSpecificQCow2 {
        /// `0.10` for version 2, `1.1` for version 3.
        pub compat: String = "compat",
        /// L2 entries have subclusters.
        pub extended_l2: Option<bool> = "extended-l2",
        /// Refcounts may be written late.
        pub lazy_refcounts: Option<bool> = "lazy-refcounts",
        /// It has been found to be corrupt.
        pub corrupt: Option<bool> = "corrupt",
        /// Bits of a refcount.
        pub refcount_bits: i64 = "refcount-bits",
        /// How compressed clusters are compressed.
        pub compression_type: Qcow2CompressionType = "compression-type",
    }
}

qapi_struct! {
    /// What a file tells.
    pub struct ImageInfoSpecificFile {
        /// A hint for the size of its extents.
        pub extent_size_hint: Option<u64> = "extent-size-hint",
    }
}

qapi_struct! {
    /// A wrapper.
    pub struct ImageInfoSpecificQCow2Wrapper {
        /// What it wraps.
        pub data: ImageInfoSpecificQCow2 = "data",
    }
}

qapi_struct! {
    /// A wrapper.
    pub struct ImageInfoSpecificFileWrapper {
        /// What it wraps.
        pub data: ImageInfoSpecificFile = "data",
    }
}

qapi_union! {
    /// What only images of one format have.
    pub enum ImageInfoSpecific by ImageInfoSpecificKind = "type" {
        Qcow2(ImageInfoSpecificQCow2Wrapper),
        File(ImageInfoSpecificFileWrapper),
    }
}

/// The image behind another one.
#[derive(Clone, Debug, PartialEq)]
pub struct BackingImage(Box<ImageInfo>);

impl Qapi for BackingImage {
    const TYPE: Type = Type::Later(|| ImageInfo::TYPE);

    fn read(value: Value, at: At<'_>) -> Result<Self, QmpError> {
        ImageInfo::read(value, at).map(|image| Self(Box::new(image)))
    }

    fn write(&self, writer: &mut Writer) {
        self.0.write(writer);
    }
}

/// The node behind another one.
pub(super) fn backing(node: &Node) -> Option<Arc<Node>> {
    let mut others = node.uses_of_others().into_iter();
    others.find(|(role, _)| *role == "backing").map(|(_, node)| node)
}

/// How many images are behind one.
pub(super) fn depth(node: &Node) -> u64 {
    backing(node).map_or(0, |below| depth(&below) + 1)
}

pub(super) fn image_info(node: &Node) -> ImageInfo {
    let details = node.details().unwrap_or_default();
    let header = details.header.as_ref();
    let below = backing(node);
    let named = header.and_then(|header| header.backing_file.clone());
    let found = below.as_ref().map(|below| below.filename()).filter(|_| named.is_some());
    let snapshots = details.snapshots.iter().map(snapshot).collect::<Vec<_>>();
    ImageInfo {
        filename: node.filename(),
        format: node.options().driver.driver().to_owned(),
        dirty_flag: header.map(|header| header.incompatible & Qcow2Header::DIRTY != 0),
        actual_size: node.allocated(),
        virtual_size: node.size(),
        cluster_size: details.cluster_size(),
        full_backing_filename: found.or_else(|| named.clone()),
        backing_filename: named,
        backing_filename_format: header.and_then(|header| header.backing_format.clone()),
        snapshots: Some(snapshots).filter(|snapshots| !snapshots.is_empty()),
        format_specific: specific(node, header),
        backing_image: below.map(|below| BackingImage(Box::new(image_info(&below)))),
    }
}

fn specific(node: &Node, header: Option<&Qcow2Header>) -> Option<ImageInfoSpecific> {
    let Some(header) = header else {
        let file = matches!(node.options().driver.driver(), "file" | "host_device");
        let data = ImageInfoSpecificFile { extent_size_hint: None };
        return file.then_some(ImageInfoSpecific::File(ImageInfoSpecificFileWrapper { data }));
    };
    let v3 = header.version >= 3;
    let has = |bits: u64, bit: u64| v3.then_some(bits & bit != 0);
    let data = ImageInfoSpecificQCow2 {
        compat: if v3 { "1.1" } else { "0.10" }.to_owned(),
        extended_l2: has(header.incompatible, Qcow2Header::EXTENDED_L2),
        lazy_refcounts: has(header.compatible, Qcow2Header::LAZY_REFCOUNTS),
        corrupt: has(header.incompatible, Qcow2Header::CORRUPT),
        refcount_bits: 1 << header.refcount_order,
        compression_type: match header.compression {
            Compression::Zlib => Qcow2CompressionType::Zlib,
            Compression::Zstd => Qcow2CompressionType::Zstd,
        },
    };
    Some(ImageInfoSpecific::Qcow2(ImageInfoSpecificQCow2Wrapper { data }))
}

fn snapshot(snapshot: &Snapshot) -> SnapshotInfo {
    const SECOND: u64 = 1_000_000_000;
    SnapshotInfo {
        id: snapshot.id.clone(),
        name: snapshot.name.clone(),
        vm_state_size: snapshot.vm_state_size,
        date_sec: snapshot.date_s.into(),
        date_nsec: snapshot.date_ns.into(),
        vm_clock_sec: snapshot.vm_clock_ns / SECOND,
        vm_clock_nsec: snapshot.vm_clock_ns % SECOND,
        icount: snapshot.icount,
    }
}
