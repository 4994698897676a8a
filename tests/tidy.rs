//! The house rules that a compiler does not check: sizes, arrows between crates, skipped tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use syn::spanned::Spanned;
use syn::visit::Visit;

/// Lines of a file that are not tests.
const FILE_LINES_MAX: usize = 800;
/// Lines of a function, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Which crates of ours a crate may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("reactor", &[]),
    ("rcu", &["reactor"]),
    ("vcpu", &["reactor", "rcu"]),
    ("devices", &["reactor", "rcu", "vcpu"]),
    ("monitor", &["reactor", "rcu", "vcpu", "devices"]),
    ("guest", &[]),
    ("testkit", &[]),
    ("ringvisor", &["reactor", "rcu", "vcpu", "devices", "monitor", "guest"]),
    ("perf", &["reactor", "rcu", "vcpu", "devices", "monitor", "guest", "testkit"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the workspace.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root()).unwrap().to_path_buf(), text));
            }
        }
    }
    assert!(files.len() > 50, "the sources were found");
    files
}

/// Whether the whole file is a test: Cargo's test folders and modules named `tests`.
fn is_test(path: &Path) -> bool {
    let guest = path.starts_with("tests/guests/src") || path.starts_with("tests/src");
    let folder = path.parent().is_some_and(|folder| folder.iter().any(|part| part == "tests"));
    path.file_stem().is_some_and(|stem| stem == "tests") || (folder && !guest)
}

fn has_cfg_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| mentions_test(&meta))
    })
}

fn mentions_test(meta: &syn::Meta) -> bool {
    match meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("all") => {
            type List = syn::punctuated::Punctuated<syn::Meta, syn::Token![,]>;
            list.parse_args_with(List::parse_terminated).is_ok_and(|l| l.iter().any(mentions_test))
        }
        _ => false,
    }
}

/// Measures functions, and how many lines test modules take.
#[derive(Default)]
struct Measure {
    long: Vec<(String, usize)>,
    test_lines: usize,
}

impl Measure {
    fn function(&mut self, name: &syn::Ident, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        let lines = block.span().end().line + 1 - first;
        if lines > FUNCTION_LINES_MAX {
            self.long.push((name.to_string(), lines));
        }
    }
}

impl<'a> Visit<'a> for Measure {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if has_cfg_test(&item.attrs) {
            let span = item.span();
            self.test_lines += span.end().line + 1 - span.start().line;
        }
        syn::visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.sig.ident, &item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.sig.ident, &item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig.ident, &item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn files_and_functions_stay_small() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut measure = Measure::default();
        measure.visit_file(&file);
        for (name, lines) in measure.long {
            faults.push(format!("{}: fn {name} has {lines} lines", path.display()));
        }
        let lines = text.lines().count() - measure.test_lines;
        if !is_test(&path) && lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines beside its tests", path.display()));
        }
    }
    assert!(
        faults.is_empty(),
        "split these by meaning (at most {FILE_LINES_MAX} lines a file, {FUNCTION_LINES_MAX} a function):\n{}",
        faults.join("\n")
    );
}

#[test]
fn arrows_between_crates_go_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = allowed.get(name) else {
            faults.push(format!("{name} has no place among the arrows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = dependency["name"].as_str().unwrap();
            // Development dependencies may point anywhere; Cargo itself refuses a circle of others.
            let normal = dependency["kind"].is_null();
            if normal && ours.contains(target) && !allowed.contains(&target) {
                faults.push(format!("{name} -> {target}"));
            }
        }
    }
    assert!(faults.is_empty(), "forbidden arrows:\n{}", faults.join("\n"));
}

/// A test may be skipped only for want of /dev/kvm, through the functions that say so; CI counts their lines.
#[test]
fn no_test_is_switched_off() {
    let ignore = concat!("#[", "ignore");
    let skipped = concat!("SKI", "PPED");
    let mut faults = Vec::new();
    for (path, text) in sources() {
        if text.contains(ignore) {
            faults.push(format!("{}: an ignored test", path.display()));
        }
        for line in text.lines().filter(|line| line.contains(skipped)) {
            if !line.contains("/dev/kvm is not accessible") {
                faults.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
