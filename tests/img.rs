//! `ringvisor img`, with qemu-img as the judge: each reads what the other has written, and both say the
//! same about it.

use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");
const SIZE: usize = 6 << 20;

/// What a program ended with, and what it said.
fn outcome(program: &str, args: &[&str], dir: &TempDir) -> (i32, String, String) {
    let output = Command::new(program).args(args).current_dir(dir.path()).output();
    let output = output.expect("qemu-img of Debian's package qemu-utils; install it");
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), utf8(&output.stdout), utf8(&output.stderr))
}

fn img(dir: &TempDir, args: &[&str]) -> (i32, String, String) {
    outcome(RINGVISOR, &[&["img"], args].concat(), dir)
}

/// What a command that succeeds prints.
fn ok(dir: &TempDir, args: &[&str]) -> String {
    let (code, out, err) = img(dir, args);
    assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
    out
}

fn judge(dir: &TempDir, args: &[&str]) -> String {
    let (code, out, err) = outcome("qemu-img", args, dir);
    assert_eq!(code, 0, "qemu-img {args:?}: {err}");
    out
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Data in pieces of all sizes, with zeroes between.
fn pattern() -> Vec<u8> {
    let mut data = vec![0; SIZE];
    let mut random = 7u64;
    for _ in 0..60 {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let start = (random >> 20) as usize % SIZE;
        let len = (1 << ((random >> 50) % 17)).min(SIZE - start);
        for (n, byte) in data[start..start + len].iter_mut().enumerate() {
            *byte = (n as u64 ^ random >> 33) as u8;
        }
    }
    data
}

fn write(dir: &TempDir, name: &str, data: &[u8]) {
    std::fs::write(dir.path().join(name), data).unwrap();
}

fn read(dir: &TempDir, name: &str) -> Vec<u8> {
    std::fs::read(dir.path().join(name)).unwrap()
}

fn exists(dir: &TempDir, name: &str) -> bool {
    Path::exists(&dir.path().join(name))
}

#[test]
fn images_that_are_made_here_are_clean_there() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        "cluster_size=65536",
        "cluster_size=512",
        "cluster_size=2M",
        "refcount_bits=1",
        "refcount_bits=64,cluster_size=4k",
        "preallocation=metadata",
        "preallocation=falloc",
        "preallocation=full",
    ] {
        let made = ok(&dir, &["create", "-f", "qcow2", "-o", options, "q", "5M"]);
        // The judge uses the same words; what it cannot be asked for has the same name.
        let said = judge(&dir, &["create", "-f", "qcow2", "-o", options, "q2", "5M"]);
        assert_eq!(made.replace("'q'", "'q2'"), said);
        judge(&dir, &["check", "-f", "qcow2", "q"]);
        judge(&dir, &["compare", "-f", "qcow2", "-F", "qcow2", "q", "q2"]);
        let (ours, theirs) = ["q", "q2"]
            .map(|name| {
                let info = json(&judge(&dir, &["info", "--output=json", name]));
                ["virtual-size", "cluster-size", "format-specific"].map(|key| info[key].clone())
            })
            .into();
        assert_eq!(ours, theirs, "{options}");
    }
    for options in ["preallocation=off", "preallocation=falloc", "preallocation=full"] {
        ok(&dir, &["create", "-q", "-f", "raw", "-o", options, "r", "1M"]);
        assert!(read(&dir, "r") == vec![0; 1 << 20]);
    }
    // An image over another takes its size.
    ok(&dir, &["create", "-q", "-f", "qcow2", "-b", "q", "-F", "qcow2", "top"]);
    let info = json(&judge(&dir, &["info", "--output=json", "top"]));
    assert_eq!(info["virtual-size"], 5 << 20);
    assert_eq!(
        (&info["backing-filename"], &info["backing-filename-format"]),
        (&"q".into(), &"qcow2".into())
    );
}

