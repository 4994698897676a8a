use super::{BadRequest, Environment, Request, kind, qmp_dispatch, qmp_dispatch_co, refuse};
use crate::error::{ErrorClass, QmpError};
use crate::qapi_struct;
use crate::registry::{Command, Kind, Registry};
use crate::wire::Style;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

qapi_struct! {
    /// What to say.
    pub struct Say {
        /// The text.
        pub text: String = "text",
        /// Times.
        pub times: Option<i64> = "times",
    }
}

#[derive(Clone, Default)]
struct Env {
    calls: Arc<AtomicUsize>,
    closed: bool,
}

impl Environment for Env {
    fn admit(&self, name: &str, _: Option<&Command<Self>>) -> Result<(), QmpError> {
        if self.closed && name != "peek" {
            return Err(QmpError::new(ErrorClass::CommandNotFound, "closed"));
        }
        Ok(())
    }
}

fn registry() -> Registry<Env> {
    let mut registry = Registry::new();
    registry.add(Command::plain("say", "Says.", |env: &Env, say: Say| {
        env.calls.fetch_add(1, Ordering::Relaxed);
        Ok(vec![say.text; usize::try_from(say.times.unwrap_or(1)).unwrap()])
    }));
    registry.add(Command::plain("peek", "Peeks.", |_: &Env, (): ()| Ok(())).allow_oob());
    registry.add(Command::coroutine("wait", "Waits.", |env: Env, say: Say| async move {
        env.calls.fetch_add(1, Ordering::Relaxed);
        if say.text.is_empty() {
            return Err(QmpError::new(ErrorClass::DeviceNotFound, "Nothing to say"));
        }
        Ok(say)
    }));
    registry
}

fn request(text: &str) -> Request {
    Request::parse(serde_json::from_str(text).unwrap(), true).unwrap()
}

fn bad(message: Value, oob: bool) -> BadRequest {
    Request::parse(message, oob).unwrap_err()
}

fn run(text: &str) -> String {
    let reply = qmp_dispatch(&registry(), &Env::default(), request(text), Style::Line);
    String::from_utf8(reply).unwrap()
}

fn run_co(text: &str) -> String {
    let (registry, env) = (registry(), Env::default());
    let mut future = std::pin::pin!(qmp_dispatch_co(&registry, &env, request(text), Style::Line));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(reply) => String::from_utf8(reply).unwrap(),
        std::task::Poll::Pending => panic!("this handler does not wait"),
    }
}

