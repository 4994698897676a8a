//! Sessions of mutated requests over a socket, where every context takes part: whatever comes, the
//! monitor answers, and goes on. Reader and dispatcher alone: tests/fuzz.rs.

#[path = "../../tests/sessions/mod.rs"]
mod sessions;

use super::stage::{Stage, stage};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

proptest! {
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

fn judge(replies: Vec<u8>) -> Result<(), TestCaseError> {
    let text = String::from_utf8(replies).unwrap();
    prop_assert!(text.starts_with("{\"QMP\""), "{text}");
    prop_assert!(text.ends_with("\r\n"), "{text}");
    for line in text.lines() {
        prop_assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    Ok(())
}

#[test]
fn mutated_sessions_are_answered_and_leave_nothing_behind() {
    stage(|stage| {
        for session in sessions::corpus() {
            judge(over_a_socket(stage, &session)).unwrap();
        }
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 150, ..ProptestConfig::default() });
        let result =
            runner.run(&sessions::mutated(), |session| judge(over_a_socket(stage, &session)));
        result.unwrap();
        let mut client = stage.client();
        assert_eq!(client.run("query-name"), json!({"name": "fake"}));
        assert_eq!(client.run("query-monitors").as_array().unwrap().len(), 1);
    });
}
