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
        /// A regular file.
        File = "file",
        /// A block device of the host.
        HostDevice = "host_device",
        /// No storage at all.
        NullCo = "null-co",
        /// Another node as it is, or a part of it.
        Raw = "raw",
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

static REFERENCE: AlternateInfo = AlternateInfo {
    name: "BlockdevRef",
    doc: "A node: a new one, or the name of one that exists.\n",
    members: &[Type::Struct(&OPTIONS), Type::String],
};

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
        cases: &[("file", &FILE), ("host_device", &FILE), ("null-co", &NULL), ("raw", &RAW)],
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
}
