//! Names of CPUID feature bits.
//!
//! Names are those of QEMU's `-cpu`; Linux's `/proc/cpuinfo` spellings are understood too.
//! Bits: Intel SDM volume 2 (CPUID), AMD APM volume 3 (appendix E), and for leaf 4000_0001h the
//! kernel's documentation of KVM's CPUID bits.

/// A register of a CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Where a feature's bit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) leaf: u32,
    pub(super) index: u32,
    pub(super) reg: Reg,
    pub(super) bit: u8,
}

struct Group(u32, u32, Reg, &'static [(u8, &'static str)]);

const GROUPS: &[Group] = &[
    Group(
        1,
        0,
        Reg::Edx,
        &[
            (0, "fpu"),
            (1, "vme"),
            (2, "de"),
            (3, "pse"),
            (4, "tsc"),
            (5, "msr"),
            (6, "pae"),
            (7, "mce"),
            (8, "cx8"),
            (9, "apic"),
            (11, "sep"),
            (12, "mtrr"),
            (13, "pge"),
            (14, "mca"),
            (15, "cmov"),
            (16, "pat"),
            (17, "pse36"),
            (19, "clflush"),
            (21, "ds"),
            (22, "acpi"),
            (23, "mmx"),
            (24, "fxsr"),
            (25, "sse"),
            (26, "sse2"),
            (27, "ss"),
            (28, "ht"),
            (29, "tm"),
        ],
    ),
    Group(
        1,
        0,
        Reg::Ecx,
        &[
            (0, "pni"),
            (1, "pclmulqdq"),
            (3, "monitor"),
            (5, "vmx"),
            (9, "ssse3"),
            (12, "fma"),
            (13, "cx16"),
            (15, "pdcm"),
            (17, "pcid"),
            (19, "sse4-1"),
            (20, "sse4-2"),
            (21, "x2apic"),
            (22, "movbe"),
            (23, "popcnt"),
            (24, "tsc-deadline"),
            (25, "aes"),
            (26, "xsave"),
            (28, "avx"),
            (29, "f16c"),
            (30, "rdrand"),
            (31, "hypervisor"),
        ],
    ),
    Group(6, 0, Reg::Eax, &[(2, "arat")]),
    Group(
        7,
        0,
        Reg::Ebx,
        &[
            (0, "fsgsbase"),
            (1, "tsc-adjust"),
            (2, "sgx"),
            (3, "bmi1"),
            (4, "hle"),
            (5, "avx2"),
            (7, "smep"),
            (8, "bmi2"),
            (9, "erms"),
            (10, "invpcid"),
            (11, "rtm"),
            (14, "mpx"),
            (16, "avx512f"),
            (17, "avx512dq"),
            (18, "rdseed"),
            (19, "adx"),
            (20, "smap"),
            (21, "avx512ifma"),
            (23, "clflushopt"),
            (24, "clwb"),
            (25, "intel-pt"),
            (28, "avx512cd"),
            (29, "sha-ni"),
            (30, "avx512bw"),
            (31, "avx512vl"),
        ],
    ),
    Group(
        7,
        0,
        Reg::Ecx,
        &[
            (1, "avx512vbmi"),
            (2, "umip"),
            (3, "pku"),
            (5, "waitpkg"),
            (6, "avx512vbmi2"),
            (7, "shstk"),
            (8, "gfni"),
            (9, "vaes"),
            (10, "vpclmulqdq"),
            (11, "avx512vnni"),
            (12, "avx512bitalg"),
            (14, "avx512-vpopcntdq"),
            (16, "la57"),
            (22, "rdpid"),
            (24, "bus-lock-detect"),
            (25, "cldemote"),
            (27, "movdiri"),
            (28, "movdir64b"),
        ],
    ),
    Group(
        7,
        0,
        Reg::Edx,
        &[
            (4, "fsrm"),
            (8, "avx512-vp2intersect"),
            (10, "md-clear"),
            (14, "serialize"),
            (16, "tsx-ldtrk"),
            (19, "arch-lbr"),
            (20, "ibt"),
            (22, "amx-bf16"),
            (23, "avx512-fp16"),
            (24, "amx-tile"),
            (25, "amx-int8"),
            (26, "spec-ctrl"),
            (27, "stibp"),
            (28, "flush-l1d"),
            (29, "arch-capabilities"),
            (31, "ssbd"),
        ],
    ),
    Group(
        7,
        1,
        Reg::Eax,
        &[
            (4, "avx-vnni"),
            (5, "avx512-bf16"),
            (7, "cmpccxadd"),
            (10, "fzrm"),
            (11, "fsrs"),
            (12, "fsrc"),
            (21, "amx-fp16"),
            (23, "avx-ifma"),
            (26, "lam"),
        ],
    ),
    Group(
        0xd,
        1,
        Reg::Eax,
        &[(0, "xsaveopt"), (1, "xsavec"), (2, "xgetbv1"), (3, "xsaves"), (4, "xfd")],
    ),
    Group(
        0x4000_0001,
        0,
        Reg::Eax,
        &[
            (3, "kvmclock"),
            (1, "kvm-nopiodelay"),
            (4, "kvm-asyncpf"),
            (5, "kvm-steal-time"),
            (6, "kvm-pv-eoi"),
            (7, "kvm-pv-unhalt"),
            (9, "kvm-pv-tlb-flush"),
            (11, "kvm-pv-ipi"),
            (12, "kvm-poll-control"),
            (13, "kvm-pv-sched-yield"),
            (14, "kvm-asyncpf-int"),
            (15, "kvm-msi-ext-dest-id"),
            (24, "kvmclock-stable-bit"),
        ],
    ),
    Group(
        0x8000_0001,
        0,
        Reg::Ecx,
        &[
            (0, "lahf-lm"),
            (1, "cmp-legacy"),
            (2, "svm"),
            (3, "extapic"),
            (4, "cr8legacy"),
            (5, "abm"),
            (6, "sse4a"),
            (7, "misalignsse"),
            (8, "3dnowprefetch"),
            (9, "osvw"),
            (11, "xop"),
            (16, "fma4"),
            (21, "tbm"),
            (22, "topoext"),
            (23, "perfctr-core"),
        ],
    ),
    Group(
        0x8000_0001,
        0,
        Reg::Edx,
        &[
            (11, "syscall"),
            (20, "nx"),
            (22, "mmxext"),
            (25, "fxsr-opt"),
            (26, "pdpe1gb"),
            (27, "rdtscp"),
            (29, "lm"),
            (30, "3dnowext"),
            (31, "3dnow"),
        ],
    ),
    Group(0x8000_0007, 0, Reg::Edx, &[(8, "invtsc")]),
    Group(
        0x8000_0008,
        0,
        Reg::Ebx,
        &[
            (0, "clzero"),
            (2, "xsaveerptr"),
            (9, "wbnoinvd"),
            (12, "ibpb"),
            (14, "ibrs"),
            (15, "amd-stibp"),
            (24, "amd-ssbd"),
            (25, "virt-ssbd"),
            (26, "amd-no-ssb"),
        ],
    ),
];

