//! Which context runs what: the rules of the monitor's design, line by line.

use super::human::hmp;
use super::stage::{Stage, stage};
use crate::Echo;
use reactor::io;
use serde_json::json;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

/// A test that would hang fails.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn each_kind_of_command_runs_in_its_context() {
    stage(|stage| {
        let mut client = stage.client();
        assert_eq!(client.run("x-where"), json!("iohandler"));
        assert_eq!(client.run("x-where-co"), json!("main"));
        assert_eq!(client.oob("x-where-oob"), json!("monitor"));
    });
}

#[test]
fn out_of_band_commands_overtake_a_command_that_waits() {
    stage(|stage| {
        let entered = stage.gate.watch();
        let mut client = stage.client();
        client.send(json!({"execute": "x-wait", "id": "slow"}).to_string());
        entered.recv().unwrap();
        for _ in 0..3 {
            assert_eq!(client.oob("x-where-oob"), json!("monitor"));
        }
        stage.gate.open();
        assert_eq!(client.message(), json!({"return": "main", "id": "slow"}));
    });
}

#[test]
fn out_of_band_commands_are_answered_while_a_command_sleeps_for_five_seconds() {
    stage(|stage| {
        let entered = stage.gate.watch();
        let mut client = stage.client();
        client.send(json!({"execute": "x-sleep", "id": "slow"}).to_string());
        entered.recv_timeout(PATIENCE).unwrap();
        let slept = std::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(client.oob("x-where-oob"), json!("monitor"));
        }
        assert_eq!(client.message(), json!({"return": "main", "id": "slow"}));
        assert!(slept.elapsed() > Duration::from_secs(4));
    });
}

#[test]
fn out_of_band_and_plain_commands_go_on_while_main_is_busy() {
    stage(|stage| {
        let mut client = stage.client();
        let blocked = Stage::block(stage.reactors.main());
        assert_eq!(client.oob("x-where-oob"), json!("monitor"));
        assert_eq!(client.run("query-status")["running"], json!(true));
        client.send(json!({"execute": "x-where-co", "id": 1}).to_string());
        assert_eq!(client.oob("x-where-oob"), json!("monitor"));
        drop(blocked);
        assert_eq!(client.message(), json!({"return": "main", "id": 1}));
    });
}

#[test]
fn out_of_band_commands_go_on_while_iohandler_is_busy() {
    stage(|stage| {
        let mut client = stage.client();
        let blocked = Stage::block(stage.reactors.iohandler());
        client.send(json!({"execute": "x-where", "id": 1}).to_string());
        assert_eq!(client.oob("x-where-oob"), json!("monitor"));
        drop(blocked);
        assert_eq!(client.message(), json!({"return": "iohandler", "id": 1}));
    });
}

#[test]
fn a_waiting_command_holds_up_no_other_session_but_other_coroutines() {
    stage(|stage| {
        let entered = stage.gate.watch();
        let (mut slow, mut other) = (stage.client(), stage.client());
        slow.send(json!({"execute": "x-wait"}).to_string());
        entered.recv().unwrap();
        assert_eq!(other.run("query-status")["status"], json!("running"));
        // A second coroutine command waits for the first, and what follows it for it.
        other.send(json!({"execute": "x-where-co", "id": 1}).to_string());
        other.send(json!({"execute": "x-where", "id": 2}).to_string());
        let mut third = stage.client();
        assert_eq!(third.run("x-where"), json!("iohandler"));
        assert_eq!(other.oob("x-where-oob"), json!("monitor"));
        stage.gate.open();
        assert_eq!(slow.message(), json!({"return": "main"}));
        assert_eq!(other.message(), json!({"return": "main", "id": 1}));
        assert_eq!(other.message(), json!({"return": "iohandler", "id": 2}));
    });
}

#[test]
fn a_session_gets_its_replies_in_the_order_of_its_requests() {
    stage(|stage| {
        let mut client = stage.client();
        let mut text = String::new();
        for id in 0..60 {
            let command = ["x-where", "x-where-co", "none"][id % 3];
            text += &json!({"execute": command, "id": id}).to_string();
            if id % 10 == 5 {
                text += "[1 2]";
            }
        }
        client.send(text);
        for id in 0..60 {
            assert_eq!(client.message()["id"], json!(id));
            if id % 10 == 5 {
                let error = client.message();
                assert!(error["error"]["desc"].as_str().unwrap().contains("separator"));
            }
        }
    });
}

