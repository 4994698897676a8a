use super::*;

const HOST: Accelerator =
    Accelerator { tsc_deadline: true, hypercalls_hang: false, tsc_khz: Some(2_600_000) };

fn entry(function: u32, index: u32, eax: u32, ebx: u32, ecx: u32, edx: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

/// Leaves of an imaginary host of `vendor` with every named feature.
fn supported(vendor: &[u8; 12]) -> Leaves {
    let word = |i: usize| u32::from_le_bytes(vendor[i..i + 4].try_into().unwrap());
    Leaves::new(&[
        entry(0, 0, 0xd, word(0), word(8), word(4)),
        entry(1, 0, 0x806f8, 0x0704_0800, !(1 << 31 | 1 << 24), 0x0fab_fbff),
        entry(4, 0, 0xfc00_4121, 0x02c0_003f, 0x3f, 0),
        entry(4, 3, 0xfc1f_c163, 0x02c0_003f, 0xffff, 0),
        entry(7, 0, 1, u32::MAX, u32::MAX, u32::MAX),
        entry(0xd, 0, 0xe7, 0x988, 0xa88, 0),
        entry(0xd, 1, 0xf, 0, 0, 0),
        entry(0xd, 2, 256, 576, 0, 0),
        entry(0xd, 5, 64, 1088, 0, 0),
        entry(0xd, 6, 512, 1152, 0, 0),
        entry(0xd, 7, 1024, 1664, 0, 0),
        entry(0x4000_0000, 0, 0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d),
        entry(0x4000_0001, 0, 0x0100_feff, 0, 0, 0),
        entry(0x8000_0001, 0, 0, 0, 0x0040_03f3, 0x2c10_0800),
        entry(0x8000_0008, 0, 0x3030, 0, 0, 0),
        entry(0x8000_001e, 0, 9, 9, 9, 0),
    ])
}

fn leaves(model: &str) -> Leaves {
    common(&model.parse().unwrap(), &supported(b"GenuineIntel"), HOST).leaves
}

fn on(leaves: &Leaves, name: &str) -> bool {
    leaves.has(&features::find(name).unwrap())
}

#[test]
fn every_name_is_unique_and_found_by_itself() {
    let mut names: Vec<_> = features::all().map(|f| f.name).collect();
    assert!(names.iter().all(|n| features::find(n).is_some_and(|f| f.name == *n)));
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for (needed, dependants) in features::NEEDED_BY {
        assert!(features::find(needed).is_some(), "{needed}");
        assert!(dependants.iter().all(|d| features::find(d).is_some()), "{dependants:?}");
    }
}

#[test]
fn spellings_of_qemu_and_of_linux_are_understood() {
    for (a, b) in [("sse4.1", "sse4_1"), ("SSE3", "pni"), ("tsc_deadline_timer", "tsc-deadline")] {
        assert_eq!(features::find(a).unwrap(), features::find(b).unwrap());
    }
}

#[test]
fn features_are_switched_in_order() {
    let model = leaves("host,-aes,pdpe1gb=off,-popcnt,+popcnt,smep=off");
    assert!(!on(&model, "aes") && !on(&model, "pdpe1gb") && !on(&model, "smep"));
    assert!(on(&model, "popcnt") && on(&model, "sse2"));
    assert!(on(&model, "hypervisor") && on(&model, "tsc-deadline"));
}

#[test]
fn what_depends_on_a_feature_goes_with_it() {
    let model = leaves("host,-avx");
    assert!(!on(&model, "avx2") && !on(&model, "avx512f") && !on(&model, "avx512-fp16"));
    assert!(on(&model, "xsave"));
    assert_eq!(model.get(0xd, 0).unwrap().eax & 0xe4, 0);
    assert_eq!(model.get(0xd, 0).unwrap().ecx, 576);
    assert!(model.get(0xd, 2).is_none() && model.get(0xd, 7).is_none());
    let model = leaves("host,-xsave");
    assert!(!on(&model, "avx") && model.get(0xd, 0).is_none() && !on(&model, "xsaves"));
}

#[test]
fn mistakes_are_named() {
    let error = |text: &str| text.parse::<CpuModel>().unwrap_err().to_string();
    assert!(error("Skylake").contains("no model 'Skylake'"));
    assert!(error("host,+warp").contains("'warp' is not a CPU feature"));
    assert!(error("host,avx=maybe").contains("'avx' must be on or off, not 'maybe'"));
    assert!(error("host,,+avx").contains("extra comma"));
    assert!("max,kvm=off,enforce".parse::<CpuModel>().unwrap().enforces());
}

#[test]
fn what_the_host_lacks_is_reported_and_not_invented() {
    let model = "host,+sse4a,+3dnow,+avx2".parse().unwrap();
    let Common { leaves, missing } = common(&model, &supported(b"GenuineIntel"), HOST);
    assert_eq!(missing, ["3dnow"]);
    assert!(!on(&leaves, "3dnow"));
}

#[test]
fn the_signature_is_kvms_unless_hidden() {
    let signature = |leaves: &Leaves| {
        let leaf = *leaves.get(HYPERVISOR, 0).unwrap();
        [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat()
    };
    let shown = leaves("host");
    assert_eq!(signature(&shown), b"KVMKVMKVM\0\0\0");
    assert!(on(&shown, "kvmclock"));
    assert_eq!(shown.get(FREQUENCIES, 0).unwrap().eax, 2_600_000);
    let hidden = leaves("host,kvm=off");
    assert_eq!(signature(&hidden), b"RingVisorVMM");
    assert!(hidden.get(KVM_FEATURES, 0).is_none());
    let pvm = Accelerator { hypercalls_hang: true, ..HOST };
    let model = CpuModel::host();
    assert_eq!(
        signature(&common(&model, &supported(b"AuthenticAMD"), pvm).leaves),
        b"RingVisorVMM"
    );
    let forced = "host,kvm=on".parse().unwrap();
    assert_eq!(
        signature(&common(&forced, &supported(b"AuthenticAMD"), pvm).leaves),
        b"KVMKVMKVM\0\0\0"
    );
    let bare = leaves("host,-hypervisor");
    assert!(bare.entries().iter().all(|e| e.function >> 8 != HYPERVISOR >> 8));
}

#[test]
fn intel_guests_learn_the_tsc_frequency() {
    let leaf = *leaves("host").get(0x15, 0).unwrap();
    let hz = u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax);
    assert_eq!(hz, 2_600_000_000);
    let amd = common(&CpuModel::host(), &supported(b"AuthenticAMD"), HOST).leaves;
    assert!(amd.get(0x15, 0).is_none());
}

#[test]
fn apic_ids_leave_room_for_each_field() {
    let topology = Topology { sockets: 2, cores: 3, threads: 2 };
    assert_eq!(topology.count(), 12);
    let ids: Vec<_> = (0..12).map(|cpu| topology.apic_id(cpu)).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
    assert_eq!(Topology::cores(4).apic_id(3), 3);
}

#[test]
fn each_processor_sees_itself() {
    let topology = Topology { sockets: 2, cores: 3, threads: 2 };
    let leaves = of_cpu(&leaves("host"), &topology, 7);
    let one = leaves.get(1, 0).unwrap();
    assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xff, one.edx >> 28 & 1), (9, 8, 1));
    let level = |i| *leaves.get(0xb, i).unwrap();
    assert_eq!((level(0).eax, level(0).ebx, level(0).ecx, level(0).edx), (1, 2, 0x100, 9));
    assert_eq!((level(1).eax, level(1).ebx, level(1).ecx, level(1).edx), (3, 6, 0x201, 9));
    assert_eq!((level(2).ebx, level(2).ecx), (0, 2));
    let cache = |i: u32| leaves.get(4, i).unwrap().eax;
    assert_eq!((cache(0) >> 14 & 0xfff, cache(0) >> 26), (1, 3));
    assert_eq!(cache(3) >> 14 & 0xfff, 7);
    assert!(leaves.get(0, 0).unwrap().eax >= 0xb);
}

#[test]
fn amd_leaves_follow_the_topology() {
    let topology = Topology { sockets: 1, cores: 4, threads: 2 };
    let common = common(&CpuModel::host(), &supported(b"AuthenticAMD"), HOST).leaves;
    let leaves = of_cpu(&common, &topology, 5);
    let sizes = leaves.get(0x8000_0008, 0).unwrap();
    assert_eq!((sizes.ecx & 0xff, sizes.ecx >> 12 & 0xf), (7, 3));
    let node = leaves.get(0x8000_001e, 0).unwrap();
    assert_eq!((node.eax, node.ebx & 0xff, node.ebx >> 8, node.ecx), (5, 2, 1, 0));
    let single = of_cpu(&common, &Topology::cores(1), 0);
    assert_eq!(single.get(1, 0).unwrap().edx >> 28 & 1, 0);
    assert!(!on(&single, "cmp-legacy"));
}