/// Other spellings of the names above, after `_` and `.` have become `-`.
const ALIASES: &[(&str, &str)] = &[
    ("sse3", "pni"),
    ("cr8-legacy", "cr8legacy"),
    ("tsc-deadline-timer", "tsc-deadline"),
    ("tscdeadline", "tsc-deadline"),
    ("avx512-vbmi2", "avx512vbmi2"),
    ("avx512-vnni", "avx512vnni"),
    ("avx512-bitalg", "avx512bitalg"),
    ("sha", "sha-ni"),
    ("lzcnt", "abm"),
    ("nonstop-tsc", "invtsc"),
    ("i64", "lm"),
    ("xd", "nx"),
    ("ffxsr", "fxsr-opt"),
    ("kvm-pv-clock", "kvmclock"),
];

/// What cannot be without another feature: turning off the first turns off the others.
pub(super) const NEEDED_BY: &[(&str, &[&str])] = &[
    ("xsave", &["avx", "pku", "mpx", "amx-tile", "xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd"]),
    ("avx", &["fma", "f16c", "avx2", "xop", "fma4", "vaes", "vpclmulqdq", "avx-vnni", "avx-ifma"]),
    ("avx2", &["avx512f"]),
    (
        "avx512f",
        &[
            "avx512dq",
            "avx512ifma",
            "avx512cd",
            "avx512bw",
            "avx512vl",
            "avx512vbmi",
            "avx512vbmi2",
            "avx512vnni",
            "avx512bitalg",
            "avx512-vpopcntdq",
            "avx512-vp2intersect",
            "avx512-bf16",
            "avx512-fp16",
        ],
    ),
    ("amx-tile", &["amx-bf16", "amx-int8", "amx-fp16"]),
    ("fxsr", &["fxsr-opt"]),
];

/// The feature of that name, in any of its spellings.
pub(super) fn find(name: &str) -> Option<Feature> {
    let plain = name.to_ascii_lowercase().replace(['_', '.'], "-");
    let name = ALIASES.iter().find(|(alias, _)| *alias == plain).map_or(&*plain, |(_, name)| name);
    all().find(|feature| feature.name == name)
}

/// Every feature that has a name.
pub(super) fn all() -> impl Iterator<Item = Feature> {
    GROUPS.iter().flat_map(|&Group(leaf, index, reg, names)| {
        names.iter().map(move |&(bit, name)| Feature { name, leaf, index, reg, bit })
    })
}
