//! From the connection to the first command.

use super::stage::stage;
use serde_json::json;

const NOT_FOUND: &str = "CommandNotFound";

#[test]
fn the_greeting_is_that_of_qemu() {
    let line = stage(|stage| stage.connect().line());
    assert_eq!(
        line,
        format!(
            "{{\"QMP\": {{\"version\": {{\"qemu\": {{\"micro\": 0, \"minor\": 0, \"major\": 10}}, \
             \"package\": \"ringvisor-{}\"}}, \"capabilities\": [\"oob\"]}}}}",
            env!("CARGO_PKG_VERSION")
        )
    );
}

#[test]
fn nothing_but_the_negotiation_is_accepted_before_it() {
    stage(|stage| {
        let mut client = stage.connect();
        client.line();
        let expecting = "Expecting capabilities negotiation with 'qmp_capabilities'";
        for command in ["query-status", "stop", "no-such-command"] {
            let error = client.error(&json!({"execute": command}));
            assert_eq!(error, (NOT_FOUND.into(), expecting.into()));
        }
        let error = client.error(&json!({"exec-oob": "query-reactors"}));
        assert_eq!(error.1, "QMP input member 'exec-oob' is unexpected");
        assert_eq!(client.run("qmp_capabilities"), json!({}));
        assert_eq!(client.run("query-status"), json!({"status": "running", "running": true}));
    });
}

#[test]
fn the_negotiation_happens_once() {
    stage(|stage| {
        let mut client = stage.client();
        let error = client.error(&json!({"execute": "qmp_capabilities"}));
        let done = "Capabilities negotiation is already complete, command ignored";
        assert_eq!(error, (NOT_FOUND.into(), done.into()));
    });
}

#[test]
fn a_failed_negotiation_leaves_the_session_in_it() {
    stage(|stage| {
        let mut client = stage.connect();
        client.line();
        let wrong = [
            (json!({"enable": "oob"}), "Invalid parameter type for 'enable', expected: array"),
            (json!({"enable": [3]}), "Invalid parameter type for 'enable[0]', expected: string"),
            (json!({"enable": ["x"]}), "Parameter 'enable[0]' does not accept value 'x'"),
            (json!({"foo": 1}), "Parameter 'foo' is unexpected"),
        ];
        for (arguments, text) in wrong {
            let request = json!({"execute": "qmp_capabilities", "arguments": arguments});
            assert_eq!(client.error(&request).1, text);
        }
        assert_eq!(client.error(&json!({"execute": "query-status"})).0, NOT_FOUND);
    });
}

#[test]
fn out_of_band_is_for_those_who_asked_for_it() {
    stage(|stage| {
        let mut without = stage.connect();
        without.line();
        without.run("qmp_capabilities");
        let error = without.error(&json!({"exec-oob": "x-where-oob"}));
        assert_eq!(error.1, "QMP input member 'exec-oob' is unexpected");

        let mut with = stage.client();
        assert_eq!(with.oob("x-where-oob"), json!("monitor"));
        let error = with.error(&json!({"exec-oob": "query-status", "id": 1}));
        assert_eq!(error.1, "The command query-status does not support OOB");
        assert_eq!(with.error(&json!({"exec-oob": "none"})).0, NOT_FOUND);
    });
}

#[test]
fn requests_sent_along_with_the_negotiation_see_its_result() {
    stage(|stage| {
        let mut client = stage.connect();
        client.send(
            "{'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob']}}\
             {'exec-oob': 'x-where-oob'} {'execute': 'x-where'}",
        );
        client.line();
        assert_eq!(client.message(), json!({"return": {}}));
        assert_eq!(client.message(), json!({"return": "monitor"}));
        assert_eq!(client.message(), json!({"return": "iohandler"}));
    });
}

#[test]
fn a_session_survives_bad_input() {
    stage(|stage| {
        let mut client = stage.client();
        client.send(b"{\"execute\": \"query-st\xff");
        assert_eq!(
            client.line(),
            r#"{"error": {"class": "GenericError", "desc": "JSON parse error, stray '\"query-st\uFFFD'"}}"#
        );
        client.send("\n[]{\"id\": 7}");
        assert_eq!(
            client.line(),
            r#"{"error": {"class": "GenericError", "desc": "QMP input must be a JSON object"}}"#
        );
        assert_eq!(
            client.line(),
            r#"{"id": 7, "error": {"class": "GenericError", "desc": "QMP input lacks member 'execute'"}}"#
        );
        client.send("[".repeat(2000));
        assert!(client.line().contains("JSON nesting depth limit exceeded"));
        client.send("\u{1}\n");
        client.line();
        assert_eq!(client.run("x-where"), json!("iohandler"));
    });
}

#[test]
fn a_request_may_come_byte_by_byte() {
    stage(|stage| {
        let mut client = stage.client();
        for byte in br#"{"execute": "query-name", "id": [1, "two"]}"# {
            client.send([*byte]);
        }
        assert_eq!(client.message(), json!({"return": {"name": "fake"}, "id": [1, "two"]}));
    });
}