#[test]
fn envelopes_are_taken_apart() {
    let parsed = request(r#"{"execute": "a", "arguments": {"b": 1}, "id": [2]}"#);
    assert_eq!((parsed.command.as_str(), parsed.oob), ("a", false));
    assert_eq!(parsed.arguments.get("b"), Some(&json!(1)));
    assert_eq!(parsed.id, Some(json!([2])));
    assert!(request(r#"{"exec-oob": "a"}"#).oob);
}

#[test]
fn bad_envelopes_are_refused_with_the_texts_of_qemu() {
    let cases = [
        (json!([]), "QMP input must be a JSON object"),
        (json!({}), "QMP input lacks member 'execute'"),
        (json!({"arguments": {}}), "QMP input lacks member 'execute'"),
        (json!({"execute": 1}), "QMP input member 'execute' must be a string"),
        (json!({"exec-oob": 1}), "QMP input member 'exec-oob' must be a string"),
        (json!({"execute": "a", "foo": 1}), "QMP input member 'foo' is unexpected"),
        (json!({"execute": "a", "arguments": 1}), "QMP input member 'arguments' must be an object"),
        (
            json!({"execute": "a", "arguments": null}),
            "QMP input member 'arguments' must be an object",
        ),
        (
            json!({"exec-oob": "a", "execute": "b"}),
            "QMP input member 'execute' clashes with 'exec-oob'",
        ),
    ];
    for (message, text) in cases {
        let refused = bad(message, true);
        assert_eq!(refused.error.desc(), text);
        assert_eq!(refused.error.class(), ErrorClass::GenericError);
    }
    let refused = bad(json!({"exec-oob": "a", "id": 7}), false);
    assert_eq!(refused.error.desc(), "QMP input member 'exec-oob' is unexpected");
    assert_eq!(refused.id, Some(json!(7)));
}

#[test]
fn replies_echo_the_id_where_qemu_does() {
    assert_eq!(
        run(r#"{"execute": "say", "arguments": {"text": "a", "times": 2}, "id": {"n": 1}}"#),
        "{\"return\": [\"a\", \"a\"], \"id\": {\"n\": 1}}\r\n"
    );
    assert_eq!(
        run(r#"{"execute": "none", "id": "x"}"#),
        "{\"id\": \"x\", \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command none has not been found\"}}\r\n"
    );
    assert_eq!(run(r#"{"execute": "peek"}"#), "{\"return\": {}}\r\n");
    let refused = String::from_utf8(refuse(bad(json!({"id": 1}), false), Style::Line)).unwrap();
    assert_eq!(
        refused,
        "{\"id\": 1, \"error\": {\"class\": \"GenericError\", \"desc\": \"QMP input lacks member 'execute'\"}}\r\n"
    );
}

#[test]
fn out_of_band_is_for_commands_that_allow_it() {
    assert_eq!(run(r#"{"exec-oob": "peek"}"#), "{\"return\": {}}\r\n");
    assert!(run(r#"{"exec-oob": "say"}"#).contains("The command say does not support OOB"));
    assert!(run_co(r#"{"exec-oob": "wait"}"#).contains("The command wait does not support OOB"));
}

#[test]
fn coroutines_run_to_their_reply() {
    assert_eq!(
        run_co(r#"{"execute": "wait", "arguments": {"text": "a"}, "id": 1}"#),
        "{\"return\": {\"text\": \"a\"}, \"id\": 1}\r\n"
    );
    assert_eq!(
        run_co(r#"{"execute": "wait", "arguments": {"text": ""}}"#),
        "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Nothing to say\"}}\r\n"
    );
    assert!(run_co(r#"{"execute": "wait"}"#).contains("Parameter 'text' is missing"));
}

#[test]
fn a_refusal_of_the_environment_comes_before_everything() {
    let env = Env { closed: true, ..Env::default() };
    for name in ["say", "none", "wait"] {
        let request = request(&format!(r#"{{"execute": "{name}"}}"#));
        if kind(&registry(), &request) == Kind::Plain {
            let reply = qmp_dispatch(&registry(), &env, request, Style::Line);
            assert!(String::from_utf8(reply).unwrap().contains("\"closed\""), "{name}");
        }
    }
    assert_eq!(env.calls.load(Ordering::Relaxed), 0);
}

#[test]
fn arguments_are_checked_before_the_handler_runs() {
    let env = Env::default();
    for arguments in [r#"{"text": 1}"#, r#"{"text": "a", "tmes": 2}"#, r#"{"times": 2}"#] {
        let request = request(&format!(r#"{{"execute": "say", "arguments": {arguments}}}"#));
        qmp_dispatch(&registry(), &env, request, Style::Line);
    }
    assert_eq!(env.calls.load(Ordering::Relaxed), 0);
}

#[test]
#[should_panic(expected = "the coroutine command 'wait' was called outside of a coroutine")]
fn a_coroutine_command_outside_of_a_coroutine_is_a_mistake() {
    run(r#"{"execute": "wait", "arguments": {"text": "a"}}"#);
}

#[test]
#[should_panic(expected = "the plain command 'say' was called in a coroutine")]
fn a_plain_command_inside_of_a_coroutine_is_a_mistake() {
    run_co(r#"{"execute": "say", "arguments": {"text": "a"}}"#);
}
