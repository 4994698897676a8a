use super::{At, Members, Qapi, QapiStruct, Type};
use crate::wire::{Style, Writer};
use crate::{qapi_enum, qapi_struct};
use serde_json::{Value, json};

qapi_enum! {
    /// A colour.
    pub enum Colour {
        /// As blood.
        Red = "red",
        /// As the sea.
        DeepBlue = "deep-blue",
    }
}

qapi_struct! {
    /// A point.
    pub struct Point {
        /// To the right.
        pub x: i64 = "x",
        /// Up.
        pub y: Option<f64> = "y",
    }
}

qapi_struct! {
    /// Everything.
    pub struct Sample {
        /// Its name.
        pub name: String = "name",
        /// How often.
        pub count: u64 = "count",
        /// Whether at all.
        pub on: bool = "on",
        /// Its colours.
        pub colours: Vec<Colour> = "colours",
        /// Where.
        pub points: Option<Vec<Point>> = "the-points",
        /// Whatever.
        pub extra: Option<Value> = "extra",
    }
}

fn members(value: Value) -> Members {
    match value {
        Value::Object(members) => members,
        _ => panic!("not an object"),
    }
}

fn full() -> Value {
    json!({"name": "n", "count": 3, "on": true, "colours": ["red", "deep-blue"],
           "the-points": [{"x": -1, "y": 0.5}, {"x": 2}], "extra": {"any": [null]}})
}

fn error(change: impl FnOnce(&mut Members)) -> String {
    let mut arguments = members(full());
    change(&mut arguments);
    Sample::read_members(arguments, At::Root).unwrap_err().desc().to_owned()
}

#[test]
fn what_is_read_is_written_again() {
    let sample = Sample::read_members(members(full()), At::Root).unwrap();
    assert_eq!(sample.colours, [Colour::Red, Colour::DeepBlue]);
    assert_eq!(sample.points.as_ref().unwrap()[1], Point { x: 2, y: None });
    let mut writer = Writer::new(Style::Line);
    sample.write(&mut writer);
    let text = String::from_utf8(writer.into_bytes()).unwrap();
    assert_eq!(
        text,
        r#"{"name": "n", "count": 3, "on": true, "colours": ["red", "deep-blue"], "the-points": [{"x": -1, "y": 0.5}, {"x": 2}], "extra": {"any": [null]}}"#
    );
}

#[test]
fn errors_name_the_member_as_qemu_does() {
    let cases = [
        (error(|m| drop(m.remove("name"))), "Parameter 'name' is missing"),
        (error(|m| drop(m.insert("zz".into(), json!(1)))), "Parameter 'zz' is unexpected"),
        (
            error(|m| drop(m.insert("name".into(), json!(1)))),
            "Invalid parameter type for 'name', expected: string",
        ),
        (
            error(|m| drop(m.insert("count".into(), json!(1.5)))),
            "Invalid parameter type for 'count', expected: integer",
        ),
        (
            error(|m| drop(m.insert("on".into(), json!("true")))),
            "Invalid parameter type for 'on', expected: boolean",
        ),
        (
            error(|m| drop(m.insert("colours".into(), json!("red")))),
            "Invalid parameter type for 'colours', expected: array",
        ),
        (
            error(|m| drop(m.insert("colours".into(), json!(["red", 3])))),
            "Invalid parameter type for 'colours[1]', expected: string",
        ),
        (
            error(|m| drop(m.insert("colours".into(), json!(["green"])))),
            "Parameter 'colours[0]' does not accept value 'green'",
        ),
        (
            error(|m| drop(m.insert("the-points".into(), json!([{"x": 1}, {"y": 1}])))),
            "Parameter 'the-points[1].x' is missing",
        ),
        (
            error(|m| drop(m.insert("the-points".into(), json!([{"x": 1, "y": null}])))),
            "Invalid parameter type for 'the-points[0].y', expected: number",
        ),
        (
            error(|m| drop(m.insert("the-points".into(), json!([{"x": 1, "z": 1}])))),
            "Parameter 'the-points[0].z' is unexpected",
        ),
        (
            error(|m| drop(m.insert("the-points".into(), json!([7])))),
            "Invalid parameter type for 'the-points[0]', expected: object",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(text, expected);
    }
}

#[test]
fn no_arguments_means_none() {
    assert!(<()>::read_members(Members::new(), At::Root).is_ok());
    let error = <()>::read_members(members(json!({"x": 1})), At::Root).unwrap_err();
    assert_eq!(error.desc(), "Parameter 'x' is unexpected");
}

#[test]
fn a_declaration_describes_itself() {
    let info = Sample::INFO;
    assert_eq!(info.name, "Sample");
    assert_eq!(info.doc.trim(), "Everything.");
    let optional: Vec<_> = info.members.iter().filter(|m| m.optional).map(|m| m.name).collect();
    assert_eq!(optional, ["the-points", "extra"]);
    let Type::Array(Type::Enum(colour)) = info.members[3].ty else { panic!("{info:?}") };
    assert_eq!(colour.name, "Colour");
    assert_eq!(colour.values[1].0, "deep-blue");
    assert_eq!(colour.values[0].1.trim(), "As blood.");
}
