use super::*;
use crate::virtio::testing::on_reactors;
use serde_json::json;

async fn add(objects: &Objects, arguments: &str) -> Result<(), String> {
    let arguments: Map<String, Value> = serde_json::from_str(arguments).unwrap();
    objects.add(&arguments, Syntax::Json).await.map_err(|error| error.text)
}

/// Texts of QEMU 10.0.
const REFUSED: &[(&str, &str)] = &[
    (r#"{"qom-type": "nope", "id": "a"}"#, "Parameter 'qom-type' does not accept value 'nope'"),
    (r#"{"qom-type": "iothread"}"#, "Parameter 'id' is missing"),
    (r#"{"id": "a"}"#, "Parameter 'qom-type' is missing"),
    (r#"{"qom-type": "iothread", "id": "a b"}"#, "Parameter 'id' expects an identifier"),
    (r#"{"qom-type": "iothread", "id": "a", "foo": 1}"#, "Parameter 'foo' is unexpected"),
    (
        r#"{"qom-type": "iothread", "id": "a", "poll-max-ns": -1}"#,
        "poll-max-ns value must be in range [0, 9223372036854775807]",
    ),
    (
        r#"{"qom-type": "iothread", "id": "a", "poll-max-ns": "x"}"#,
        "Invalid parameter type for 'poll-max-ns', expected: integer",
    ),
    (
        r#"{"qom-type": "rng-random", "id": "a", "filename": "/nope"}"#,
        "Could not open '/nope': No such file or directory",
    ),
    (r#"{"qom-type": "secret", "id": "a"}"#, "Either 'file' or 'data' must be provided"),
    (
        r#"{"qom-type": "secret", "id": "a", "data": "x", "file": "/x"}"#,
        "'file' and 'data' are mutually exclusive",
    ),
    (
        r#"{"qom-type": "secret", "id": "a", "file": "/nope"}"#,
        "Unable to read /nope: Failed to open file \u{201c}/nope\u{201d}: No such file or directory",
    ),
    (
        r#"{"qom-type": "secret", "id": "a", "data": "x", "format": "y"}"#,
        "Parameter 'format' does not accept value 'y'",
    ),
];

/// `limits` of a throttle group, and what QEMU 10.0 says.
const REFUSED_LIMITS: &[(&str, &str)] = &[
    (r#"{"iops-total": -1}"#, "bps/iops/max values must be within [0, 1000000000000000]"),
    (
        r#"{"iops-total": 100, "iops-read": 5}"#,
        "bps/iops/max total values and read/write values cannot be used at the same time",
    ),
    (
        r#"{"iops-total": 100, "iops-total-max": 5}"#,
        "bps_max/iops_max cannot be lower than bps/iops",
    ),
    (r#"{"iops-total-max": 5}"#, "bps_max/iops_max require corresponding bps/iops values"),
    (
        r#"{"iops-total": 100, "iops-total-max": 500, "iops-total-max-length": 0}"#,
        "the burst length cannot be 0",
    ),
    (r#"{"iops-total": 100, "iops-total-max-length": 5}"#, "burst length set without burst rate"),
    (r#"{"iops-size": 4096}"#, "iops size requires an iops value to be set"),
    (r#"{"foo": 100}"#, "Parameter 'limits.foo' is unexpected"),
];

#[test]
fn mistakes_have_the_words_of_qemu() {
    on_reactors(1, |reactors| async move {
        let objects = Objects::new(reactors.cores());
        for (arguments, expected) in REFUSED {
            assert_eq!(add(&objects, arguments).await.unwrap_err(), *expected, "{arguments}");
        }
        for (limits, expected) in REFUSED_LIMITS {
            let arguments =
                format!(r#"{{"qom-type": "throttle-group", "id": "t", "limits": {limits}}}"#);
            assert_eq!(add(&objects, &arguments).await.unwrap_err(), *expected, "{limits}");
        }
        assert!(objects.all().is_empty());
        let error = objects.remove("nope").unwrap_err();
        assert_eq!(error.text, "object 'nope' not found");
    });
}

#[test]
fn objects_come_change_and_go() {
    on_reactors(2, |reactors| async move {
        let objects = Objects::new(reactors.cores());
        for id in ["io0", "io1", "io2"] {
            add(&objects, &format!(r#"{{"qom-type": "iothread", "id": "{id}"}}"#)).await.unwrap();
        }
        let core = |id: &str| objects.iothread(id).unwrap().name().to_owned();
        assert_eq!((core("io0"), core("io2")), (core("/objects/io2"), core("io0")), "in turns");
        assert_ne!(core("io0"), core("io1"));
        assert_eq!(
            add(&objects, r#"{"qom-type": "rng-builtin", "id": "io0"}"#).await.unwrap_err(),
            "attempt to add duplicate property 'io0' to object (type 'container')"
        );
        let io0 = objects.find("io0").unwrap();
        assert_eq!(io0.property("poll-max-ns"), Some(json!(32768)));
        io0.set_property("poll-max-ns", &json!(5), Syntax::Json).unwrap();
        assert_eq!(io0.property("poll-max-ns"), Some(json!(5)));
        assert!(io0.set_property("poll-max-ns", &json!(-5), Syntax::Json).is_err());
        assert_eq!(io0.property("poll-max-ns"), Some(json!(5)));
        objects.remove("io0").unwrap();
        assert!(objects.iothread("io0").is_none());
        add(&objects, r#"{"qom-type": "rng-random", "id": "r"}"#).await.unwrap();
        assert!(matches!(objects.find("r").unwrap().body(), Body::Random(_)));
        assert!(objects.iothread("r").is_none());
    });
}

#[test]
fn limits_are_shown_complete() {
    on_reactors(1, |reactors| async move {
        let objects = Objects::new(reactors.cores());
        let group = r#"{"qom-type": "throttle-group", "id": "t", "limits": {"iops-total": 100}}"#;
        add(&objects, group).await.unwrap();
        let group = objects.find("t").unwrap();
        let limits = group.property("limits").unwrap();
        assert_eq!(limits.as_object().unwrap().len(), 19);
        assert_eq!((&limits["iops-total"], &limits["bps-read"]), (&json!(100), &json!(0)));
        assert_eq!(limits["bps-read-max-length"], json!(1));
        group.set_property("limits", &json!({"bps-total": 7}), Syntax::Json).unwrap();
        assert_eq!(group.property("limits").unwrap()["iops-total"], json!(100));
        assert_eq!(group.property("limits").unwrap()["bps-total"], json!(7));
        assert!(group.set_property("limits", &json!({"bps-total-max": 6}), Syntax::Json).is_err());
    });
}

#[test]
fn secrets_are_decoded_from_data_and_files() {
    on_reactors(1, |reactors| async move {
        let objects = Objects::new(reactors.cores());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "cGFzc3\ndvcmQ=\n").unwrap();
        let name = file.path().display();
        let of_file =
            format!(r#"{{"qom-type": "secret", "id": "f", "file": "{name}", "format": "base64"}}"#);
        add(&objects, &of_file).await.unwrap();
        add(&objects, r#"{"qom-type": "secret", "id": "d", "data": "abc"}"#).await.unwrap();
        let secret = |id: &str| match objects.find(id).unwrap().body() {
            Body::Secret(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!((secret("f"), secret("d")), (b"password".to_vec(), b"abc".to_vec()));
        let bad = r#"{"qom-type": "secret", "id": "x", "data": "a*c", "format": "base64"}"#;
        assert!(add(&objects, bad).await.unwrap_err().contains("not valid base64"));
    });
}
