//! File descriptors that clients pass along with commands.

use crate::core::Env;
use crate::error::QmpError;
use crate::qapi_struct;
use crate::registry::{Command, Registry};
use crate::session::Session;
use crate::session::descriptors::Descriptors;
use devices::fdset::Descriptor;

qapi_struct! {
    /// Which descriptor.
    pub struct FdName {
        /// Its name.
        pub fdname: String = "fdname",
    }
}

qapi_struct! {
    /// Where to put the descriptor that came with the command.
    pub struct AddFd {
        /// The set; a new one when absent.
        pub fdset_id: Option<i64> = "fdset-id",
        /// A text to know it by.
        pub opaque: Option<String> = "opaque",
    }
}

qapi_struct! {
    /// Where the descriptor is.
    pub struct AddfdInfo {
        /// The set.
        pub fdset_id: i64 = "fdset-id",
        /// Its number in this process.
        pub fd: i64 = "fd",
    }
}

qapi_struct! {
    /// What to remove.
    pub struct RemoveFd {
        /// The set.
        pub fdset_id: i64 = "fdset-id",
        /// The number of the descriptor; all of the set when absent.
        pub fd: Option<i64> = "fd",
    }
}

qapi_struct! {
    /// A descriptor of a set.
    pub struct FdsetFdInfo {
        /// Its number in this process.
        pub fd: i64 = "fd",
        /// The text that was given.
        pub opaque: Option<String> = "opaque",
    }
}

qapi_struct! {
    /// A set of descriptors.
    pub struct FdsetInfo {
        /// Its number.
        pub fdset_id: i64 = "fdset-id",
        /// What is in it.
        pub fds: Vec<FdsetFdInfo> = "fds",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::plain(
        "getfd",
        "Takes the descriptor that came with the command and names it, until the session ends. \
         One that had the name is closed.",
        getfd,
    ));
    registry.add(Command::plain("closefd", "Closes a descriptor that has a name.", closefd));
    registry.add(Command::plain(
        "add-fd",
        "Puts the descriptor that came with the command into a set.",
        add_fd,
    ));
    registry.add(Command::plain(
        "remove-fd",
        "Removes a descriptor, or all, from a set. A set ends with its last one, and the last file opened from it.",
        remove_fd,
    ));
    registry.add(Command::plain("query-fdsets", "The sets of descriptors.", query_fdsets));
}

/// The session that a descriptor can come over.
pub(super) fn session(env: &Env) -> Result<&Session, QmpError> {
    let text = "No file descriptor supplied via SCM_RIGHTS";
    env.session.as_deref().ok_or_else(|| QmpError::generic(text))
}

pub(crate) fn getfd(env: &Env, asked: FdName) -> Result<(), QmpError> {
    session(env)?.descriptors().name(asked.fdname)
}

pub(crate) fn closefd(env: &Env, FdName { fdname }: FdName) -> Result<(), QmpError> {
    // In a line of HMP nothing ever came.
    let Some(session) = &env.session else { return Descriptors::default().close(&fdname) };
    session.descriptors().close(&fdname)
}

fn add_fd(env: &Env, asked: AddFd) -> Result<AddfdInfo, QmpError> {
    let fd = session(env)?.descriptors().take_arrived()?;
    let (fdset_id, fd) = env.core.fdsets.add(asked.fdset_id, fd, asked.opaque)?;
    Ok(AddfdInfo { fdset_id, fd })
}

fn remove_fd(env: &Env, RemoveFd { fdset_id, fd }: RemoveFd) -> Result<(), QmpError> {
    Ok(env.core.fdsets.remove(fdset_id, fd)?)
}

fn query_fdsets(env: &Env, (): ()) -> Result<Vec<FdsetInfo>, QmpError> {
    let entry = |Descriptor { number, opaque }| FdsetFdInfo { fd: number, opaque };
    let info = |(fdset_id, entries): (i64, Vec<Descriptor>)| FdsetInfo {
        fdset_id,
        fds: entries.into_iter().map(entry).collect(),
    };
    Ok(env.core.fdsets.list().into_iter().map(info).collect())
}