#[test]
fn sessions_take_turns() {
    stage(|stage| {
        let (mut first, mut second) = (stage.client(), stage.client());
        // Both queues are filled before the dispatcher looks at them.
        let blocked = Stage::block(stage.reactors.iohandler());
        for (n, client) in [&mut first, &mut second].into_iter().enumerate() {
            for k in 0..3 {
                client.send(json!({"execute": "x-turn", "id": [n, k]}).to_string());
            }
            // The queue is complete once an out-of-band command behind it has been answered.
            client.oob("x-where-oob");
        }
        drop(blocked);
        let mut turns = Vec::new();
        for client in [&mut first, &mut second] {
            for _ in 0..3 {
                let reply = client.message();
                turns.push((reply["return"].as_u64().unwrap(), reply["id"].clone()));
            }
        }
        turns.sort_by_key(|(turn, _)| *turn);
        let order: Vec<_> = turns.into_iter().map(|(_, id)| id).collect();
        assert_eq!(
            order,
            [
                json!([0, 0]),
                json!([1, 0]),
                json!([0, 1]),
                json!([1, 1]),
                json!([0, 2]),
                json!([1, 2])
            ]
        );
    });
}

/// Who drains main waits for the command, and main goes on meanwhile: the answer to the command's
/// request comes from a task of main. Where a drain stops main this is a deadlock.
#[test]
fn a_drain_in_main_ends_with_the_command_that_has_a_request_in_flight() {
    stage(|stage| {
        let entered = stage.gate.watch();
        let mut client = stage.client();
        client.send(json!({"execute": "x-receive", "id": 1}).to_string());
        entered.recv_timeout(PATIENCE).unwrap();
        assert!(stage.backend.token.in_flight() > 0);
        let (waits, waiting) = mpsc::channel();
        let (drained, ended) = mpsc::channel();
        let (main, backend) = (stage.reactors.main().clone(), Arc::clone(&stage.backend));
        let drain = stage.reactors.main().spawn("drain", async move {
            let mut drain = pin!(main.drain(&backend.token));
            let pending = poll_fn(|cx| Poll::Ready(drain.as_mut().poll(cx).is_pending())).await;
            waits.send(pending).unwrap();
            drain.await;
            drained.send(backend.seen.load(Ordering::SeqCst)).unwrap();
        });
        assert!(waiting.recv_timeout(PATIENCE).unwrap(), "the drain waits for the command");
        // Others are served while it does.
        let mut other = stage.client();
        assert_eq!(other.run("x-where"), json!("iohandler"));
        assert_eq!(client.oob("x-where-oob"), json!("monitor"));
        assert!(ended.try_recv().is_err());
        let backend = Arc::clone(&stage.backend);
        let answer = stage.reactors.main().spawn("answer", async move {
            io::send_all(&backend.far, b"answer".to_vec()).await.0.unwrap();
        });
        assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), 1, "the command saw the answer first");
        assert_eq!(client.message(), json!({"return": "main", "id": 1}));
        drain.detach();
        answer.detach();
    });
}

/// A nested loop in main would hold up what is behind it on the stack, and end its commands last
/// come, first served.
#[test]
fn a_command_of_the_human_monitor_that_waits_does_not_nest() {
    stage(|stage| {
        let entered = stage.gate.watch();
        *stage.machine.stops_at.lock().unwrap() = Some(Arc::clone(&stage.gate));
        let (output, outputs) = mpsc::channel();
        let typed = |name: &'static str, input: &'static [u8]| {
            let (mut session, output) = (stage.monitor.hmp_session(Echo::Off), output.clone());
            let typing = async move { output.send((name, session.input(input).await)).unwrap() };
            stage.reactors.iohandler().spawn(name, typing).detach();
        };
        typed("first", b"stop\n");
        entered.recv_timeout(PATIENCE).unwrap();
        typed("second", b"cont\n");
        let (ran, runs) = mpsc::channel();
        stage.reactors.main().schedule_bh(move || ran.send(()).unwrap());
        runs.recv_timeout(PATIENCE).expect("main goes on");
        let mut client = stage.client();
        assert_eq!(client.run("query-status")["status"], json!("running"));
        assert_eq!(client.oob("x-where-oob"), json!("monitor"));
        assert!(outputs.try_recv().is_err());
        stage.gate.open();
        let [first, second] = [(); 2].map(|()| outputs.recv_timeout(PATIENCE).unwrap());
        assert_eq!((first.0, second.0), ("first", "second"));
        assert!(second.1.starts_with(b"(ringvisor) "));
        // STOP and RESUME have come, and are skipped here.
        assert!(hmp(&mut client, "info status").starts_with("VM status: running"));
    });
}

