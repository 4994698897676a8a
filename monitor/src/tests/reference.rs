//! The reference page, `monitor/docs/reference.md`, made from the declarations. The test fails when
//! it is not current; `RINGVISOR_RECORD=1` writes it anew.

use crate::commands;
use crate::event::EVENTS;
use crate::registry::{Command, EnumInfo, Kind, StructInfo, Type};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A type that has a section of its own.
#[derive(Clone, Copy)]
enum Named {
    Enum(&'static EnumInfo),
    Struct(&'static StructInfo),
}

type Types = BTreeMap<&'static str, Named>;

/// The lines of a doc comment as one.
fn flat(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shown(ty: &Type, types: &mut Types) -> String {
    match ty {
        Type::String => "string".to_owned(),
        Type::Integer => "integer".to_owned(),
        Type::Number => "number".to_owned(),
        Type::Boolean => "boolean".to_owned(),
        Type::Null => "null".to_owned(),
        Type::Any => "anything".to_owned(),
        Type::Array(element) => format!("list of {}", shown(element, types)),
        Type::Later(ty) => shown(&ty(), types),
        Type::Alternate(info) => {
            let members: Vec<_> = info.members.iter().map(|ty| shown(ty, types)).collect();
            members.join(" or ")
        }
        Type::Struct(info) if info.members.is_empty() => "nothing".to_owned(),
        Type::Struct(info) => {
            types.insert(info.name, Named::Struct(info));
            format!("[{0}](#{1})", info.name, info.name.to_lowercase())
        }
        Type::Enum(info) => {
            types.insert(info.name, Named::Enum(info));
            format!("[{0}](#{1})", info.name, info.name.to_lowercase())
        }
    }
}

fn members(page: &mut String, info: &StructInfo, types: &mut Types) {
    if !info.members.is_empty() {
        page.push_str("\n| member | type | |\n|---|---|---|\n");
    }
    for member in info.members {
        let optional = if member.optional { " (optional)" } else { "" };
        let ty = shown(&member.ty, types);
        let _ = writeln!(page, "| `{}` | {ty}{optional} | {} |", member.name, flat(member.doc));
    }
    if let Some(variants) = &info.variants {
        for (case, more) in variants.cases {
            let _ = writeln!(page, "\nWhere `{}` is `{case}`:", variants.tag);
            members(page, more, types);
        }
    }
}

fn command(page: &mut String, command: &Command<crate::core::Env>, types: &mut Types) {
    let _ = writeln!(page, "\n### {}\n\n{}", command.name(), flat(command.doc()));
    members(page, command.arguments(), types);
    let mut notes = vec![format!("Returns {}.", shown(&command.returns(), types))];
    if command.kind() == Kind::Coroutine {
        notes.push("May wait.".to_owned());
    }
    if command.allow_oob() {
        notes.push("May run out of band.".to_owned());
    }
    if command.allow_preconfig() {
        notes.push("May run in preconfig.".to_owned());
    }
    for feature in command.features() {
        notes.push(format!("Feature: `{feature}`."));
    }
    let _ = writeln!(page, "\n{}", notes.join(" "));
}

fn reference() -> String {
    let mut page = String::from(
        "# Commands and events\n\nMade from the declarations in `monitor/src`; \
         `query-qmp-schema` says the same to programs.\n\n## Commands\n",
    );
    let mut types = Types::new();
    for declared in commands::registry().iter() {
        command(&mut page, declared, &mut types);
    }
    page.push_str("\n## Events\n");
    for event in EVENTS {
        let _ = writeln!(page, "\n### {}\n\n{}", event.name, flat(event.data.doc));
        members(&mut page, event.data, &mut types);
    }
    page.push_str("\n## Types\n");
    let mut done = BTreeMap::new();
    // Describing a type may find more of them.
    while let Some((name, ty)) =
        types.iter().map(|(name, ty)| (*name, *ty)).find(|(name, _)| !done.contains_key(name))
    {
        done.insert(name, section(name, ty, &mut types));
    }
    page.extend(done.into_values());
    page
}

fn section(name: &str, ty: Named, types: &mut Types) -> String {
    let mut text = String::new();
    match ty {
        Named::Struct(info) => {
            let _ = writeln!(text, "\n### {name}\n\n{}", flat(info.doc));
            members(&mut text, info, types);
        }
        Named::Enum(info) => {
            let _ = writeln!(text, "\n### {name}\n\n{}\n", flat(info.doc));
            text.push_str("| word | |\n|---|---|\n");
            for (word, doc) in info.values {
                let _ = writeln!(text, "| `{word}` | {} |", flat(doc));
            }
        }
    }
    text
}

#[test]
fn the_reference_page_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    let page = reference();
    if std::env::var_os("RINGVISOR_RECORD").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/reference.md is old: run this test with RINGVISOR_RECORD=1");
}

#[test]
fn everything_is_documented() {
    fn check(at: &str, info: &StructInfo) {
        for member in info.members {
            assert!(!flat(member.doc).is_empty(), "{at}: {}", member.name);
        }
    }
    for command in commands::registry().iter() {
        assert!(!command.doc().is_empty(), "{}", command.name());
        check(command.name(), command.arguments());
        if let Type::Struct(info) = command.returns() {
            check(command.name(), info);
        }
    }
    for event in EVENTS {
        assert!(!flat(event.data.doc).is_empty(), "{}", event.name);
        check(event.name, event.data);
    }
}
