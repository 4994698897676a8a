//! The type of block nodes to be made. It refers to itself, as a node may be made with those below
//! it, which is why it is described by hand. The graph reads it.

use super::nodes::BlockdevDetectZeroesOptions;
use crate::error::QmpError;
use crate::registry::{
    AlternateInfo, Qapi, StructInfo, Type, VariantsInfo, members, optional, required,
};
use crate::{qapi_enum, qapi_open_struct};
use devices::block::graph::Options;

qapi_enum! {
    /// What a node does.
    pub enum BlockdevDriver {
        /// Another node, with errors where rules say so.
        Blkdebug = "blkdebug",
        /// A regular file.
        File = "file",
        /// A block device of the host.
        HostDevice = "host_device",
        /// No storage at all.
        NullCo = "null-co",
        /// Clusters in another node, with another one behind.
        Qcow2 = "qcow2",
        /// Another node as it is, or a part of it.
        Raw = "raw",
        /// Another node, with the limits of a group.
        Throttle = "throttle",
        /// Extents that a descriptor names, to be read.
        Vmdk = "vmdk",
    }
}

qapi_enum! {
    /// What becomes of discards.
    pub enum BlockdevDiscardOptions {
        /// They change nothing.
        Ignore = "ignore",
        /// They free space.
        Unmap = "unmap",
    }
}

qapi_enum! {
    /// How requests reach a file. One engine, io_uring, serves all of them.
    pub enum BlockdevAioOptions {
        /// As `io_uring`.
        Threads = "threads",
        /// As `io_uring`.
        Native = "native",
        /// By io_uring.
        IoUring = "io_uring",
    }
}

qapi_enum! {
    /// Yes, no, or what is best.
    pub enum OnOffAuto {
        /// What is best.
        Auto = "auto",
        /// Yes.
        On = "on",
        /// No.
        Off = "off",
    }
}

qapi_enum! {
    /// What lets a rule hold.
    pub enum BlkdebugEvent {
        /// The node was made.
        None = "none",
        /// A read.
        ReadAio = "read_aio",
        /// A write.
        WriteAio = "write_aio",
        /// A write of zeroes.
        PwritevZero = "pwritev_zero",
        /// The first half of a flush.
        FlushToOs = "flush_to_os",
        /// The second half of a flush.
        FlushToDisk = "flush_to_disk",
    }
}

qapi_enum! {
    /// Kinds of requests.
    pub enum BlkdebugIOType {
        /// Reads.
        Read = "read",
        /// Writes.
        Write = "write",
        /// Writes of zeroes.
        WriteZeroes = "write-zeroes",
        /// Discards.
        Discard = "discard",
        /// Flushes.
        Flush = "flush",
    }
}

static INJECT_ERROR: StructInfo = members(
    "BlkdebugInjectErrorOptions",
    "A rule of blkdebug.\n",
    &[
        required("event", "From when on it holds.\n", BlkdebugEvent::TYPE),
        optional("iotype", "For which requests; for all when absent.\n", BlkdebugIOType::TYPE),
        optional("errno", "What they fail with; EIO when absent, 0: they do not.\n", Type::Integer),
        optional("sector", "For requests that touch this sector only.\n", Type::Integer),
        optional("once", "It holds for one request.\n", Type::Boolean),
        optional("immediately", "Taken, and without an effect.\n", Type::Boolean),
        optional("x-delay-ns", "Nanoseconds that they take longer.\n", Type::Integer),
        optional(
            "x-bytes",
            "Bytes of a read or write that are moved before it fails.\n",
            Type::Integer,
        ),
    ],
);

static INJECT_ERROR_TYPE: Type = Type::Struct(&INJECT_ERROR);

static BLKDEBUG: StructInfo = members(
    "BlockdevOptionsBlkdebug",
    "Another node, with errors where rules say so.\n",
    &[
        required("image", "The node.\n", Type::Alternate(&REFERENCE)),
        optional("inject-error", "The rules.\n", Type::Array(&INJECT_ERROR_TYPE)),
    ],
);

static REFERENCE: AlternateInfo = AlternateInfo {
    name: "BlockdevRef",
    doc: "A node: a new one, or the name of one that exists.\n",
    members: &[Type::Struct(&OPTIONS), Type::String],
};

