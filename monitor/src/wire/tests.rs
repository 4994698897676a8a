use super::{Limits, Reader, Style, Writer};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Everything the reader gives for these pieces: values, or the texts of errors.
fn read(pieces: &[&[u8]]) -> Vec<Result<Value, String>> {
    read_with(Limits::default(), pieces)
}

fn read_with(limits: Limits, pieces: &[&[u8]]) -> Vec<Result<Value, String>> {
    let mut reader = Reader::new(limits);
    let mut results = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while let Some(result) = reader.next(&mut rest) {
            results.push(result.map_err(|error| error.to_string()));
        }
        assert!(rest.is_empty(), "the reader left {rest:?}");
    }
    results
}

fn one(text: &[u8]) -> Result<Value, String> {
    let results = read(&[text]);
    assert_eq!(results.len(), 1, "{results:?}");
    results.into_iter().next().unwrap()
}

fn line(value: &Value) -> String {
    let mut writer = Writer::new(Style::Line);
    writer.value(value);
    String::from_utf8(writer.into_bytes()).unwrap()
}

#[test]
fn several_values_in_one_packet_come_one_by_one() {
    assert_eq!(
        read(&[br#"{"execute":"stop"} {"execute":"cont"}[1]"#]),
        [Ok(json!({"execute": "stop"})), Ok(json!({"execute": "cont"})), Ok(json!([1]))]
    );
}

#[test]
fn apostrophes_delimit_strings_too() {
    assert_eq!(
        one(br#"{'execute': 'a"b', "it's": '\'' }"#),
        Ok(json!({"execute": "a\"b", "it's": "'"}))
    );
}

#[test]
fn scalars_end_at_the_first_byte_that_does_not_continue_them() {
    assert_eq!(
        read(&[b"12 -3 4.5e1 true", b" null\n\"x\""]),
        [
            Ok(json!(12)),
            Ok(json!(-3)),
            Ok(json!(45.0)),
            Ok(json!(true)),
            Ok(json!(null)),
            Ok(json!("x"))
        ]
    );
}

#[test]
fn integers_beyond_64_bits_become_floats() {
    assert_eq!(one(b"[9223372036854775807]"), Ok(json!([i64::MAX])));
    assert_eq!(one(b"[18446744073709551615]"), Ok(json!([u64::MAX])));
    assert_eq!(one(b"[-9223372036854775809]"), Ok(json!([-9.223_372_036_854_776e18])));
    assert_eq!(one(b"[1e400]"), Err("JSON parse error, number '1e400' is out of range".into()));
}

/// What qemu-system-x86_64 10.0.2 answers to the same bytes.
#[test]
fn errors_have_the_texts_of_qemu() {
    const EXPECTING: &str = "JSON parse error, expecting value";
    let cases: &[(&[u8], &[&str])] = &[
        (b"{\"a\"\xff", &["JSON parse error, stray '\u{fffd}'"]),
        (
            b"\xff\xff",
            &["JSON parse error, stray '\u{fffd}'", "JSON parse error, stray '\u{fffd}'"],
        ),
        (b"}", &[EXPECTING]),
        (b"]", &[EXPECTING]),
        (b"{\"a\":}", &[EXPECTING]),
        (b"{\"a\" 1}", &["JSON parse error, missing : in object pair"]),
        (b"{\"a\":1,}", &[EXPECTING]),
        (b"{\"a\":1 2}", &["JSON parse error, expected separator in dict"]),
        (b"[1 2]", &["JSON parse error, expected separator in list"]),
        (b"[[1}", &["JSON parse error, expected separator in list"]),
        (b"{1:2}", &["JSON parse error, key is not a string in object"]),
        (b"{\"a\":1,\"a\":2}", &["JSON parse error, duplicate key"]),
        (b"[foo]", &["JSON parse error, invalid keyword 'foo'"]),
        (b"[TRUE]", &["JSON parse error, stray 'T'", EXPECTING]),
        (b"[01]", &["JSON parse error, stray '01'", EXPECTING]),
        (b"[-]", &["JSON parse error, stray '-]'"]),
        (b"[1.]", &["JSON parse error, stray '1.]'"]),
        (b"[1e]", &["JSON parse error, stray '1e]'"]),
        (b"[a-b]", &["JSON parse error, stray '-b'", EXPECTING]),
        (b"[12a]", &["JSON parse error, expected separator in list"]),
        (b"[\"a\nb\"]", &["JSON parse error, stray '\"a\n'", EXPECTING]),
        (b"[\"a\x00b\"]", &["JSON parse error, stray '\"a'", EXPECTING]),
        (b"\x00", &["JSON parse error, stray ''"]),
        (b"\x0b\x0c", &["JSON parse error, stray '\x0b'", "JSON parse error, stray '\x0c'"]),
        (b"[%d]", &["JSON parse error, stray '%'", EXPECTING]),
        (b"[\"\xc3(\"]", &["JSON parse error, invalid UTF-8 sequence in string"]),
        (b"[\"\xed\xa0\x80\"]", &["JSON parse error, invalid UTF-8 sequence in string"]),
        (b"[\"\xef\xbf\xbf\"]", &["JSON parse error, invalid UTF-8 sequence in string"]),
        (b"[\"\xff\"]", &["JSON parse error, stray '\"\u{fffd}'", EXPECTING]),
        (br#"["\x"]"#, &["JSON parse error, invalid escape sequence in string"]),
        (br#"["\ud800"]"#, &["JSON parse error, \\ud800 is not a valid Unicode character"]),
        (br#"["\ud800\u0041"]"#, &["JSON parse error, \\ud800 is not a valid Unicode character"]),
        (br#"["\uffff"]"#, &["JSON parse error, \\uffff is not a valid Unicode character"]),
        (br#"["\u12x4"]"#, &["JSON parse error, \\u12x4 is not a valid Unicode character"]),
        (br#"["\u"]"#, &["JSON parse error, \\u\" is not a valid Unicode character"]),
    ];
    for (input, expected) in cases {
        let texts: Vec<_> = read(&[input]).into_iter().map(Result::unwrap_err).collect();
        assert_eq!(texts, *expected, "for {:?}", String::from_utf8_lossy(input));
    }
}

#[test]
fn reading_goes_on_after_an_error() {
    let good = || Ok(json!({"execute": "stop"}));
    for prefix in [&b"{\"a\"\xff"[..], b"{\"a\": [\xff", b"}", b"@@ 1 2 \"x\" ", b"[1}"] {
        let results = read(&[prefix, br#"{"execute":"stop"}"#]);
        assert_eq!(results.last(), Some(&good()), "after {prefix:?}");
        assert_eq!(results.len(), 2, "after {prefix:?}");
    }
}

#[test]
fn modified_utf8_and_escapes_are_decoded() {
    assert_eq!(one(b"[\"\xc0\x80\\u0000\"]"), Ok(json!(["\0\0"])));
    assert_eq!(
        one("[\"é\\u00e9\\ud83d\\ude00😀\\/\\b\\f\\n\\r\\t\\\\\\\"\"]".as_bytes()),
        Ok(json!(["éé😀😀/\u{8}\u{c}\n\r\t\\\""]))
    );
}

#[test]
fn depth_is_limited() {
    let nested = |n| [vec![b'['; n], vec![b']'; n]].concat();
    assert!(one(&nested(1024)).is_ok());
    let results = read(&[&vec![b'['; 1025], b"\xff", b"{}"]);
    assert_eq!(results[0], Err("JSON nesting depth limit exceeded".into()));
    assert_eq!(results.last(), Some(&Ok(json!({}))));
}

#[test]
fn size_and_token_count_are_limited_and_nothing_is_kept() {
    let limits = Limits { text_bytes_max: 100, tokens_max: 10, depth_max: 8 };
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(200));
    let results = read_with(limits, &[long.as_bytes(), b"\xff", b"{}"]);
    assert_eq!(results[0], Err("JSON token size limit exceeded".into()));
    assert_eq!(results.last(), Some(&Ok(json!({}))));

    let results = read_with(limits, &[b"[1,2,3,4,5,6,7,8", b"\xff", b"{}"]);
    assert_eq!(results[0], Err("JSON token count limit exceeded".into()));
    assert_eq!(results.last(), Some(&Ok(json!({}))));
}

#[test]
fn lines_are_laid_out_as_qemu_does() {
    let value =
        json!({"a": 1, "b": [2, {}, []], "c": {"d": null, "e": true}, "f": "é😀\x7f\"\\\n\u{1}"});
    assert_eq!(
        line(&value),
        r#"{"a": 1, "b": [2, {}, []], "c": {"d": null, "e": true}, "f": "\u00E9\uD83D\uDE00\u007F\"\\\n\u0001"}"#
    );
}

#[test]
fn pretty_is_laid_out_as_qemu_does() {
    let mut writer = Writer::new(Style::Pretty);
    writer.value(&json!({"return": {}, "id": [1, [2]]}));
    assert_eq!(
        String::from_utf8(writer.into_message()).unwrap(),
        "{\r\n    \"return\": {\r\n    },\r\n    \"id\": [\r\n        1,\r\n        [\r\n            2\r\n        ]\r\n    ]\r\n}\r\n"
    );
}

/// An error may quote what no reader takes.
#[test]
fn what_is_no_character_is_written_as_the_replacement() {
    for text in ["\u{ffff}", "\u{fdd0}", "\u{10ffff}"] {
        let mut writer = Writer::new(Style::Line);
        writer.str(text);
        assert!(writer.into_bytes().starts_with(b"\"\\uFFFD\""), "{text:?}");
    }
}

#[test]
fn a_writer_can_be_rewound() {
    let mut writer = Writer::new(Style::Line);
    writer.begin_object();
    writer.key("a");
    writer.int(-1);
    let mark = writer.mark();
    writer.key("b");
    writer.begin_array();
    writer.rewind(&mark);
    writer.key("c");
    writer.uint(2);
    writer.end_object();
    assert_eq!(writer.into_bytes(), br#"{"a": -1, "c": 2}"#);
}

/// Values whose numbers survive a text form.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f32>().prop_filter("finite", |x| x.is_finite()).prop_map(|x| json!(f64::from(x))),
        ".*".prop_filter("no non-characters", |s: &String| !s.chars().any(is_noncharacter))
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::vec(("[a-z]{0,8}", inner), 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn is_noncharacter(c: char) -> bool {
    matches!(u32::from(c), 0xfdd0..=0xfdef) || u32::from(c) & 0xfffe == 0xfffe
}

/// Bytes that look like JSON more often than not.
fn json_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            &b"{"[..], b"}", b"[", b"]", b":", b",", b"\"", b"'", b"\\", b"\\u", b"d83d", b"-", b"0", b"1",
            b".", b"e", b"+", b"true", b"nul", b" ", b"\n", b"\xff", b"\xfe", b"\xc0\x80", b"\xc3\xa9", b"\x00",
            b"\"a\":", b"{\"execute\":\"stop\"}", b"1.5e3", b"\xf0\x9f\x98\x80", b"\x80", b"%", b"Z",
        ])
        .prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_written_reads_back(value in any_value(), pretty: bool) {
        let mut writer = Writer::new(if pretty { Style::Pretty } else { Style::Line });
        writer.begin_array();
        writer.element();
        writer.value(&value);
        writer.end_array();
        let text = writer.into_message();
        prop_assert!(text.is_ascii());
        prop_assert_eq!(read(&[&text]), [Ok(json!([value]))]);
    }

    #[test]
    fn any_split_gives_the_same(bytes in json_like(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let single: Vec<_> = bytes.chunks(1).collect();
        let whole = read(&[&bytes]);
        prop_assert_eq!(&read(&pieces), &whole);
        prop_assert_eq!(&read(&single), &whole);
    }

    #[test]
    fn after_garbage_a_reset_byte_restores_the_stream(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let limits = Limits { text_bytes_max: 64, tokens_max: 16, depth_max: 4 };
        for limits in [limits, Limits::default()] {
            let results = read_with(limits, &[&bytes, b"\xff\n", br#"{"a":1}"#]);
            prop_assert_eq!(results.last(), Some(&Ok(json!({"a": 1}))));
        }
    }

    #[test]
    fn what_serde_json_writes_reads_back(value in any_value()) {
        let text = serde_json::to_vec(&json!([value])).unwrap();
        prop_assert_eq!(read(&[&text]), [Ok(json!([value]))]);
    }
}