#[test]
fn conversions_keep_the_content() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "raw", &pattern());
    // There and back.
    ok(&dir, &["convert", "-f", "raw", "-O", "qcow2", "raw", "q"]);
    judge(&dir, &["check", "-f", "qcow2", "q"]);
    judge(&dir, &["compare", "-f", "raw", "-F", "qcow2", "raw", "q"]);
    ok(&dir, &["convert", "-O", "raw", "q", "back"]);
    assert!(read(&dir, "back") == pattern());
    // What the judge makes, in many shapes.
    for shape in [
        &["-O", "qcow2", "-o", "compat=0.10"][..],
        &["-O", "qcow2", "-o", "cluster_size=512"],
        &["-O", "qcow2", "-o", "cluster_size=2M"],
        &["-O", "qcow2", "-o", "refcount_bits=1"],
        &["-O", "qcow2", "-o", "preallocation=metadata"],
        &["-O", "qcow2", "-c"],
        &["-O", "vmdk", "-o", "subformat=monolithicFlat"],
        &["-O", "vmdk", "-o", "subformat=twoGbMaxExtentFlat"],
    ] {
        judge(&dir, &[&["convert", "-f", "raw"], shape, &["raw", "made.img"]].concat());
        ok(&dir, &["convert", "-O", "raw", "made.img", "back"]);
        assert!(read(&dir, "back") == pattern(), "{shape:?}");
    }
    // Into an image that is there, which has other data.
    ok(&dir, &["create", "-q", "-f", "qcow2", "old", "6M"]);
    let filled = vec![0xaa; SIZE];
    write(&dir, "filled", &filled);
    ok(&dir, &["convert", "-n", "-f", "raw", "-O", "qcow2", "filled", "old"]);
    ok(&dir, &["convert", "-n", "-f", "raw", "-O", "qcow2", "raw", "old"]);
    judge(&dir, &["compare", "-f", "raw", "-F", "qcow2", "raw", "old"]);
    // All of it, zeroes too.
    ok(&dir, &["convert", "-S", "0", "-f", "raw", "-O", "qcow2", "raw", "whole"]);
    let whole = json(&ok(&dir, &["check", "--output=json", "whole"]));
    assert_eq!(whole["allocated-clusters"], whole["total-clusters"]);
    // A chain becomes one image.
    ok(&dir, &["create", "-q", "-f", "qcow2", "-b", "q", "-F", "qcow2", "top"]);
    ok(&dir, &["convert", "-f", "qcow2", "-O", "raw", "top", "back"]);
    assert!(read(&dir, "back") == pattern());
    let progress = ok(&dir, &["convert", "-p", "-f", "raw", "-O", "raw", "raw", "copy"]);
    assert!(progress.starts_with("    (0.00/100%)\r"), "{progress:?}");
    assert!(progress.ends_with("    (100.00/100%)\r\n"), "{progress:?}");
}

#[test]
fn both_say_the_same_about_images() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "raw", &pattern());
    judge(&dir, &["convert", "-f", "raw", "-O", "qcow2", "raw", "base"]);
    judge(&dir, &["snapshot", "-c", "before", "base"]);
    judge(&dir, &["create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top"]);
    judge(&dir, &["create", "-f", "qcow2", "-o", "preallocation=metadata", "tables", "3M"]);
    judge(&dir, &["convert", "-c", "-f", "raw", "-O", "qcow2", "raw", "small"]);
    for name in ["raw", "base", "top", "tables", "small"] {
        let mut commands = vec![
            vec!["info", "--output=json", name],
            vec!["info", name],
            vec!["info", "--backing-chain", name],
            vec!["map", "--output=json", name],
        ];
        if name != "small" {
            commands.push(vec!["map", name]);
        }
        if name == "raw" {
            commands = commands
                .into_iter()
                .map(|command| [&command[..], &["-f", "raw"]].concat())
                .collect();
        } else {
            commands.push(vec!["check", name]);
            commands.push(vec!["check", "--output=json", name]);
        }
        for command in commands {
            let (ours, theirs) = (ok(&dir, &command), judge(&dir, &command));
            if command.contains(&"--output=json") {
                assert_eq!(json(&ours), json(&theirs), "{command:?}");
            } else {
                assert_eq!(ours, theirs, "{command:?}");
            }
        }
    }
}

#[test]
fn sizes_change() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "raw", &pattern());
    for (format, name) in [("raw", "raw"), ("qcow2", "q")] {
        if format == "qcow2" {
            write(&dir, "raw", &pattern());
            ok(&dir, &["convert", "-f", "raw", "-O", "qcow2", "raw", "q"]);
        }
        let bytes = || {
            json(&judge(&dir, &["info", "-f", format, "--output=json", name]))["virtual-size"]
                .clone()
        };
        assert_eq!(ok(&dir, &["resize", "-f", format, name, "+2M"]), "Image resized.\n");
        assert_eq!(bytes(), 8 << 20);
        let (code, _, err) = img(&dir, &["resize", "-f", format, name, "-5M"]);
        assert_eq!(code, 1);
        assert!(err.starts_with("ringvisor: img resize: Use the --shrink option"), "{err}");
        assert_eq!(ok(&dir, &["resize", "-q", "--shrink", "-f", format, name, "-5M"]), "");
        assert_eq!(bytes(), 3 << 20);
        ok(&dir, &["resize", "-q", "-f", format, name, "6M"]);
        let mut expected = pattern();
        expected[3 << 20..].fill(0);
        judge(&dir, &["convert", "-f", format, "-O", "raw", name, "out"]);
        assert!(read(&dir, "out") == expected, "{format}");
    }
    judge(&dir, &["check", "q"]);
}

