//! Objects beside devices: `object-add`, `object-del`.

use crate::core::Env;
use crate::error::QmpError;
use crate::registry::{
    Command, EnumInfo, MemberInfo, Members, Qapi, QapiStruct, Registry, StructInfo, Type,
    VariantsInfo, members, optional, required,
};
use crate::{qapi_enum, qapi_open_struct, qapi_struct};
use devices::objects::{Body, Object};
use devices::qdev::value::Syntax;
use devices::qom;
use std::sync::Arc;

qapi_enum! {
    /// How a secret is written.
    pub enum QCryptoSecretFormat {
        /// As it is.
        Raw = "raw",
        /// In base64.
        Base64 = "base64",
    }
}

static TYPES: EnumInfo = EnumInfo {
    name: "ObjectType",
    doc: "A type of object.\n",
    values: &[
        ("iothread", "A core context to put queues on.\n"),
        ("memory-backend-file", "Memory in a file.\n"),
        ("memory-backend-memfd", "Memory in a file without a name.\n"),
        ("memory-backend-ram", "Memory.\n"),
        ("rng-builtin", "Random bytes of the host's kernel.\n"),
        ("rng-random", "Random bytes from a file.\n"),
        ("secret", "A password or a key.\n"),
        ("throttle-group", "Limits that several disks share.\n"),
    ],
};

static IOTHREAD: StructInfo = members(
    "IothreadProperties",
    "An I/O thread.\n",
    &[
        optional("poll-max-ns", "It polls for so long at most, in nanoseconds.\n", Type::Integer),
        optional("poll-grow", "How its polling grows.\n", Type::Integer),
        optional("poll-shrink", "How its polling shrinks.\n", Type::Integer),
        optional("aio-max-batch", "Requests it submits at once.\n", Type::Integer),
        optional("thread-pool-min", "Accepted, without a meaning here.\n", Type::Integer),
        optional("thread-pool-max", "Accepted, without a meaning here.\n", Type::Integer),
    ],
);

const SIZE: MemberInfo = required("size", "Bytes.\n", Type::Integer);
const SHARE: MemberInfo =
    optional("share", "What is written goes to what holds the memory.\n", Type::Boolean);
const PREALLOC: MemberInfo = optional("prealloc", "Touch all of it at once.\n", Type::Boolean);
const PREALLOC_THREADS: MemberInfo =
    optional("prealloc-threads", "Threads that do that; 1 when absent.\n", Type::Integer);
const MERGE: MemberInfo =
    optional("merge", "The host may share pages that are alike (KSM).\n", Type::Boolean);
const DUMP: MemberInfo =
    optional("dump", "It is part of core dumps; it is not when absent.\n", Type::Boolean);
const RESERVE: MemberInfo =
    optional("reserve", "The host counts all of it as used.\n", Type::Boolean);

static MEMORY: StructInfo = members(
    "MemoryBackendProperties",
    "Memory.\n",
    &[DUMP, MERGE, PREALLOC, PREALLOC_THREADS, RESERVE, SHARE, SIZE],
);

static MEMORY_FILE: StructInfo = members(
    "MemoryBackendFileProperties",
    "Memory in a file.\n",
    &[
        required(
            "mem-path",
            "The file, which is made where there is none; in a directory, such as that of hugetlbfs, \
             one without a name.\n",
            Type::String,
        ),
        optional("offset", "Where the memory begins in it.\n", Type::Integer),
        DUMP,
        MERGE,
        PREALLOC,
        PREALLOC_THREADS,
        RESERVE,
        SHARE,
        SIZE,
    ],
);

static MEMORY_MEMFD: StructInfo = members(
    "MemoryBackendMemfdProperties",
    "Memory in a file without a name.\n",
    &[
        optional("hugetlb", "Use huge pages.\n", Type::Boolean),
        optional("hugetlbsize", "Their size; the host's usual one when absent.\n", Type::Integer),
        optional("seal", "Nobody can change its size.\n", Type::Boolean),
        DUMP,
        MERGE,
        PREALLOC,
        PREALLOC_THREADS,
        RESERVE,
        SHARE,
        SIZE,
    ],
);