/// The first of the bugs behind all this: a `device_add` that waits for callbacks, which wait for a
/// reader.
#[test]
fn a_device_add_that_waits_for_a_reader_holds_up_nobody() {
    stage(|stage| {
        stage.machine.add_bus(&stage.reactors);
        let (leave, left) = mpsc::channel::<()>();
        let (entered, entering) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let _guard = rcu::read();
            entered.send(()).unwrap();
            let _ = left.recv();
        });
        entering.recv_timeout(PATIENCE).unwrap();
        let (freed, frees) = mpsc::channel();
        stage.reactors.main().schedule_bh(move || rcu::call_rcu(move || freed.send(()).unwrap()));
        let (output, outputs) = mpsc::channel();
        let typed = |name: &'static str, input: &'static [u8]| {
            let (mut session, output) = (stage.monitor.hmp_session(Echo::Off), output.clone());
            let typing = async move { output.send((name, session.input(input).await)).unwrap() };
            stage.reactors.iohandler().spawn(name, typing).detach();
        };
        typed("adds", b"device_add nope\n");
        // Lines that only look, plain commands and those out of band are answered.
        typed("looks", b"info status\n");
        let (name, shown) = outputs.recv_timeout(PATIENCE).unwrap();
        assert_eq!((name, shown.starts_with(b"VM status: running\r\n")), ("looks", true));
        let (mut client, mut other) = (stage.client(), stage.client());
        assert_eq!(client.run("query-status")["status"], json!("running"));
        assert_eq!(client.oob("x-where-oob"), json!("monitor"));
        // A coroutine command has its turn behind the one that waits.
        other.send(json!({"execute": "x-where-co", "id": 1}).to_string());
        assert_eq!(other.oob("x-where-oob"), json!("monitor"));
        assert_eq!(client.run("x-where"), json!("iohandler"));
        assert!(outputs.try_recv().is_err() && frees.try_recv().is_err());
        drop(leave);
        let (name, shown) = outputs.recv_timeout(PATIENCE).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert_eq!(name, "adds");
        assert!(shown.starts_with("Error: 'nope' is not a valid device model name\r\n"), "{shown}");
        frees.try_recv().expect("nothing of the attempt is left");
        assert_eq!(other.message(), json!({"return": "main", "id": 1}));
        reader.join().unwrap();
    });
}

/// The same in a line of `human-monitor-command`.
#[test]
fn a_human_command_inside_of_qmp_that_waits_holds_up_no_other_session() {
    stage(|stage| {
        let entered = stage.gate.watch();
        *stage.machine.stops_at.lock().unwrap() = Some(Arc::clone(&stage.gate));
        let (mut slow, mut other) = (stage.client(), stage.client());
        let line = json!({"command-line": "stop"});
        let request = json!({"execute": "human-monitor-command", "arguments": line, "id": 1});
        slow.send(request.to_string());
        entered.recv_timeout(PATIENCE).unwrap();
        assert_eq!(other.run("query-status")["status"], json!("running"));
        assert_eq!(slow.oob("x-where-oob"), json!("monitor"));
        stage.gate.open();
        assert_eq!(slow.message()["event"], json!("STOP"));
        assert_eq!(slow.message(), json!({"return": "", "id": 1}));
    });
}

#[test]
fn what_is_no_request_is_answered_while_main_is_busy() {
    stage(|stage| {
        let mut client = stage.client();
        let blocked = Stage::block(stage.reactors.main());
        for text in ["[1 2]", "{\"execute\": 3}", "7"] {
            client.send(text);
            client.send("\n");
            assert_eq!(client.message()["error"]["class"], json!("GenericError"), "{text}");
        }
        drop(blocked);
    });
}

#[test]
fn a_handler_that_panics_is_answered_for_and_nothing_stops() {
    stage(|stage| {
        let mut client = stage.client();
        for command in ["x-panic", "x-panic-co", "x-panic"] {
            let reply = client.ask(&json!({"execute": command, "id": 3}));
            assert_eq!(reply["id"], json!(3));
            assert_eq!(reply["error"]["class"], json!("GenericError"));
        }
        assert_eq!(client.run("x-where-co"), json!("main"));
        assert_eq!(client.run("x-where"), json!("iohandler"));
    });
}

#[test]
fn the_contexts_and_rcu_can_be_asked_out_of_band() {
    stage(|stage| {
        let mut client = stage.client();
        let blocked = [stage.reactors.main(), stage.reactors.iohandler()].map(Stage::block);
        let reactors = client.oob("query-reactors");
        let names: Vec<_> =
            reactors.as_array().unwrap().iter().map(|r| r["name"].clone()).collect();
        assert_eq!(names, ["main", "iohandler", "monitor", "core-0"]);
        assert!(reactors[2]["enters"].as_u64().unwrap() > 0);
        assert!(reactors[2]["poll-time"]["p50-ns"].as_u64().unwrap() > 0);
        assert!(client.oob("query-rcu").get("grace-period").is_some());
        drop(blocked);
    });
}

#[test]
fn every_command_is_listed() {
    stage(|stage| {
        let mut client = stage.client();
        let listed = client.run("query-commands");
        let names: Vec<_> =
            listed.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        for name in [
            "qmp_capabilities",
            "query-commands",
            "human-monitor-command",
            "query-version",
            "query-status",
            "query-name",
            "query-kvm",
            "stop",
            "cont",
            "system_reset",
            "system_powerdown",
            "quit",
            "query-reactors",
            "query-rcu",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    });
}