static REFERENCE_OR_NULL: AlternateInfo = AlternateInfo {
    name: "BlockdevRefOrNull",
    doc: "A node: a new one, or the name of one that exists; or none.\n",
    members: &[Type::Struct(&OPTIONS), Type::String, Type::Null],
};

static QCOW2: StructInfo = members(
    "BlockdevOptionsQcow2",
    "An image of clusters.\n",
    &[
        required("file", "The node that holds it.\n", Type::Alternate(&REFERENCE)),
        optional(
            "backing",
            "What unallocated clusters read as; what the image names when absent.\n",
            Type::Alternate(&REFERENCE_OR_NULL),
        ),
    ],
);

static VMDK: StructInfo = members(
    "BlockdevOptionsGenericCOWFormat",
    "An image of extents.\n",
    &[required("file", "The node of its descriptor.\n", Type::Alternate(&REFERENCE))],
);

static CACHE: StructInfo = members(
    "BlockdevCacheOptions",
    "How host caches take part.\n",
    &[
        optional("direct", "Bypass the host's page cache.\n", Type::Boolean),
        optional("no-flush", "Ignore flushes.\n", Type::Boolean),
    ],
);

static FILE: StructInfo = members(
    "BlockdevOptionsFile",
    "An image on the host.\n",
    &[
        required("filename", "Its path.\n", Type::String),
        optional("locking", "Lock it against other writers.\n", OnOffAuto::TYPE),
        optional("aio", "How requests reach it.\n", BlockdevAioOptions::TYPE),
    ],
);

static NULL: StructInfo = members(
    "BlockdevOptionsNull",
    "No storage at all.\n",
    &[
        optional("size", "Bytes; 1 GiB when absent.\n", Type::Integer),
        optional("latency-ns", "What each request takes, in nanoseconds.\n", Type::Integer),
        optional("read-zeroes", "Reads give zeroes.\n", Type::Boolean),
    ],
);

static RAW: StructInfo = members(
    "BlockdevOptionsRaw",
    "A part of another node, or all of it.\n",
    &[
        required("file", "The node.\n", Type::Alternate(&REFERENCE)),
        optional("offset", "First byte.\n", Type::Integer),
        optional("size", "Bytes; to the end when absent.\n", Type::Integer),
    ],
);

static THROTTLE: StructInfo = members(
    "BlockdevOptionsThrottle",
    "Another node, with the limits of a group.\n",
    &[
        required("throttle-group", "The group: an object, or that of a drive.\n", Type::String),
        required("file", "The node.\n", Type::Alternate(&REFERENCE)),
    ],
);

static OPTIONS: StructInfo = StructInfo {
    name: "BlockdevOptions",
    doc: "A node to be made.\n",
    members: &[
        required("driver", "What it does.\n", BlockdevDriver::TYPE),
        optional("node-name", "Its name; generated when absent.\n", Type::String),
        optional("discard", "What becomes of discards.\n", BlockdevDiscardOptions::TYPE),
        optional(
            "detect-zeroes",
            "What becomes of writes of zeroes by devices that use the node.\n",
            BlockdevDetectZeroesOptions::TYPE,
        ),
        optional("cache", "How host caches take part.\n", Type::Struct(&CACHE)),
        optional("read-only", "No writes.\n", Type::Boolean),
        optional(
            "auto-read-only",
            "No writes where they are not allowed, instead of an error.\n",
            Type::Boolean,
        ),
    ],
    variants: Some(VariantsInfo {
        tag: "driver",
        cases: &[
            ("blkdebug", &BLKDEBUG),
            ("file", &FILE),
            ("host_device", &FILE),
            ("null-co", &NULL),
            ("qcow2", &QCOW2),
            ("raw", &RAW),
            ("throttle", &THROTTLE),
            ("vmdk", &VMDK),
        ],
    }),
};

qapi_open_struct! {
    /// A node to be made. The graph reads it.
    pub struct BlockdevOptions = OPTIONS;
}

impl BlockdevOptions {
    /// As the graph takes it.
    pub(super) fn parse(self) -> Result<Options, QmpError> {
        Ok(Options::parse(self.0)?)
    }

    /// As the graph takes it, for a member of a list that messages call `at`.
    pub(super) fn parse_at(self, at: &str) -> Result<Options, QmpError> {
        Ok(Options::parse_at(self.0, at)?)
    }
}
