//! Memory back ends: `memory-backend-ram`, `-memfd` and `-file`.
//!
//! One of them may be the machine's RAM (`-machine memory-backend=`); that one is mapped when the
//! machine is made, and can not be removed.

use super::Body;
use super::types::ObjectType;
use crate::error::CommandError;
use crate::qdev::property::{DefaultValue, Kind, Property};
use crate::qdev::value::{PropValue, Properties};
use crate::text::system_error;
use reactor::sync::oneshot;
use vcpu::memory::{Backing, HugePages, MemoryError, RamConfig};

/// The type that all of them derive from.
pub(super) const PARENT: &str = "memory-backend";

const fn common(share: bool) -> [Property; 7] {
    [
        Property::new("size", Kind::Size).typed("int").required().help("Bytes, such as 500M"),
        Property::bool("share", share).help("What is written goes to what holds the memory"),
        Property::bool("prealloc", false).help("Touch all of it at once"),
        Property::uint("prealloc-threads", Kind::U32, 1).typed("int").help("Threads that do that"),
        Property::bool("merge", true).help("The host may share pages that are alike (KSM)"),
        Property::bool("dump", false).help("It is part of core dumps"),
        Property::bool("reserve", true).help("The host counts all of it as used"),
    ]
}

static PRIVATE: [Property; 7] = common(false);
static SHARED: [Property; 7] = common(true);

const MEMFD: &[Property] = &[
    Property::bool("hugetlb", false).help("Use huge pages"),
    Property::new("hugetlbsize", Kind::Size).typed("int").help("Their size, such as 2M or 1G"),
    Property::bool("seal", true).help("Nobody can change its size"),
];

const FILE: &[Property] = &[
    Property::new("mem-path", Kind::Str)
        .typed("string")
        .required()
        .help("The file; in a directory, such as that of hugetlbfs, one without a name"),
    Property {
        default: DefaultValue::Uint(0),
        ..Property::new("offset", Kind::Size).typed("int").help("Where the memory begins in it")
    },
];

/// An anonymous mapping.
pub(super) const RAM_TYPE: ObjectType = ObjectType {
    name: "memory-backend-ram",
    parent: PARENT,
    properties: &[&PRIVATE],
    check,
    make: |_, _, properties| Box::pin(make("memory-backend-ram", properties)),
};

/// A file without a name.
pub(super) const MEMFD_TYPE: ObjectType = ObjectType {
    name: "memory-backend-memfd",
    parent: PARENT,
    properties: &[&SHARED, MEMFD],
    check,
    make: |_, _, properties| Box::pin(make("memory-backend-memfd", properties)),
};

/// A file.
pub(super) const FILE_TYPE: ObjectType = ObjectType {
    name: "memory-backend-file",
    parent: PARENT,
    properties: &[&PRIVATE, FILE],
    check,
    make: |_, _, properties| Box::pin(make("memory-backend-file", properties)),
};

fn check(properties: &Properties) -> Result<(), CommandError> {
    let missing = |name: &str| {
        let unset = matches!(properties.get(name), Some(PropValue::Unset));
        unset.then(|| CommandError::generic(format!("Parameter '{name}' is missing")))
    };
    if let Some(error) = missing("size").or_else(|| missing("mem-path")) {
        return Err(error);
    }
    for name in ["size", "prealloc-threads"] {
        if properties.uint(name) == 0 {
            let owner = properties.owner();
            let text = format!("property '{name}' of {owner} doesn't take value '0'");
            return Err(CommandError::generic(text));
        }
    }
    let huge = properties.uint("hugetlbsize");
    if huge != 0 && !huge.is_power_of_two() {
        let text = format!("hugetlbsize={huge} is no size of pages; use 2M or 1G");
        return Err(CommandError::generic(text));
    }
    Ok(())
}

/// The memory that checked properties describe.
pub(super) fn config(properties: &Properties) -> RamConfig {
    let huge = properties.bool("hugetlb").then(|| properties.uint("hugetlbsize"));
    let backing = match properties.owner() {
        "memory-backend-memfd" => Backing::Memfd { huge, seal: properties.bool("seal") },
        "memory-backend-file" => Backing::File {
            path: properties.text("mem-path").unwrap_or_default().into(),
            offset: properties.uint("offset"),
        },
        _ => Backing::Anonymous,
    };
    let threads = usize::try_from(properties.uint("prealloc-threads")).unwrap_or(1);
    RamConfig {
        size: properties.uint("size"),
        backing,
        shared: properties.bool("share"),
        huge_pages: HugePages::default(),
        dump: properties.bool("dump"),
        merge: properties.bool("merge"),
        reserve: properties.bool("reserve"),
        populate: if properties.bool("prealloc") { threads } else { 0 },
    }
}

/// The error in the words of QEMU.
pub(super) fn refusal(owner: &str, error: &MemoryError) -> CommandError {
    CommandError::generic(match error {
        MemoryError::Map { source, .. } => {
            format!("cannot set up guest memory: {}", system_error(source))
        }
        MemoryError::Open { path, source } => {
            format!("can't open backing store {path} for guest RAM: {}", system_error(source))
        }
        MemoryError::Resize { what, size, source } => {
            format!("failed to resize {what} to {size}: {}", system_error(source))
        }
        MemoryError::Populate(source) => {
            format!("preallocating memory failed: {}", system_error(source))
        }
        MemoryError::Pages(_) => format!("backend '{owner}' {error}"),
        other => other.to_string(),
    })
}

/// Maps it, on a thread of its own: touching gigabytes takes long, and a file may be far away.
async fn make(owner: &str, properties: &Properties) -> Result<Body, CommandError> {
    let config = config(properties);
    let (done, made) = oneshot::channel();
    let mapping = move || done.send(vcpu::memory::spare(&config));
    let thread = std::thread::Builder::new().name("memory".to_owned()).spawn(mapping);
    thread.map_err(|error| CommandError::generic(system_error(&error)))?;
    match made.await {
        Ok(Ok(memory)) => Ok(Body::Memory(Some(memory))),
        Ok(Err(error)) => Err(refusal(owner, &error)),
        Err(_) => Err(CommandError::generic("cannot set up guest memory")),
    }
}
