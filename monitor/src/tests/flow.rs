//! Clients that do not read, that vanish, that come in crowds.

use super::client::Client;
use super::stage::stage;
use crate::event::Stop;
use serde_json::json;
use std::io::{ErrorKind, Read, Write};

/// Sends requests until the monitor reads no more; gives how many bytes that took.
fn stuff(client: &mut Client, request: &str) -> usize {
    client.stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut quiet = 0;
    while quiet < 200 {
        match client.stream.write(&request.as_bytes()[sent % request.len()..]) {
            Ok(n) => {
                sent += n;
                quiet = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                quiet += 1;
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    client.stream.set_nonblocking(false).unwrap();
    sent
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_costs_bounded_memory() {
    stage(|stage| {
        let mut deaf = stage.client();
        let request = json!({"execute": "x-fill", "arguments": {"bytes": 100_000}}).to_string();
        let sent = stuff(&mut deaf, &request);
        let mut other = stage.client();
        for _ in 0..100 {
            assert_eq!(other.run("x-where"), json!("iohandler"));
        }
        for _ in 0..20_000 {
            stage.events.emit(&Stop {});
            // Keeps the events from being dropped on their way, not at the session.
            assert_eq!(other.message()["event"], json!("STOP"));
        }
        let outboxes: Vec<_> = stage.core.hub.sessions().iter().map(|s| s.waiting()).collect();
        let unsent = outboxes.iter().map(|(unsent, _)| *unsent).max().unwrap();
        let dropped: u64 = outboxes.iter().map(|(_, dropped)| *dropped).sum();
        assert!(unsent < 2 << 20, "{unsent} bytes are kept for a client that does not read");
        assert!(dropped > 0, "no event was dropped");

        // It begins to read: every request that was sent as a whole is answered.
        let (mut replies, mut events) = (0, 0);
        while replies < sent / request.len() {
            match deaf.message().get("return") {
                Some(text) => {
                    assert_eq!(text.as_str().unwrap().len(), 100_000);
                    replies += 1;
                }
                None => events += 1,
            }
        }
        assert!(events as u64 + dropped >= 20_000);
    });
}

#[test]
fn a_disconnect_drops_what_waits_and_lets_the_running_command_finish() {
    stage(|stage| {
        let entered = stage.gate.watch();
        let mut client = stage.client();
        client.send(json!({"execute": "x-wait"}).to_string());
        entered.recv().unwrap();
        for _ in 0..5 {
            client.send(json!({"execute": "x-turn"}).to_string());
        }
        client.oob("x-where-oob");
        drop(client);
        let mut other = stage.client();
        // The session is gone once the monitor has seen the end of its socket.
        while stage.sessions() > 1 {
            other.oob("x-where-oob");
        }
        stage.gate.open();
        assert_eq!(other.run("x-where-co"), json!("main"));
        assert_eq!(other.run("x-turn"), json!(0), "a cancelled request has run");
    });
}

#[test]
fn a_disconnect_is_seen_while_reading_is_suspended() {
    stage(|stage| {
        let entered = stage.gate.watch();
        let mut client = stage.client();
        client.send(json!({"execute": "x-wait"}).to_string());
        entered.recv().unwrap();
        stuff(&mut client, &json!({"execute": "x-turn"}).to_string());
        drop(client);
        let mut other = stage.client();
        while stage.sessions() > 1 {
            other.oob("x-where-oob");
        }
        stage.gate.open();
        assert_eq!(other.run("x-where-co"), json!("main"));
        assert_eq!(other.run("x-turn"), json!(0), "a cancelled request has run");
    });
}

#[test]
fn eight_requests_wait_at_most() {
    stage(|stage| {
        let entered = stage.gate.watch();
        let mut client = stage.client();
        client.send(json!({"execute": "x-wait", "id": "w"}).to_string());
        entered.recv().unwrap();
        for id in 0..8 {
            client.send(json!({"execute": "x-turn", "id": id}).to_string());
        }
        // Reading is suspended now, for out-of-band commands as well.
        client.send(json!({"exec-oob": "x-where-oob", "id": "oob"}).to_string());
        let mut other = stage.client();
        assert_eq!(other.run("x-turn"), json!(0));
        client.stream.set_nonblocking(true).unwrap();
        let answered = client.stream.read(&mut [0; 64]).unwrap_err();
        assert_eq!(answered.kind(), ErrorKind::WouldBlock);
        client.stream.set_nonblocking(false).unwrap();
        stage.gate.open();
        assert_eq!(client.message()["id"], json!("w"));
        let ids: Vec<_> = (0..9).map(|_| client.message()["id"].clone()).collect();
        assert_eq!(ids[0], json!(0), "{ids:?}");
        assert!(ids.contains(&json!("oob")) && ids.contains(&json!(7)));
    });
}

#[test]
fn who_closes_one_direction_still_gets_the_answers() {
    stage(|stage| {
        let mut client = stage.connect();
        client.send(
            "{'execute': 'qmp_capabilities'}{'execute': 'x-where'}{'execute': 'x-where-co'}\
             {'execute': 'x-fill', 'arguments': {'bytes': 1000000}}{'execute': 'x-turn', 'id': 9}",
        );
        let rest = client.finish();
        let lines: Vec<_> = rest.lines().collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[3], r#"{"return": "main"}"#);
        assert!(lines[4].len() > 1_000_000);
        assert_eq!(lines[5], r#"{"return": 0, "id": 9}"#);
    });
}

#[test]
fn many_clients_are_served_at_once() {
    stage(|stage| {
        std::thread::scope(|scope| {
            for n in 0..16 {
                scope.spawn(move || {
                    let mut client = stage.client();
                    for k in 0..200 {
                        let command = ["x-where", "x-where-co", "query-status"][(n + k) % 3];
                        let reply = client.ask(&json!({"execute": command, "id": [n, k]}));
                        assert_eq!(reply["id"], json!([n, k]));
                        assert!(reply.get("return").is_some());
                    }
                });
            }
        });
        let mut idle: Vec<_> = (0..200).map(|_| stage.client()).collect();
        assert_eq!(idle[123].run("x-where"), json!("iohandler"));
    });
}

#[test]
fn large_requests_and_replies_pass_whole() {
    stage(|stage| {
        let mut client = stage.client();
        let long = "é".repeat(500_000);
        let reply = client.ask(&json!({"execute": "query-name", "id": long}));
        assert_eq!(reply["id"], json!(long));
        let bytes = 5_000_000;
        let reply = client.ask(&json!({"execute": "x-fill", "arguments": {"bytes": bytes}}));
        assert_eq!(reply["return"].as_str().unwrap().len(), bytes);
        let error = client.error(&json!({"execute": "x-where", "id": "y".repeat(5 << 20)}));
        assert_eq!(error.1, "JSON token size limit exceeded");
    });
}
