//! Events.

use super::client::Client;
use super::stage::{Stage, stage};
use crate::event::{Event, Powerdown, Stop};
use crate::machine::RunState;
use crate::wire::Style;
use crate::{Endpoint, qapi_struct};
use devices::chardev::Address;
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn the_event_of_a_command_comes_before_its_reply() {
    stage(|stage| {
        let mut client = stage.client();
        for _ in 0..200 {
            client.send(json!({"execute": "stop"}).to_string());
            assert_eq!(client.message()["event"], json!("STOP"));
            assert_eq!(client.message(), json!({"return": {}}));
            client.send(json!({"execute": "cont"}).to_string());
            assert_eq!(client.message()["event"], json!("RESUME"));
            assert_eq!(client.message(), json!({"return": {}}));
        }
        // Nothing has changed, so there is no event.
        assert_eq!(client.run("cont"), json!({}));
    });
}

#[test]
fn run_state_commands_do_what_those_of_qemu_do() {
    stage(|stage| {
        let mut client = stage.client();
        let mut run = |command: &str| {
            client.send(json!({"execute": command}).to_string());
            let event = client.message();
            assert_eq!(client.message(), json!({"return": {}}));
            event
        };
        let reset = run("system_reset");
        assert_eq!(reset["event"], json!("RESET"));
        assert_eq!(reset["data"], json!({"guest": false, "reason": "host-qmp-system-reset"}));
        assert!(reset["timestamp"]["seconds"].as_u64().unwrap() > 1_600_000_000);
        assert_eq!(run("system_powerdown")["event"], json!("POWERDOWN"));
        let shutdown = run("quit");
        assert_eq!(shutdown["event"], json!("SHUTDOWN"));
        assert_eq!(shutdown["data"], json!({"guest": false, "reason": "host-qmp-quit"}));
        assert_eq!(*stage.machine.quits.lock().unwrap(), 1);
    });
}

#[test]
fn cont_is_refused_where_only_a_reset_helps() {
    stage(|stage| {
        let mut client = stage.client();
        stage.machine.set(RunState::InternalError);
        let status = client.run("query-status");
        assert_eq!(status, json!({"status": "internal-error", "running": false}));
        let error = client.error(&json!({"execute": "cont"}));
        assert_eq!(error.1, "Resetting the Virtual Machine is required");
    });
}

#[test]
fn events_go_to_every_negotiated_session_and_to_no_other() {
    stage(|stage| {
        let mut clients = [stage.client(), stage.client(), stage.client()];
        let mut silent = stage.connect();
        silent.line();
        stage.events.emit(&Powerdown {});
        for client in &mut clients {
            assert_eq!(client.message()["event"], json!("POWERDOWN"));
        }
        assert_eq!(silent.run("qmp_capabilities"), json!({}));
        assert_eq!(silent.run("query-name"), json!({"name": "fake"}));
    });
}

#[test]
fn events_of_one_thread_keep_their_order() {
    stage(|stage| {
        let mut client = stage.client();
        for _ in 0..100 {
            stage.events.emit(&Stop {});
            stage.events.emit(&Powerdown {});
        }
        for _ in 0..100 {
            assert_eq!(client.message()["event"], json!("STOP"));
            assert_eq!(client.message()["event"], json!("POWERDOWN"));
        }
    });
}

#[test]
fn a_flood_of_events_is_bounded() {
    stage(|stage| {
        let mut client = stage.client();
        let blocked = Stage::block(stage.reactors.monitor());
        for _ in 0..5000 {
            stage.events.emit(&Stop {});
        }
        drop(blocked);
        // What was not dropped arrives, and the session goes on.
        client.send(json!({"execute": "query-name"}).to_string());
        let mut events = 0;
        while client.message().get("event").is_some() {
            events += 1;
        }
        assert_eq!(events, 1024);
    });
}

qapi_struct! {
    /// The guest has set its clock.
    pub struct RtcChange {
        /// By so many seconds.
        pub offset: i64 = "offset",
    }
}

impl Event for RtcChange {
    const NAME: &'static str = "RTC_CHANGE";
}

#[test]
fn events_of_guests_come_once_a_second_and_the_last_one_counts() {
    stage(|stage| {
        let mut client = stage.client();
        let start = Instant::now();
        for offset in 0..100 {
            stage.events.emit(&RtcChange { offset });
        }
        assert_eq!(client.message()["data"]["offset"], json!(0));
        // Others are not held up.
        stage.events.emit(&Stop {});
        assert_eq!(client.message()["event"], json!("STOP"));
        assert_eq!(client.message()["data"]["offset"], json!(99));
        assert!(start.elapsed() >= Duration::from_secs(1));
    });
}

#[test]
fn pretty_sessions_get_everything_pretty() {
    stage(|stage| {
        let endpoint = Endpoint::unix(stage.path.with_file_name("pretty"));
        let address = stage.monitor.listen_qmp(&endpoint, Style::Pretty).unwrap();
        let Address::Unix(path) = address else { panic!("{address}") };
        let mut client = Client::connect(&path);
        let mut next = |request: &str| {
            client.send(request);
            let mut lines = vec![client.line()];
            while lines.last().is_some_and(|line| line != "}") {
                lines.push(client.line());
            }
            lines
        };
        assert_eq!(next("")[..2], ["{", "    \"QMP\": {"]);
        let empty = ["{", "    \"return\": {", "    }", "}"];
        assert_eq!(next("{'execute': 'qmp_capabilities'}"), empty);
        let named = ["{", "    \"return\": {", "        \"name\": \"fake\"", "    }", "}"];
        assert_eq!(next("{'execute': 'query-name'}"), named);
        stage.events.emit(&Stop {});
        let event = next("");
        assert_eq!(event[1], "    \"timestamp\": {");
        assert_eq!(event[5], "    \"event\": \"STOP\"");
    });
}
