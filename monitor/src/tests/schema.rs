//! Introspection, and how our commands and events differ from QEMU's.
//!
//! `tests/data/qemu-10.0-schema.json` is what QEMU 10.0 says of the commands and events that we
//! have: its own `query-qmp-schema` without all the rest. `RINGVISOR_RECORD=1` writes it anew.

use super::differences;
use super::qemu::Qemu;
use super::stage::stage;
use crate::commands::{self, schema::Introspection};
use crate::event::EVENTS;
use crate::registry::schema::{SchemaInfo, introspect};
use crate::registry::{At, Qapi};
use crate::wire::{Style, Writer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Where ours and QEMU's differ, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "chardev-add: arguments.backend has other variants",
        "those of the kinds that are not there, see below",
    ),
    ("chardev-add: arguments.backend(socket).data.addr has other variants", "no vsock addresses"),
    (
        "chardev-add: arguments.backend(socket).data.reconnect has other features",
        "QEMU marks it as deprecated; members have no features here",
    ),
    ("GUEST_PANICKED: data.info is QEMU's only", "no source of such information is emulated"),
    (
        "human-monitor-command: feature savevm-monitor-nodes is QEMU's only",
        "there is no savevm in HMP",
    ),
    ("NETDEV_STREAM_CONNECTED: data.addr has other variants", "no vsock addresses"),
    ("netdev_add: arguments has other variants", "the other kinds are not there"),
    (
        "netdev_add: arguments(stream).reconnect has other features",
        "QEMU marks it as deprecated; members have no features here",
    ),
    (
        "query-cpus-fast: return[] has variants in QEMU only",
        "only s390x adds members, and no other architecture is emulated",
    ),
    (
        "query-machines: arguments.compat-props is QEMU's only",
        "unstable there; no machine has compatibility properties here",
    ),
    ("query-machines: return[].compat-props is QEMU's only", "as above"),
    (
        "query-pci: return[].devices[].pci_bridge is QEMU's only",
        "there are no bridges, so that no function has this optional member",
    ),
    (
        "query-qmp-schema: return[](enum).values has other features",
        "QEMU marks it as deprecated; members have no features here",
    ),
];

/// Words that QEMU's enumerations have and ours lack.
const FEWER_WORDS: &[(&str, &str)] = &[
    (
        "blockdev-add: arguments(blkdebug).inject-error[].event",
        "the others are of formats that are not there, or of steps that QEMU takes",
    ),
    ("blockdev-add: arguments(blkdebug).inject-error[].iotype", "there is no such request"),
    ("blockdev-add: arguments.driver", "the other drivers are not there"),
    ("chardev-add: arguments.backend(socket).data.addr.type", "no vsock addresses"),
    ("chardev-add: arguments.backend.type", "kinds without a use here, or with hardware behind"),
    ("NETDEV_STREAM_CONNECTED: data.addr.type", "no vsock addresses"),
    ("netdev_add: arguments.type", "kinds that need other programs or libraries"),
    ("object-add: arguments.qom-type", "the other types are not there"),
    ("query-cpus-fast: return[].target", "x86_64 only"),
    ("query-target: return.arch", "x86_64 only"),
];

/// Commands that QEMU has not.
const OWN: &[&str] = &["query-monitors", "query-rcu", "query-reactors", "x-device-set-iothread"];

fn ours() -> Schema {
    let mut writer = Writer::new(Style::Line);
    introspect(&commands::registry(), EVENTS).write(&mut writer);
    Schema::new(serde_json::from_slice(&writer.into_bytes()).unwrap())
}

fn record() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/qemu-10.0-schema.json")
}

/// A schema by the names of its entries.
struct Schema(BTreeMap<String, Value>);

impl Schema {
    fn new(list: Value) -> Self {
        let Value::Array(entries) = list else { panic!("a schema is a list") };
        let named = |entry: Value| (entry["name"].as_str().unwrap().to_owned(), entry);
        Self(entries.into_iter().map(named).collect())
    }

    fn roots(&self) -> impl Iterator<Item = &str> {
        let is_root =
            |entry: &Value| entry["meta-type"] == "command" || entry["meta-type"] == "event";
        self.0.iter().filter(move |(_, entry)| is_root(entry)).map(|(name, _)| name.as_str())
    }

    /// What `names` are and need.
    fn extract<'a>(&self, names: impl Iterator<Item = &'a str>) -> Value {
        let mut wanted: Vec<String> = names.map(str::to_owned).collect();
        let mut found = BTreeMap::new();
        while let Some(name) = wanted.pop() {
            let Some(entry) = self.0.get(&name) else { continue };
            if found.contains_key(&name) {
                continue;
            }
            for member in ["arg-type", "ret-type", "element-type"] {
                wanted.extend(entry[member].as_str().map(str::to_owned));
            }
            for list in ["members", "variants"] {
                let members = entry[list].as_array().into_iter().flatten();
                wanted
                    .extend(members.filter_map(|member| Some(member["type"].as_str()?.to_owned())));
            }
            found.insert(name, entry.clone());
        }
        found.into_values().collect()
    }
}

