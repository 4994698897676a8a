//! Sessions of mutated requests: whatever comes, the monitor answers, and goes on.
//!
//! The same corpus through the reader and dispatcher alone, where a failing case shrinks, and over
//! a socket, where every context takes part.

use super::stage::{Stage, stage};
use crate::QmpError;
use crate::dispatch::{BadRequest, Request, kind, qmp_dispatch, refuse};
use crate::registry::{Command, Kind, Registry};
use crate::wire::{Reader, Style};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Requests that are right, or nearly.
const SEEDS: &[&str] = &[
    r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#,
    r#"{"execute": "query-status", "id": 1}"#,
    "{'execute': 'query-version', 'id': {'a': [1, 2.5, null]}}",
    r#"{"exec-oob": "query-monitors", "id": "x"}"#,
    r#"{"execute": "query-qmp-schema"}"#,
    r#"{"execute": "set-action", "arguments": {"panic": "pause", "reboot": "reset"}}"#,
    r#"{"execute": "human-monitor-command", "arguments": {"command-line": "info status"}}"#,
    r#"{"execute": "human-monitor-command", "arguments": {"command-line": "xp /4xw (1+2)*3"}}"#,
    r#"{"execute": "add-fd", "arguments": {"fdset-id": 1, "opaque": "\u00e9\ud834\udd1e"}}"#,
    r#"{"execute": "remove-fd", "arguments": {"fdset-id": -1}}"#,
    r#"{"execute": "stop"}{"execute": "cont"}"#,
    "[1, 2, {\"a\": \"\\\"\"}] \"text\" true null -0.5e3",
    "\u{ff}{]",
];

/// A session of seeds, each with a few bytes changed, cut out, doubled or put in.
fn session() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(br#"{}[]:,"'\ 0eE-.u"#.to_vec())];
    let mutation = (any::<prop::sample::Index>(), 0u8..5, byte);
    let seed = (prop::sample::select(SEEDS), prop::collection::vec(mutation, 0..4));
    prop::collection::vec(seed, 1..8).prop_map(|seeds| {
        let mut session = Vec::new();
        for (seed, mutations) in seeds {
            let mut bytes = seed.as_bytes().to_vec();
            for (index, how, byte) in mutations {
                mutate(&mut bytes, index, how, byte);
            }
            session.extend(bytes);
        }
        session
    })
}

fn mutate(bytes: &mut Vec<u8>, index: prop::sample::Index, how: u8, byte: u8) {
    let at = index.index(bytes.len() + 1);
    match how {
        0 if at < bytes.len() => bytes[at] = byte,
        1 if at < bytes.len() => drop(bytes.remove(at)),
        2 => bytes.truncate(at),
        3 => bytes.extend_from_within(..at),
        _ => bytes.insert(at, byte),
    }
}

/// Plain commands of every shape of argument, for the dispatcher alone.
fn registry() -> Registry<()> {
    let mut registry = Registry::new();
    registry.add(Command::plain("query-status", "", |(), (): ()| Ok(1_i64)).allow_oob());
    registry.add(Command::plain("set-action", "", |(), _: crate::SetAction| Ok(())));
    registry.add(Command::plain("stop", "", |(), (): ()| Err::<(), _>(QmpError::generic("no"))));
    registry
}

proptest! {
    #[test]
    fn the_dispatcher_answers_each_message_with_one_object(session in session()) {
        let registry = registry();
        let mut reader = Reader::default();
        let mut input = session.as_slice();
        while let Some(message) = reader.next(&mut input) {
            let request = match message {
                Ok(value) => Request::parse(value, true),
                Err(error) => Err(BadRequest::from(QmpError::generic(error.to_string()))),
            };
            let reply = match request {
                Ok(request) => {
                    prop_assert_eq!(kind(&registry, &request), Kind::Plain);
                    qmp_dispatch(&registry, &(), request, Style::Line)
                }
                Err(bad) => refuse(bad, Style::Line),
            };
            prop_assert!(reply.ends_with(b"\r\n"));
            let reply: Value = serde_json::from_slice(&reply).unwrap();
            prop_assert!(reply.get("return").is_some() != reply.get("error").is_some());
        }
        prop_assert!(input.is_empty());
    }

    #[test]
    fn any_line_of_hmp_completes_and_edits(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        crate::hmp::edit_any(&bytes);
    }
}

/// One session over a socket: everything sent, then all that comes back.
fn over_a_socket(stage: &Stage, session: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(&stage.path).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The server may close first: never on such input, which the replies show.
            let _ = writer.write_all(session);
            let _ = writer.shutdown(std::net::Shutdown::Write);
        });
        let mut replies = Vec::new();
        stream.read_to_end(&mut replies).unwrap();
        replies
    })
}

#[test]
fn mutated_sessions_are_answered_and_leave_nothing_behind() {
    stage(|stage| {
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 150, ..ProptestConfig::default() });
        let result = runner.run(&session(), |session| {
            let replies = over_a_socket(stage, &session);
            let text = String::from_utf8(replies).unwrap();
            prop_assert!(text.starts_with("{\"QMP\""), "{text}");
            prop_assert!(text.ends_with("\r\n"), "{text}");
            for line in text.lines() {
                prop_assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
            }
            Ok(())
        });
        result.unwrap();
        let mut client = stage.client();
        assert_eq!(client.run("query-name"), json!({"name": "fake"}));
        assert_eq!(client.run("query-monitors").as_array().unwrap().len(), 1);
    });
}
