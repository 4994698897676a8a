//! The world changes at an await point of a coroutine command: every command, every point, every
//! change.
//!
//! A scheduler of our own polls the handler, in main as always, and changes the world right before
//! its n-th poll. A command that came in this state must either have judged it anew or fail.

use super::client::Client;
use super::stage::RAM_BYTES;
use crate::core::{Core, Env};
use crate::machine::{Cpu, KvmInfo, Machine, RunState, reset_required};
use crate::registry::{Command, Handler, Members, Value};
use crate::wire::{Style, Writer};
use crate::{Actions, BoxFuture, Endpoint, Monitor, QmpError};
use devices::block::graph::BlockGraph;
use devices::chardev::{Backend, Chardevs};
use reactor::Reactors;
use reactor::sync::oneshot;
use serde_json::json;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use vcpu::linear::Linear;
use vcpu::memory::Ram;
use vm_memory::GuestAddress;

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Stopped,
    ShutDown,
    Runs,
    CpusGone,
    SessionGone,
    ChardevsGone,
}

const CHANGES: [Change; 6] = [
    Change::Stopped,
    Change::ShutDown,
    Change::Runs,
    Change::CpusGone,
    Change::SessionGone,
    Change::ChardevsGone,
];

/// A machine whose methods wait as a real one does, and which notes what must not happen.
struct Model {
    state: Mutex<RunState>,
    cpus: Mutex<usize>,
    wrong: Mutex<Vec<String>>,
    actions: Actions,
    ram: Ram,
    block: Arc<BlockGraph>,
    chardevs: Chardevs,
}

impl Model {
    fn new(state: RunState, reactors: &Reactors) -> Self {
        Self {
            state: Mutex::new(state),
            cpus: Mutex::new(2),
            wrong: Mutex::default(),
            actions: Actions::default(),
            ram: Ram::from_ranges(&[(GuestAddress(0), RAM_BYTES as usize)]).unwrap(),
            block: BlockGraph::new(reactors),
            chardevs: Chardevs::new(reactors.iohandler(), || {}),
        }
    }

    fn set(&self, state: RunState) -> RunState {
        std::mem::replace(&mut self.state.lock().unwrap(), state)
    }

    /// Waits for its turn and for the vCPUs, then looks and acts.
    fn act<'a>(
        &'a self,
        act: impl FnOnce(RunState) -> Result<(), QmpError> + Send + 'a,
    ) -> BoxFuture<'a, Result<(), QmpError>> {
        Box::pin(async move {
            reactor::yield_now().await;
            let result = act(self.run_state());
            reactor::yield_now().await;
            result
        })
    }
}

impl Machine for Model {
    fn name(&self) -> Option<String> {
        None
    }
    fn chardevs(&self) -> &Chardevs {
        &self.chardevs
    }
    fn run_state(&self) -> RunState {
        *self.state.lock().unwrap()
    }
    fn kvm(&self) -> KvmInfo {
        KvmInfo { enabled: true, present: true }
    }
    fn actions(&self) -> &Actions {
        &self.actions
    }
    fn block(&self) -> &Arc<BlockGraph> {
        &self.block
    }
    fn cpus(&self) -> Vec<Cpu> {
        vec![Cpu { thread_id: 1, socket: 0, core: 0, thread: 0 }; *self.cpus.lock().unwrap()]
    }
    fn ram(&self) -> Option<&Ram> {
        Some(&self.ram)
    }
    fn linear(&self, cpu: u32) -> BoxFuture<'_, Result<Linear, QmpError>> {
        Box::pin(async move {
            reactor::yield_now().await;
            let there = (cpu as usize) < *self.cpus.lock().unwrap();
            there.then(Linear::flat).ok_or_else(|| QmpError::generic("there is no such CPU"))
        })
    }
    fn can_wake_up(&self) -> bool {
        true
    }
    fn stop(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.act(|state| {
            if state.is_running() {
                self.set(RunState::Paused);
            }
            Ok(())
        })
    }
    fn cont(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.act(|state| {
            if state.needs_reset() {
                return Err(reset_required());
            }
            self.set(RunState::Running);
            Ok(())
        })
    }
    fn system_reset(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.act(|_| Ok(()))
    }
    fn system_powerdown(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.act(|_| Ok(()))
    }
    fn system_wakeup(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        if self.run_state() != RunState::Suspended {
            self.wrong.lock().unwrap().push("woken up without having slept".to_owned());
        }
        self.act(|state| {
            if state != RunState::Suspended {
                return Err(QmpError::generic("no longer suspended"));
            }
            self.set(RunState::Running);
            Ok(())
        })
    }
    fn inject_nmi(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.act(|_| Ok(()))
    }
    fn quit(&self) -> BoxFuture<'_, Result<(), QmpError>> {
        self.act(|_| Ok(()))
    }
}

