//! What holds for a session of any bytes, from the reader to the reply.
//!
//! Fuzzed by `fuzz_targets/session.rs`; with the corpus, and with mutations of it, also a part of the
//! tests of `monitor`, which need no nightly toolchain.

use monitor::dispatch::{BadRequest, Request, kind, qmp_dispatch, qmp_dispatch_co, refuse};
use monitor::registry::{Command, Kind, Registry, Value};
use monitor::wire::{Limits, Reader, Style};
use monitor::{QmpError, qapi_enum, qapi_struct, qapi_union};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

qapi_enum! {
    /// A choice.
    pub enum Shape {
        /// One member.
        Round = "round",
        /// Two members.
        Oblong = "oblong",
    }
}

qapi_struct! {
    /// A circle.
    pub struct Round {
        /// In pixels.
        pub radius: u64 = "radius",
    }
}

qapi_struct! {
    /// A rectangle.
    pub struct Oblong {
        /// In pixels.
        pub width: i64 = "width",
        /// As wide as it is high, when absent.
        pub height: Option<f64> = "height",
    }
}

qapi_union! {
    /// Members that depend on another one.
    pub enum Figure by Shape = "shape" {
        Round(Round),
        Oblong(Oblong),
    }
}

qapi_struct! {
    /// Members of every type.
    pub struct Sample {
        /// A string.
        pub name: String = "name",
        /// A switch.
        pub on: bool = "on",
        /// A list of words.
        pub shapes: Vec<Shape> = "shapes",
        /// A list of objects.
        pub figures: Option<Vec<Figure>> = "figures",
        /// Anything.
        pub extra: Option<Value> = "extra",
    }
}

/// Commands of every kind, with every type of argument.
fn registry() -> Registry<()> {
    let mut registry = Registry::new();
    registry.add(Command::plain("echo", "Gives it back.", |(), sample: Sample| Ok(sample)));
    registry.add(Command::plain("draw", "Gives it back.", |(), figure: Figure| Ok(figure)));
    registry.add(Command::plain("peek", "One.", |(), (): ()| Ok(1_i64)).allow_oob());
    registry.add(Command::plain("stop", "Fails.", |(), (): ()| {
        Err::<(), _>(QmpError::generic("\u{7f} \"no\" \u{1f600}"))
    }));
    registry.add(Command::coroutine("wait", "Waits.", |(): (), oblong: Oblong| {
        let mut waits = oblong.width.clamp(0, 3);
        std::future::poll_fn(move |context| {
            if waits == 0 {
                return Poll::Ready(Ok(oblong.clone()));
            }
            waits -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }));
    registry
}

/// Checks all that holds for `session`.
///
/// # Panics
/// When something does not hold.
pub fn check(session: &[u8]) {
    let whole = read(Limits::default(), session, session.len());
    for bytes in [1, 7] {
        assert_eq!(read(Limits::default(), session, bytes), whole, "in pieces of {bytes}");
    }
    let small = Limits { text_bytes_max: 64, tokens_max: 16, depth_max: 4 };
    for limits in [Limits::default(), small] {
        let behind = [session, b"\xff\n{\"execute\": \"peek\"}"].concat();
        let last = read(limits, &behind, behind.len()).pop();
        assert!(last.is_some_and(|last| last.is_ok()), "0xff makes a new beginning");
    }
    let registry = registry();
    for message in whole {
        for oob in [false, true] {
            answer(&registry, message.clone(), oob);
        }
    }
}

/// Everything the reader gives for the session in pieces of so many bytes.
fn read(limits: Limits, session: &[u8], bytes: usize) -> Vec<Result<Value, String>> {
    let mut reader = Reader::new(limits);
    let mut messages = Vec::new();
    for mut piece in session.chunks(bytes.max(1)) {
        while let Some(message) = reader.next(&mut piece) {
            messages.push(message.map_err(|error| error.to_string()));
        }
        assert!(piece.is_empty(), "the reader left {piece:?}");
    }
    messages
}

/// Gives a message to the dispatcher and judges the reply.
fn answer(registry: &Registry<()>, message: Result<Value, String>, oob: bool) {
    let asked = message.as_ref().ok().and_then(Value::as_object);
    let id = asked.and_then(|members| members.get("id")).cloned();
    let request = match message {
        Ok(value) => Request::parse(value, oob),
        Err(text) => Err(BadRequest::from(QmpError::generic(text))),
    };
    let reply = reply(registry, request.clone(), Style::Line);
    assert_eq!(reply, self::reply(registry, request.clone(), Style::Pretty), "both layouts agree");
    assert_eq!(reply.get("id"), id.as_ref(), "the id comes back");
    assert!(reply.get("return").is_some() != reply.get("error").is_some(), "{reply}");
    if let Some(error) = reply.get("error") {
        assert!(error["desc"].is_string() && error["class"].is_string(), "{reply}");
    } else if let Ok(request) = request
        && let Some(Value::Object(arguments)) = reply.get("return")
        && !arguments.is_empty()
    {
        // What a command gives back of its arguments is right as arguments.
        let again = Request { arguments: arguments.clone(), ..request };
        assert_eq!(self::reply(registry, Ok(again), Style::Line), reply);
    }
}

/// The reply, which is one whole message.
fn reply(registry: &Registry<()>, request: Result<Request, BadRequest>, style: Style) -> Value {
    let bytes = match request {
        Err(bad) => refuse(bad, style),
        // Out of band a command that may wait is refused.
        Ok(request) if request.oob || kind(registry, &request) == Kind::Plain => {
            qmp_dispatch(registry, &(), request, style)
        }
        Ok(request) => finish(qmp_dispatch_co(registry, &(), request, style)),
    };
    assert!(bytes.is_ascii() && bytes.ends_with(b"\r\n"));
    assert!(style == Style::Pretty || !bytes[..bytes.len() - 2].contains(&b'\n'));
    let mut replies = read(Limits::default(), &bytes, bytes.len());
    match (replies.pop(), replies.pop()) {
        (Some(Ok(reply)), None) => reply,
        other => panic!("{other:?} instead of one reply"),
    }
}

/// What becomes of a command that only waits for itself.
fn finish<T>(command: impl Future<Output = T>) -> T {
    let mut command = pin!(command);
    loop {
        if let Poll::Ready(value) = command.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}
