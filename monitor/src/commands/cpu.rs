//! The models of processors.

use crate::core::Env;
use crate::error::QmpError;
use crate::qapi_struct;
use crate::registry::{Command, Registry};
use vcpu::cpuid::CpuModel;

qapi_struct! {
    /// A model of processor, as for `-cpu`.
    pub struct CpuDefinitionInfo {
        /// Its name.
        pub name: String = "name",
        /// Guests can move between hosts with it.
        pub migration_safe: Option<bool> = "migration-safe",
        /// It never changes.
        pub is_static: bool = "static",
        /// What keeps it from being used here.
        pub unavailable_features: Option<Vec<String>> = "unavailable-features",
        /// Its type.
        pub typename: String = "typename",
        /// The model that it is another name of.
        pub alias_of: Option<String> = "alias-of",
        /// It will be removed.
        pub deprecated: bool = "deprecated",
    }
}

pub(super) fn register(registry: &mut Registry<Env>) {
    registry.add(Command::plain(
        "query-cpu-definitions",
        "The models of processors.",
        query_cpu_definitions,
    ));
}

fn query_cpu_definitions(env: &Env, (): ()) -> Result<Vec<CpuDefinitionInfo>, QmpError> {
    // Both are what the host's KVM passes on.
    let missing = if env.machine()?.kvm().enabled { Vec::new() } else { vec!["kvm".to_owned()] };
    let model = |name: &str| CpuDefinitionInfo {
        name: name.to_owned(),
        migration_safe: Some(false),
        is_static: false,
        unavailable_features: Some(missing.clone()),
        typename: format!("{name}-x86_64-cpu"),
        alias_of: None,
        deprecated: false,
    };
    Ok(CpuModel::NAMES.map(model).into())
}