/// A command and what it is given. Commands that are not here get nothing.
fn arguments(command: &str, directory: &Path) -> Vec<Value> {
    let dump = json!({"val": 0, "size": 200_000, "filename": directory.join("dump")});
    let file = json!({"type": "file", "data": {"out": directory.join("out")}});
    match command {
        "memsave" | "pmemsave" => vec![dump],
        "chardev-add" => vec![json!({"id": "new", "backend": file})],
        "chardev-change" => vec![json!({"id": "kept", "backend": file})],
        "human-monitor-command" => ["stop", "cont", "info cpus", "x 0", "system_wakeup"]
            .map(|line| json!({"command-line": line}))
            .to_vec(),
        _ => vec![json!({})],
    }
}

/// What a run came to.
struct Outcome {
    reply: Result<(), QmpError>,
    /// Whether the change came before the end.
    changed: bool,
}

/// Polls a handler; `change` happens right before poll number `at`.
async fn run(
    core: &Arc<Core>,
    env: Env,
    command: &str,
    members: Members,
    at: u32,
    change: impl FnOnce(),
) -> Outcome {
    let Some(Handler::Coroutine { call }) = core.registry.find(command).map(Command::handler)
    else {
        panic!("{command} is no coroutine command")
    };
    let mut handler = pin!(call(env, members, Writer::new(Style::Line)));
    let (mut polls, mut change) = (0, Some(change));
    let (_, reply) = poll_fn(|context| {
        polls += 1;
        if polls == at
            && let Some(change) = change.take()
        {
            change();
        }
        handler.as_mut().poll(context)
    })
    .await;
    Outcome { reply, changed: change.is_none() }
}

fn judge(at: &str, command: &str, change: Change, before: RunState, model: &Model, o: &Outcome) {
    let wrong = model.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{at}: {wrong:?}");
    let after = model.run_state();
    // A guest that has shut down runs only after a reset.
    let shut_down = o.changed && change == Change::ShutDown;
    assert!(!shut_down || after != RunState::Running, "{at}: a guest that had shut down runs on");
    // What was removed does not come back as what it has been changed into.
    let removed = o.changed && change == Change::ChardevsGone && command == "chardev-change";
    assert!(!removed || model.chardevs.list().is_empty(), "{at}: what was removed is back");
    if command == "cont" && o.reply.is_ok() && change != Change::Stopped {
        assert!(after == RunState::Running || shut_down, "{at}: {after} after cont");
    }
    if !o.changed && command == "cont" {
        assert_eq!(o.reply.is_ok(), !before.needs_reset(), "{at}");
    }
}