/// Compares what both have and notes the differences.
struct Comparison<'a> {
    ours: &'a Schema,
    qemu: &'a Schema,
    seen: BTreeSet<(String, String)>,
    found: BTreeSet<String>,
}

impl Comparison<'_> {
    fn run(ours: &Schema, qemu: &Schema) -> BTreeSet<String> {
        let mut comparison =
            Comparison { ours, qemu, seen: BTreeSet::new(), found: BTreeSet::new() };
        for name in ours.roots() {
            match qemu.0.get(name) {
                Some(theirs) => comparison.root(name, &ours.0[name], theirs),
                None => comparison.note(format!("{name} is ours only")),
            }
        }
        comparison.found
    }

    fn note(&mut self, difference: String) {
        self.found.insert(difference);
    }

    fn root(&mut self, name: &str, ours: &Value, qemu: &Value) {
        if ours["meta-type"] != qemu["meta-type"] || ours["allow-oob"] != qemu["allow-oob"] {
            self.note(format!("{name} is {ours} and not {qemu}"));
        }
        self.words(name, "feature", &strings(&ours["features"]), &strings(&qemu["features"]));
        let arguments = if ours["meta-type"] == "event" { "data" } else { "arguments" };
        for (member, at) in [("arg-type", arguments), ("ret-type", "return")] {
            if let (Some(a), Some(b)) = (ours[member].as_str(), qemu[member].as_str()) {
                self.types(&format!("{name}: {at}"), a, b);
            }
        }
    }

    fn types(&mut self, at: &str, ours: &str, qemu: &str) {
        let (a, b) = (&self.ours.0[ours], &self.qemu.0[qemu]);
        if !self.seen.insert((ours.to_owned(), qemu.to_owned())) && a["meta-type"] == "object" {
            return;
        }
        if a["meta-type"] != b["meta-type"] || a["json-type"] != b["json-type"] {
            self.note(format!("{at} is {a} and not {b}"));
        }
        match a["meta-type"].as_str() {
            Some("array") => {
                let element = |entry: &Value| entry["element-type"].as_str().unwrap().to_owned();
                self.types(&format!("{at}[]"), &element(a), &element(b));
            }
            Some("enum") => self.enums(at, a, b),
            Some("object") => self.objects(at, a, b),
            _ => {}
        }
    }

    fn enums(&mut self, at: &str, ours: &Value, qemu: &Value) {
        let mut theirs = strings(&qemu["values"]);
        if FEWER_WORDS.iter().any(|(known, _)| *known == at) {
            theirs.retain(|word| strings(&ours["values"]).contains(word));
        }
        self.words(&format!("{at}:"), "word", &strings(&ours["values"]), &theirs);
    }

    fn words(&mut self, at: &str, what: &str, ours: &BTreeSet<String>, qemu: &BTreeSet<String>) {
        let at = if at.contains(':') { at.to_owned() } else { format!("{at}:") };
        for word in ours.difference(qemu) {
            self.note(format!("{at} {what} {word} is ours only"));
        }
        for word in qemu.difference(ours) {
            self.note(format!("{at} {what} {word} is QEMU's only"));
        }
    }

    fn objects(&mut self, at: &str, ours: &Value, qemu: &Value) {
        let (a, b) = (members(ours, "members", "name"), members(qemu, "members", "name"));
        for (name, member) in &a {
            let at = format!("{at}.{name}");
            let Some(other) = b.get(name) else {
                self.note(format!("{at} is ours only"));
                continue;
            };
            if member.get("default") != other.get("default") {
                self.note(format!("{at} is optional in one of them only"));
            }
            if member.get("features") != other.get("features") {
                self.note(format!("{at} has other features"));
            }
            self.types(&at, member["type"].as_str().unwrap(), other["type"].as_str().unwrap());
        }
        for name in b.keys().filter(|name| !a.contains_key(*name)) {
            self.note(format!("{at}.{name} is QEMU's only"));
        }
        self.variants(at, ours, qemu);
    }

    fn variants(&mut self, at: &str, ours: &Value, qemu: &Value) {
        let has = |entry: &Value| entry.get("variants").is_some();
        match (has(ours), has(qemu)) {
            (true, true) => {}
            (false, true) => return self.note(format!("{at} has variants in QEMU only")),
            (true, false) => return self.note(format!("{at} has variants here only")),
            (false, false) => return,
        }
        if ours["tag"] != qemu["tag"] {
            self.note(format!("{at} has another tag"));
        }
        let (a, b) = (members(ours, "variants", "case"), members(qemu, "variants", "case"));
        if a.keys().ne(b.keys()) {
            self.note(format!("{at} has other variants"));
        }
        for (case, ours) in &a {
            if let Some(theirs) = b.get(case) {
                let at = format!("{at}({case})");
                self.types(&at, ours["type"].as_str().unwrap(), theirs["type"].as_str().unwrap());
            }
        }
    }
}

fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn members(entry: &Value, list: &str, key: &str) -> BTreeMap<String, Value> {
    let named = |member: &Value| (member[key].as_str().unwrap().to_owned(), member.clone());
    entry[list].as_array().into_iter().flatten().map(named).collect()
}

