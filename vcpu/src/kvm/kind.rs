//! Which kind of KVM this host has.

use std::path::Path;

/// How KVM runs guest code on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmKind {
    /// On VMX or SVM: everything works at full speed.
    Hardware,
    /// In software, where the processor offers neither (the `kvm_pvm` module): user-mode guest
    /// code runs natively, kernel-mode guest code is interpreted.
    Pvm,
}

impl KvmKind {
    /// Looks at the processor's flags and the loaded modules.
    pub(super) fn detect() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has_module = |name: &str| Path::new("/sys/module").join(name).exists();
        Self::from_facts(&cpuinfo, &has_module)
    }

    fn from_facts(cpuinfo: &str, has_module: &dyn Fn(&str) -> bool) -> Self {
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        let virtualizes = flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm");
        let hardware_module = has_module("kvm_intel") || has_module("kvm_amd");
        let hardware = hardware_module || virtualizes && !has_module("kvm_pvm");
        if hardware { Self::Hardware } else { Self::Pvm }
    }

    /// One line on what a guest lacks on this host and which kernel arguments help; `None`
    /// where nothing is limited.
    pub fn limits(self) -> Option<&'static str> {
        match self {
            Self::Hardware => None,
            Self::Pvm => Some(
                "this host's KVM has no VMX or SVM (PVM): guest kernel code is interpreted, CPU \
                 features cannot be masked and hypercalls hang; a Linux guest needs the patched \
                 kernel of tests/linux and the arguments 'clearcpuid=smap,smep,popcnt,fsgsbase,\
                 rdrand,rdseed,rdpid,rdtscp,umip,clwb,clflushopt,fsrm,erms noxsave tsc=reliable'",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMX: &str = "processor\t: 0\nflags\t\t: fpu vme vmx ssse3\n";
    const PLAIN: &str = "processor\t: 0\nflags\t\t: fpu vmmcall svm_lock hypervisor\n";

    #[test]
    fn flags_and_modules_tell_the_kind() {
        let with = |modules: &'static [&str]| move |name: &str| modules.contains(&name);
        let kind = |cpuinfo, modules| KvmKind::from_facts(cpuinfo, &with(modules));
        assert_eq!(kind(VMX, &["kvm", "kvm_intel"]), KvmKind::Hardware);
        assert_eq!(kind(VMX, &["kvm"]), KvmKind::Hardware, "built into the kernel");
        assert_eq!(kind(VMX, &["kvm", "kvm_pvm"]), KvmKind::Pvm);
        assert_eq!(kind(PLAIN, &["kvm", "kvm_pvm"]), KvmKind::Pvm);
        assert_eq!(kind(PLAIN, &["kvm"]), KvmKind::Pvm);
        assert_eq!(kind(PLAIN, &["kvm", "kvm_amd"]), KvmKind::Hardware);
    }

    #[test]
    fn limits_are_one_line_and_only_where_there_are_some() {
        assert_eq!(KvmKind::Hardware.limits(), None);
        let line = KvmKind::Pvm.limits().unwrap();
        assert!(!line.contains('\n') && line.contains("clearcpuid="));
    }
}