/// One command in one state with one change, at every await point.
async fn every_point(
    monitor: (&Arc<Core>, &Arc<Model>, &Path),
    command: &'static str,
    arguments: &Value,
    before: RunState,
    change: Change,
) -> u32 {
    let (core, model, socket) = monitor;
    for at in 2.. {
        model.set(before);
        *model.cpus.lock().unwrap() = 2;
        model.chardevs.clear();
        model.chardevs.add("kept", Backend::Null).await.unwrap();
        let client = Client::connect(socket);
        let session = loop {
            if let Some(session) = core.hub.sessions().pop() {
                break session;
            }
            reactor::yield_now().await;
        };
        let env = Env::of_session(core, &session);
        let members = arguments.as_object().cloned().unwrap_or_default();
        let mut client = Some(client);
        let outcome = run(core, env, command, members, at, || match change {
            Change::Stopped => drop(model.set(RunState::Paused)),
            Change::ShutDown => drop(model.set(RunState::Shutdown)),
            Change::Runs => drop(model.set(RunState::Running)),
            Change::CpusGone => *model.cpus.lock().unwrap() = 0,
            Change::SessionGone => drop(client.take()),
            Change::ChardevsGone => model.chardevs.clear(),
        })
        .await;
        let name = format!("{command} {arguments} in {before}, {change:?} before poll {at}");
        judge(&name, command, change, before, model, &outcome);
        drop(client);
        // Nothing of the command holds the session.
        let gone = Arc::downgrade(&session);
        drop(session);
        while gone.strong_count() > 0 {
            reactor::yield_now().await;
        }
        if !outcome.changed {
            return at - 2;
        }
    }
    unreachable!("a command ends")
}

async fn everything(core: &Arc<Core>, model: &Arc<Model>, directory: &Path) -> u32 {
    let coroutines =
        core.registry.iter().filter(|c| matches!(c.handler(), Handler::Coroutine { .. }));
    let commands: Vec<&'static str> = coroutines.map(Command::name).collect();
    let socket = directory.join("qmp");
    let mut points = 0;
    for command in commands {
        for given in arguments(command, directory) {
            for before in [RunState::Running, RunState::Paused, RunState::Suspended] {
                for change in CHANGES {
                    let monitor = (core, model, socket.as_path());
                    points += every_point(monitor, command, &given, before, change).await;
                }
            }
        }
    }
    points
}

/// Runs `test` in main with a monitor of the model, which serves `qmp` in a directory.
fn in_main<F, T>(test: impl FnOnce(Arc<Core>, Arc<Model>, PathBuf) -> F + Send + 'static) -> T
where
    F: Future<Output = T> + Send,
    T: Send + 'static,
{
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let cpus = reactor::allowed_cpus().unwrap();
    let config = reactor::Config::with_cores(vec![cpus[0]]);
    let result = reactor::run(config, move |reactors| async move {
        let monitor = Monitor::new(&reactors);
        monitor.listen_qmp(&Endpoint::unix(path.join("qmp")), Style::Line).unwrap();
        let model = Arc::new(Model::new(RunState::Running, &reactors));
        monitor.start(Arc::clone(&model) as Arc<dyn Machine>);
        let core = Arc::clone(monitor.core());
        let (done, ended) = oneshot::channel();
        let task = reactors.main().spawn("interleave", async move {
            let _ = done.send(test(core, model, path).await);
        });
        let result = ended.await;
        task.detach();
        result
    });
    result.unwrap().expect("the test has not panicked")
}

#[test]
fn a_command_that_waits_judges_the_world_anew() {
    let points = in_main(|core, model, path| async move { everything(&core, &model, &path).await });
    assert!(points > 100, "only {points} await points were reached");
}

/// A guest that shuts down, and one that is reset, while `cont` waits for its turn.
#[test]
fn cont_judges_the_state_when_its_turn_comes() {
    in_main(|core, model, _| async move {
        for (asked_in, found) in
            [(RunState::Paused, RunState::Shutdown), (RunState::Shutdown, RunState::Prelaunch)]
        {
            model.set(asked_in);
            let change = || {
                model.set(found);
            };
            let outcome = run(&core, Env::of_hmp(&core), "cont", Members::new(), 2, change).await;
            assert!(outcome.changed, "cont in {asked_in} did not wait for its turn");
            assert_eq!(outcome.reply.is_err(), found.needs_reset(), "{asked_in} became {found}");
            let after = if found.needs_reset() { found } else { RunState::Running };
            assert_eq!(model.run_state(), after);
        }
    });
}