fn check(qemu: &Schema) {
    let found = Comparison::run(&ours(), qemu);
    let own = OWN.iter().map(|name| format!("{name} is ours only"));
    let known = DIFFERENCES
        .iter()
        .chain(differences::BLOCK)
        .chain(differences::OBJECTS)
        .map(|(difference, _)| (*difference).to_owned());
    let expected: BTreeSet<String> = own.chain(known).collect();
    let new: Vec<_> = found.difference(&expected).collect();
    let gone: Vec<_> = expected.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "not in the table: {new:#?}\nno more: {gone:#?}");
}

/// With the record always, and with an installed QEMU 10.0 as well.
#[test]
fn commands_and_events_are_those_of_qemu() {
    if let Some(installed) = installed() {
        if std::env::var_os("RINGVISOR_RECORD").is_some() {
            let extract = installed.extract(ours().roots());
            let lines: Vec<_> = extract.as_array().unwrap().iter().map(Value::to_string).collect();
            std::fs::write(record(), format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
        }
        check(&installed);
    }
    let text = std::fs::read_to_string(record()).unwrap();
    check(&Schema::new(serde_json::from_str(&text).unwrap()));
}

/// The schema of the QEMU of this host; says so where there is none to compare with.
fn installed() -> Option<Schema> {
    let Some(mut qemu) = Qemu::start() else {
        println!("compared with the record alone: there is no qemu-system-x86_64");
        return None;
    };
    let version = qemu.run("query-version");
    if version["qemu"]["major"] != json!(10) || version["qemu"]["minor"] != json!(0) {
        println!("compared with the record alone: the installed QEMU is {version}, not 10.0");
        return None;
    }
    Some(Schema::new(qemu.run("query-qmp-schema")))
}

#[test]
fn a_schema_refers_only_to_what_it_has() {
    let ours = ours();
    let Value::Array(reached) = ours.extract(ours.roots()) else { panic!("a list") };
    assert_eq!(reached.len(), ours.0.len(), "every entry is needed by a command or event");
    let used = reached.iter().flat_map(|entry| {
        let types = ["arg-type", "ret-type", "element-type"];
        types.map(|member| entry[member].as_str().map(str::to_owned)).into_iter().flatten()
    });
    for name in used {
        assert!(ours.0.contains_key(&name), "{name}");
    }
}

/// Types are told apart by their names alone.
#[test]
fn declared_names_are_unique() {
    use crate::registry::{StructInfo, Type};
    fn visit(info: &'static StructInfo, seen: &mut BTreeMap<&'static str, String>) {
        let shape = format!("{info:?}");
        if info.members.is_empty() && info.variants.is_none() {
            return;
        }
        if let Some(known) = seen.get(info.name) {
            assert_eq!(*known, shape, "two types are called {}", info.name);
            return;
        }
        seen.insert(info.name, shape);
        for member in info.members {
            visit_type(&member.ty, seen);
        }
        for (_, case) in info.variants.as_ref().map_or(&[][..], |variants| variants.cases) {
            visit(case, seen);
        }
    }
    fn visit_type(ty: &Type, seen: &mut BTreeMap<&'static str, String>) {
        match ty {
            Type::Struct(info) => visit(info, seen),
            Type::Array(element) => visit_type(element, seen),
            Type::Later(ty) => visit_type(&ty(), seen),
            Type::Enum(info) => {
                let shape = format!("{info:?}");
                assert_eq!(*seen.entry(info.name).or_insert_with(|| shape.clone()), shape);
            }
            _ => {}
        }
    }
    let mut seen = BTreeMap::new();
    for command in commands::registry().iter() {
        visit(command.arguments(), &mut seen);
        visit_type(&command.returns(), &mut seen);
    }
    for event in EVENTS {
        visit(event.data, &mut seen);
    }
}

#[test]
fn the_schema_is_served_in_both_layouts_and_reads_back() {
    let entries = introspect(&commands::registry(), EVENTS);
    let schema = Introspection::new(&commands::registry());
    let read = |style| {
        let mut writer = Writer::new(style);
        schema.write(&mut writer);
        let value = serde_json::from_slice(&writer.into_bytes()).unwrap();
        Vec::<SchemaInfo>::read(value, At::Root).unwrap()
    };
    assert_eq!(read(Style::Line), entries);
    assert_eq!(read(Style::Pretty), entries);
    stage(|stage| {
        let mut client = stage.client();
        let first = client.run("query-qmp-schema");
        assert!(first.as_array().unwrap().iter().any(|entry| entry["name"] == "x-wait"));
        assert_eq!(client.run("query-qmp-schema"), first);
    });
}

/// The record needs its tool only when commands are added.
#[test]
fn the_record_covers_every_command_that_is_not_ours_alone() {
    let recorded = std::fs::read_to_string(record()).unwrap();
    let recorded = Schema::new(serde_json::from_str(&recorded).unwrap());
    for name in ours().roots().filter(|name| !OWN.contains(name)) {
        assert!(recorded.0.contains_key(name), "record {name} with RINGVISOR_RECORD=1");
    }
}
