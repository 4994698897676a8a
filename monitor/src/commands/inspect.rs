//! Questions about the program and the machine.

use crate::core::Env;
use crate::error::QmpError;
use crate::machine::{KvmInfo, RunState};
use crate::qapi_struct;
use crate::registry::{Command, Registry};

qapi_struct! {
    /// A version number.
    pub struct VersionTriple {
        /// Third number.
        pub micro: i64 = "micro",
        /// Second number.
        pub minor: i64 = "minor",
        /// First number.
        pub major: i64 = "major",
    }
}

qapi_struct! {
    /// The version of QEMU whose protocol this is, and the program that speaks it.
    pub struct VersionInfo {
        /// The version of QEMU.
        pub qemu: VersionTriple = "qemu",
        /// The program.
        pub package: String = "package",
    }
}

qapi_struct! {
    /// The run state.
    pub struct StatusInfo {
        /// The state.
        pub status: RunState = "status",
        /// Whether vCPUs may run.
        pub running: bool = "running",
    }
}

qapi_struct! {
    /// The name given to the guest.
    pub struct NameInfo {
        /// The name, if there is one.
        pub name: Option<String> = "name",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    let version = Command::plain("query-version", "The version of this program.", query_version);
    registry.add(version.allow_preconfig());
    let status = Command::plain("query-status", "The run state.", query_status);
    registry.add(status.allow_preconfig());
    let name = Command::plain("query-name", "The name given to the guest.", query_name);
    registry.add(name.allow_preconfig());
    registry.add(Command::plain("query-kvm", "Whether KVM is used.", query_kvm));
}

pub(crate) fn version() -> VersionInfo {
    VersionInfo {
        qemu: VersionTriple { micro: 0, minor: 0, major: 10 },
        package: concat!("ringvisor-", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

pub(crate) fn query_version(_: &Env, (): ()) -> Result<VersionInfo, QmpError> {
    Ok(version())
}

pub(crate) fn query_status(env: &Env, (): ()) -> Result<StatusInfo, QmpError> {
    let status = env.core.machine.get().map_or(RunState::Prelaunch, |machine| machine.run_state());
    Ok(StatusInfo { status, running: status.is_running() })
}

pub(crate) fn query_name(env: &Env, (): ()) -> Result<NameInfo, QmpError> {
    Ok(NameInfo { name: env.core.machine.get().and_then(|machine| machine.name()) })
}

pub(crate) fn query_kvm(env: &Env, (): ()) -> Result<KvmInfo, QmpError> {
    Ok(env.machine()?.kvm())
}
