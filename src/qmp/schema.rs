//! What `query-qmp-schema` says about arguments.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The schema of a server.
#[derive(Debug)]
pub(super) struct Schema {
    entries: BTreeMap<String, Value>,
}

/// What a value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Integer,
    Number,
    Boolean,
    Enum(Vec<String>),
    /// An object or a list.
    Compound,
    /// Anything, or one of several types.
    Any,
}

/// An argument, or a member of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) optional: bool,
    ty: String,
}

impl Schema {
    pub(super) fn new(entries: Value) -> Self {
        let Value::Array(entries) = entries else { return Self { entries: BTreeMap::new() } };
        let named = |entry: Value| Some((entry["name"].as_str()?.to_owned(), entry));
        Self { entries: entries.into_iter().filter_map(named).collect() }
    }

    /// The names of the commands, sorted.
    pub(super) fn commands(&self) -> impl Iterator<Item = &str> {
        let commands = self.entries.iter().filter(|(_, entry)| entry["meta-type"] == "command");
        commands.map(|(name, _)| name.as_str())
    }

    /// What a command takes; `None` for one that there is not.
    pub(super) fn arguments(&self, command: &str) -> Option<Vec<Member>> {
        let entry = self.entries.get(command).filter(|entry| entry["meta-type"] == "command")?;
        Some(self.members(entry["arg-type"].as_str().unwrap_or_default()))
    }

    /// The members of an object, those of all its variants included.
    fn members(&self, ty: &str) -> Vec<Member> {
        let Some(entry) = self.entries.get(ty) else { return Vec::new() };
        let mut found: Vec<Member> =
            list(entry, "members").iter().filter_map(|member| self.member(member)).collect();
        for variant in list(entry, "variants") {
            let more = self.members(variant["type"].as_str().unwrap_or_default());
            for member in more {
                if !found.iter().any(|known| known.name == member.name) {
                    found.push(Member { optional: true, ..member });
                }
            }
        }
        found
    }

    fn member(&self, member: &Value) -> Option<Member> {
        let ty = member["type"].as_str()?.to_owned();
        Some(Member {
            name: member["name"].as_str()?.to_owned(),
            kind: self.kind(&ty),
            optional: member.get("default").is_some(),
            ty,
        })
    }

    fn kind(&self, ty: &str) -> Kind {
        let Some(entry) = self.entries.get(ty) else { return Kind::Any };
        match (entry["meta-type"].as_str(), entry["json-type"].as_str()) {
            (Some("enum"), _) => {
                let words = list(entry, "values").iter();
                Kind::Enum(words.filter_map(|word| Some(word.as_str()?.to_owned())).collect())
            }
            (Some("object" | "array"), _) => Kind::Compound,
            (Some("builtin"), Some("string")) => Kind::String,
            (Some("builtin"), Some("int")) => Kind::Integer,
            (Some("builtin"), Some("number")) => Kind::Number,
            (Some("builtin"), Some("boolean")) => Kind::Boolean,
            _ => Kind::Any,
        }
    }

    /// The kind of an argument, or of a member of one (`a.b`).
    pub(super) fn find(&self, command: &str, path: &str) -> Option<Kind> {
        let mut members = self.arguments(command)?;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let member = members.into_iter().find(|member| member.name == name)?;
            if names.peek().is_none() {
                return Some(member.kind);
            }
            members = self.members(&member.ty);
        }
        None
    }

    /// A command as it is written.
    pub(super) fn usage(&self, command: &str) -> Option<String> {
        let mut text = command.to_owned();
        for member in self.arguments(command)? {
            let value = match &member.kind {
                Kind::String => "=TEXT".to_owned(),
                Kind::Integer | Kind::Number => "=NUMBER".to_owned(),
                Kind::Boolean => "=on|off".to_owned(),
                Kind::Enum(words) => format!("={}", words.join("|")),
                Kind::Compound | Kind::Any => ":=JSON".to_owned(),
            };
            let argument = format!("{}{value}", member.name);
            let brackets = if member.optional { ["[", "]"] } else { ["", ""] };
            text.extend([" ", brackets[0], &argument, brackets[1]]);
        }
        Some(text)
    }
}

fn list<'a>(entry: &'a Value, member: &str) -> &'a [Value] {
    entry.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Puts a value where `path` (`a.b`) says.
pub(super) fn put(
    arguments: &mut Map<String, Value>,
    path: &str,
    value: Value,
) -> Result<(), String> {
    let (members, name) = match path.split_once('.') {
        None => (arguments, path),
        Some((first, rest)) => {
            let object = arguments.entry(first).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(object) = object else {
                return Err(format!("'{first}' has a value and members"));
            };
            return put(object, rest, value);
        }
    };
    match members.insert(name.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(format!("'{path}' is given twice")),
    }
}
