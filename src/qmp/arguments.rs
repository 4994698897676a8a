//! `key=value`, `key:=JSON` and objects into the arguments of a command.

use super::schema::{Kind, Schema, put};
use serde_json::{Map, Value};

/// Whether any of the arguments takes its type from the schema.
pub(super) fn need_types(words: &[String]) -> bool {
    words.iter().any(|word| !word.starts_with('{') && !word.contains(":="))
}

/// Reads arguments. The error is one line for the user.
pub(super) fn parse(
    command: &str,
    words: &[String],
    schema: Option<&Schema>,
) -> Result<Map<String, Value>, String> {
    if let [object] = words
        && object.starts_with('{')
    {
        return serde_json::from_str(object).map_err(|error| format!("this is no JSON: {error}"));
    }
    let mut arguments = Map::new();
    for word in words {
        let split = word.split_once('=').filter(|(key, _)| !key.is_empty() && *key != ":");
        let Some((key, text)) = split else {
            let usage = schema.and_then(|schema| schema.usage(command));
            let usage = usage.map_or_else(String::new, |usage| format!("; write {usage}"));
            return Err(format!("'{word}' is no argument: key=value or key:=JSON{usage}"));
        };
        let (key, value) = if let Some(key) = key.strip_suffix(':') {
            let no_json = |error| format!("{key}: '{text}' is no JSON: {error}");
            (key, serde_json::from_str(text).map_err(no_json)?)
        } else {
            let kind = schema.and_then(|schema| schema.find(command, key));
            (key, typed(key, text, kind)?)
        };
        put(&mut arguments, key, value)?;
    }
    Ok(arguments)
}

/// A value of the kind that the schema has; a guess where it has none.
fn typed(key: &str, text: &str, kind: Option<Kind>) -> Result<Value, String> {
    let wrong = |expected: &str| Err(format!("{key}: '{text}' is no {expected}"));
    match kind {
        Some(Kind::String) => Ok(Value::from(text)),
        Some(Kind::Enum(words)) if words.iter().any(|word| word == text) => Ok(Value::from(text)),
        Some(Kind::Enum(words)) => Err(format!("{key}: '{text}' is none of {}", words.join(", "))),
        Some(Kind::Boolean) => boolean(text).map_or_else(|| wrong("on or off"), Ok),
        Some(Kind::Integer) => integer(text).map_or_else(|| wrong("whole number"), Ok),
        Some(Kind::Number) => match text.parse::<f64>() {
            Ok(number) => Ok(Value::from(number)),
            Err(_) => wrong("number"),
        },
        Some(Kind::Compound) => match serde_json::from_str::<Value>(text) {
            Ok(value @ (Value::Object(_) | Value::Array(_))) => Ok(value),
            _ => wrong("JSON object or list"),
        },
        Some(Kind::Any) | None => {
            let word = || Value::from(text);
            Ok(serde_json::from_str(text).ok().or_else(|| boolean(text)).unwrap_or_else(word))
        }
    }
}

fn boolean(text: &str) -> Option<Value> {
    match text {
        "on" | "yes" | "true" => Some(Value::from(true)),
        "off" | "no" | "false" => Some(Value::from(false)),
        _ => None,
    }
}

fn integer(text: &str) -> Option<Value> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Value::from);
    }
    text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
}

/// The words of a line; quotes of either kind hold white space.
pub(super) fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', Some('"') | None) => word.get_or_insert_default().extend(chars.next()),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(format!("a {quote} is missing at the end"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::{parse, words};
    use crate::qmp::schema::Schema;
    use serde_json::{Value, json};

    fn schema() -> Schema {
        Schema::new(json!([
            {"name": "go", "meta-type": "command", "arg-type": "1", "ret-type": "2"},
            {"name": "1", "meta-type": "object", "tag": "way",
             "variants": [{"case": "air", "type": "3"}], "members": [
                {"name": "to", "type": "str"},
                {"name": "times", "type": "int", "default": null},
                {"name": "fast", "type": "bool", "default": null},
                {"name": "way", "type": "2"},
                {"name": "more", "type": "3"}]},
            {"name": "2", "meta-type": "enum", "values": ["air", "sea"]},
            {"name": "3", "meta-type": "object", "members": [{"name": "height", "type": "int"}]},
            {"name": "str", "meta-type": "builtin", "json-type": "string"},
            {"name": "int", "meta-type": "builtin", "json-type": "int"},
            {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
        ]))
    }

    fn parsed(line: &str) -> Result<Value, String> {
        parse("go", &words(line)?, Some(&schema())).map(Value::Object)
    }

    #[test]
    fn the_schema_gives_the_types() {
        let all = parsed("to=7 times=0x10 fast=on way=sea height=-3 more.height=2");
        assert_eq!(
            all,
            Ok(json!({"to": "7", "times": 16, "fast": true, "way": "sea", "height": -3,
                      "more": {"height": 2}}))
        );
        assert_eq!(parsed("to:='[1, \"a\"]'"), Ok(json!({"to": [1, "a"]})));
        assert_eq!(parsed("'{\"to\": 1}'"), Ok(json!({"to": 1})));
        assert_eq!(parsed("new=3 other=x"), Ok(json!({"new": 3, "other": "x"})));
        assert_eq!(parsed("to='a b' way=air"), Ok(json!({"to": "a b", "way": "air"})));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parsed("times=x").unwrap_err(), "times: 'x' is no whole number");
        assert_eq!(parsed("way=land").unwrap_err(), "way: 'land' is none of air, sea");
        assert_eq!(parsed("to=a to=b").unwrap_err(), "'to' is given twice");
        assert_eq!(parsed("more=x").unwrap_err(), "more: 'x' is no JSON object or list");
        assert_eq!(parsed("to='a").unwrap_err(), "a ' is missing at the end");
        assert_eq!(
            parsed("there").unwrap_err(),
            "'there' is no argument: key=value or key:=JSON; write go to=TEXT [times=NUMBER] \
             [fast=on|off] way=air|sea more:=JSON [height=NUMBER]"
        );
    }
}