/// Damage that the judge finds is found, with the same exit status.
#[test]
fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "raw", &pattern());
    ok(&dir, &["convert", "-f", "raw", "-O", "qcow2", "raw", "q"]);
    let good = read(&dir, "q");
    let at = |at: usize| u64::from_be_bytes(good[at..at + 8].try_into().unwrap()) as usize;
    let offset = |entry: usize| entry & 0x00ff_ffff_ffff_fe00;
    let (l1, refcount_table) = (at(40), at(48));
    let (l2, refcount_block) = (offset(at(l1)), at(refcount_table));
    let entry = (0..8192).find(|n| at(l2 + 8 * n) != 0).unwrap();
    let unaligned = (at(l2 + 8 * entry) as u64 | 0x200).to_be_bytes();
    let cluster = offset(at(l2 + 8 * entry)) / 65536;
    for (place, bytes, status) in [
        // Nobody names the cluster any more.
        (l2 + 8 * entry, &[0; 8][..], 3),
        // It is not counted.
        (refcount_block + 2 * cluster, &[0; 2], 2),
        // It begins within a cluster.
        (l2 + 8 * entry, &unaligned, 2),
    ] {
        let mut bad = good.clone();
        bad[place..place + bytes.len()].copy_from_slice(bytes);
        write(&dir, "bad", &bad);
        assert_eq!(outcome("qemu-img", &["check", "-f", "qcow2", "bad"], &dir).0, status);
        let (code, out, _) = img(&dir, &["check", "-f", "qcow2", "bad"]);
        assert_eq!(code, status, "{out}");
        assert!(out.contains(if status == 3 { "leaked clusters" } else { "ERROR" }), "{out}");
    }
    let (code, _, err) = img(&dir, &["check", "-f", "raw", "raw"]);
    assert_eq!(
        (code, err.as_str()),
        (63, "ringvisor img check: This image format does not support checks\n")
    );
}

/// What is wrong is said in one line, and nothing is made.
#[test]
fn refusals_are_one_line() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "raw", &[0; 4096]);
    for (args, text) in [
        (&["frob"][..], "img: no command 'frob'; see: ringvisor img -help (and qemu-img has more)"),
        (&["create", "--object", "x", "n"], "img create: there is no option '--object' here"),
        (&["create", "-f", "qcow2", "n"], "img create: n: Image creation needs a size parameter"),
        (&["create", "-f", "foo", "n", "1M"], "img create: n: Unknown file format 'foo'"),
        (&["create", "n", "1x"], "img create: Invalid image size specified: '1x'."),
        (
            &["create", "-f", "qcow2", "-o", "foo=1", "n", "1M"],
            "img create: n: Invalid parameter 'foo'",
        ),
        (
            &["create", "-f", "qcow2", "-o", "cluster_size=3", "n", "1M"],
            "img create: n: Cluster size must be a power of two between 512 and 2048k",
        ),
        (
            &["create", "-f", "qcow2", "-o", "compat=0.10", "n", "1M"],
            "img create: n: compat=0.10 is not supported here, only compat=1.1",
        ),
        (
            &["create", "-f", "qcow2", "-b", "raw", "n"],
            "img create: n: Backing file specified without backing format",
        ),
        (&["convert", "-c", "raw", "n"], "img convert: there is no option '-c' here"),
        (&["convert", "-f", "raw", "raw", "raw"], "img convert: 'raw' and 'raw' are one file"),
        (&["info", "n"], "img info: Could not open 'n': No such file or directory"),
        (
            &["info", "-f", "qcow2", "raw"],
            "img info: Could not open 'raw': Image is not in qcow2 format",
        ),
        (
            &["map", "--output=xml", "raw"],
            "img map: --output must be used with human or json as argument.",
        ),
    ] {
        let (code, out, err) = img(&dir, args);
        assert_eq!((code, out.as_str(), err), (1, "", format!("ringvisor: {text}\n")), "{args:?}");
        assert!(!exists(&dir, "n"), "{args:?}");
    }
    assert_eq!(read(&dir, "raw"), [0; 4096]);
}