static RNG_RANDOM: StructInfo = members(
    "RngRandomProperties",
    "A source of random bytes.\n",
    &[optional("filename", "The file; `/dev/urandom` when absent.\n", Type::String)],
);

static SECRET: StructInfo = members(
    "SecretProperties",
    "A secret, as data or in a file.\n",
    &[
        optional("data", "The secret.\n", Type::String),
        optional("file", "The file that it is in.\n", Type::String),
        optional("format", "How it is written.\n", QCryptoSecretFormat::TYPE),
        optional("keyid", "Refused: secrets are not encrypted here.\n", Type::String),
        optional("iv", "Refused: secrets are not encrypted here.\n", Type::String),
    ],
);

static THROTTLE_GROUP: StructInfo = members(
    "ThrottleGroupProperties",
    "Limits.\n",
    &[optional("limits", "The limits; none when absent.\n", Type::Struct(ThrottleLimits::INFO))],
);

qapi_struct! {
    /// Limits of throughput. 0: none.
    pub struct ThrottleLimits {
        /// Requests a second.
        pub iops_total: Option<i64> = "iops-total",
        /// Requests a second in a burst.
        pub iops_total_max: Option<i64> = "iops-total-max",
        /// Seconds of a burst.
        pub iops_total_max_length: Option<i64> = "iops-total-max-length",
        /// Reads a second.
        pub iops_read: Option<i64> = "iops-read",
        /// Reads a second in a burst.
        pub iops_read_max: Option<i64> = "iops-read-max",
        /// Seconds of a burst.
        pub iops_read_max_length: Option<i64> = "iops-read-max-length",
        /// Writes a second.
        pub iops_write: Option<i64> = "iops-write",
        /// Writes a second in a burst.
        pub iops_write_max: Option<i64> = "iops-write-max",
        /// Seconds of a burst.
        pub iops_write_max_length: Option<i64> = "iops-write-max-length",
        /// Bytes a second.
        pub bps_total: Option<i64> = "bps-total",
        /// Bytes a second in a burst.
        pub bps_total_max: Option<i64> = "bps-total-max",
        /// Seconds of a burst.
        pub bps_total_max_length: Option<i64> = "bps-total-max-length",
        /// Bytes read a second.
        pub bps_read: Option<i64> = "bps-read",
        /// Bytes read a second in a burst.
        pub bps_read_max: Option<i64> = "bps-read-max",
        /// Seconds of a burst.
        pub bps_read_max_length: Option<i64> = "bps-read-max-length",
        /// Bytes written a second.
        pub bps_write: Option<i64> = "bps-write",
        /// Bytes written a second in a burst.
        pub bps_write_max: Option<i64> = "bps-write-max",
        /// Seconds of a burst.
        pub bps_write_max_length: Option<i64> = "bps-write-max-length",
        /// A larger request counts as several of so many bytes.
        pub iops_size: Option<i64> = "iops-size",
    }
}

static OPTIONS: StructInfo = StructInfo {
    name: "ObjectOptions",
    doc: "An object to be made.\n",
    members: &[
        required("qom-type", "Its type.\n", Type::Enum(&TYPES)),
        required("id", "Its id, which must be free.\n", Type::String),
    ],
    variants: Some(VariantsInfo {
        tag: "qom-type",
        cases: &[
            ("iothread", &IOTHREAD),
            ("memory-backend-file", &MEMORY_FILE),
            ("memory-backend-memfd", &MEMORY_MEMFD),
            ("memory-backend-ram", &MEMORY),
            ("rng-builtin", <()>::INFO),
            ("rng-random", &RNG_RANDOM),
            ("secret", &SECRET),
            ("throttle-group", &THROTTLE_GROUP),
        ],
    }),
};

qapi_open_struct! {
    /// An object to be made. The table of objects reads it.
    pub struct ObjectOptions = OPTIONS;
}

qapi_enum! {
    /// Where in the host memory is put.
    pub enum HostMemPolicy {
        /// Where the host likes.
        Default = "default",
    }
}

qapi_struct! {
    /// A memory back end.
    pub struct Memdev {
        /// Its id.
        pub id: Option<String> = "id",
        /// Bytes.
        pub size: u64 = "size",
        /// The host may share pages that are alike.
        pub merge: bool = "merge",
        /// It is part of core dumps.
        pub dump: bool = "dump",
        /// All of it was touched at once.
        pub prealloc: bool = "prealloc",
        /// What is written goes to what holds the memory.
        pub share: bool = "share",
        /// The host counts all of it as used.
        pub reserve: Option<bool> = "reserve",
        /// NUMA nodes of the host that it is bound to: none.
        pub host_nodes: Vec<i64> = "host-nodes",
        /// Where in the host it is put.
        pub policy: HostMemPolicy = "policy",
    }
}

qapi_struct! {
    /// An object.
    pub struct ObjectDel {
        /// Its id.
        pub id: String = "id",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let add = Command::coroutine("object-add", "Adds an object.", object_add);
    registry.add(add.allow_preconfig());
    let del =
        Command::coroutine("object-del", "Removes an object that no device uses.", object_del);
    registry.add(del.allow_preconfig());
    let memory = Command::plain("query-memdev", "The memory back ends.", query_memdev);
    registry.add(memory.allow_preconfig());
}

pub(crate) fn query_memdev(env: &Env, (): ()) -> Result<Vec<Memdev>, QmpError> {
    let tree = env.core.machine.get().and_then(|machine| machine.devices());
    let objects = tree.map(|tree| tree.resources().objects.all()).unwrap_or_default();
    let memory = objects.iter().filter(|object| matches!(object.body(), Body::Memory(_)));
    let info = |object: &Arc<Object>| {
        let properties = object.properties();
        Memdev {
            id: Some(object.id().to_owned()),
            size: properties.uint("size"),
            merge: properties.bool("merge"),
            dump: properties.bool("dump"),
            prealloc: properties.bool("prealloc"),
            share: properties.bool("share"),
            reserve: Some(properties.bool("reserve")),
            host_nodes: Vec::new(),
            policy: HostMemPolicy::Default,
        }
    };
    Ok(memory.map(info).collect())
}

/// Makes the object that the arguments describe. In main.
pub(crate) async fn add(env: &Env, arguments: &Members, syntax: Syntax) -> Result<(), QmpError> {
    let tree = env.devices()?.clone();
    Ok(tree.resources().objects.add(arguments, syntax).await?)
}

async fn object_add(env: Env, ObjectOptions(arguments): ObjectOptions) -> Result<(), QmpError> {
    add(&env, &arguments, Syntax::Json).await
}

pub(crate) async fn object_del(env: Env, ObjectDel { id }: ObjectDel) -> Result<(), QmpError> {
    Ok(qom::remove_object(env.devices()?, &id)?)
}

#[cfg(test)]
mod tests {
    use super::{ObjectOptions, TYPES};
    use crate::registry::QapiStruct;
    use devices::objects::{LIMITS, OBJECT_TYPES};
    use std::collections::BTreeSet;

    /// The schema is written by hand, the types are declared where they are made.
    #[test]
    fn the_schema_has_the_members_that_objects_take() {
        let cases = ObjectOptions::INFO.variants.as_ref().unwrap().cases;
        assert_eq!(
            TYPES.values.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            OBJECT_TYPES.iter().map(|ty| ty.name).collect::<Vec<_>>()
        );
        for (ty, (name, info)) in OBJECT_TYPES.iter().zip(cases) {
            assert_eq!(ty.name, *name);
            let declared: BTreeSet<_> = ty.properties().map(|own| own.name).collect();
            let described: BTreeSet<_> = info.members.iter().map(|member| member.name).collect();
            assert_eq!(declared, described, "{name}");
        }
        let described = super::ThrottleLimits::INFO.members.iter().map(|member| member.name);
        assert_eq!(described.collect::<Vec<_>>(), LIMITS);
    }
}
