//! A running ringvisor.

use crate::Qmp;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take, unless told otherwise; far above what it does take, for busy machines.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a stream of the process has printed.
#[derive(Default)]
struct Transcript {
    text: Mutex<(String, bool)>,
    grown: Condvar,
}

impl Transcript {
    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Collects a stream on a thread of its own, until its end.
    fn collect(mut stream: impl Read + Send + 'static) -> Arc<Self> {
        let transcript = Arc::new(Self::default());
        let ours = Arc::clone(&transcript);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                let n = stream.read(&mut chunk).unwrap_or(0);
                let mut text = ours.text.lock().unwrap_or_else(PoisonError::into_inner);
                text.0.push_str(&String::from_utf8_lossy(&chunk[..n]));
                text.1 = n == 0;
                ours.grown.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        transcript
    }

    /// Waits until `done` says so. False at the end of the stream or of the patience.
    fn wait(&self, patience: Duration, mut done: impl FnMut(&str) -> bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if done(&text.0) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if text.1 || left.is_zero() {
                return false;
            }
            let waited = self.grown.wait_timeout(text, left);
            text = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A process of the program under test, killed when dropped.
pub struct Vmm {
    child: Child,
    stdin: Option<ChildStdin>,
    console: Arc<Transcript>,
    errors: Arc<Transcript>,
    dir: TempDir,
    log: Option<PathBuf>,
    patience: Duration,
}

/// How a process has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// All that the guest printed.
    pub console: String,
    /// All that the program said.
    pub errors: String,
}

impl Finished {
    /// The exit status as a number; -1 for a signal.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

impl Vmm {
    /// Starts `program` with `args` and a QMP socket of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &str, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the socket");
        let socket = dir.path().join("qmp");
        let endpoint = format!("unix:{},server=on,wait=off", socket.display());
        let mut command = Command::new(program);
        command.args(args).args(["-qmp", &endpoint]);
        Self::spawn(command, dir)
    }

    /// Starts `program` with exactly these arguments.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_plain(program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(args);
        Self::spawn(command, tempfile::tempdir().expect("a directory"))
    }

    fn spawn(mut command: Command, dir: TempDir) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let console = Transcript::collect(child.stdout.take().expect("piped"));
        let errors = Transcript::collect(child.stderr.take().expect("piped"));
        let stdin = child.stdin.take();
        Self { child, stdin, console, errors, dir, log: None, patience: PATIENCE }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes all that the console has shown to `log` when this ends.
    pub fn keep_console(&mut self, log: PathBuf) {
        self.log = Some(log);
    }

    /// How long each wait from now on may take.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// A directory that lives as long as this.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("qmp")
    }

    /// A new, negotiated QMP session.
    ///
    /// # Panics
    /// When the process ends before it listens.
    pub fn qmp(&mut self) -> Qmp {
        let deadline = Instant::now() + self.patience;
        loop {
            match Qmp::connect(&self.socket()) {
                Ok(qmp) => return qmp,
                Err(error) => {
                    let ended = self.child.try_wait().expect("the child is ours");
                    if ended.is_some() || Instant::now() > deadline {
                        self.fail(&format!("no QMP session: {error}"));
                    }
                    // The socket is not there yet, and nothing tells when it is.
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Types on the console.
    ///
    /// # Panics
    /// When the process does not take it.
    pub fn type_in(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("stdin is read");
    }

    /// Ends the console's input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// What the guest has printed so far.
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// What the program has said so far.
    pub fn errors(&self) -> String {
        self.errors.text()
    }

    /// Waits until the guest has printed `text`.
    ///
    /// # Panics
    /// When it never does.
    pub fn wait_for(&self, text: &str) {
        self.wait_for_count(text, 1);
    }

    /// Waits until the guest has printed `text` so many times.
    ///
    /// # Panics
    /// When it never does.
    pub fn wait_for_count(&self, text: &str, count: usize) {
        if !self.console.wait(self.patience, |console| console.matches(text).count() >= count) {
            self.fail(&format!("the console never showed {text:?} ({count} times)"));
        }
    }

    /// Waits until the program has said `text`.
    ///
    /// # Panics
    /// When it never does.
    pub fn wait_for_error(&self, text: &str) {
        if !self.errors.wait(self.patience, |errors| errors.contains(text)) {
            self.fail(&format!("stderr never showed {text:?}"));
        }
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) takes no pointer; the child has not been waited for, so its number is its own.
        let result = unsafe { libc::kill(self.child.id().cast_signed(), signal) };
        assert_eq!(result, 0, "the process is there");
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// When it does not end.
    pub fn finish(mut self) -> Finished {
        // Both streams end with the process.
        if !self.console.wait(self.patience, |_| false)
            && !self.console.text.lock().is_ok_and(|text| text.1)
        {
            self.fail("the process does not end");
        }
        self.errors.wait(self.patience, |_| false);
        let status = self.child.wait().expect("the child is ours");
        Finished { status, console: self.console.text(), errors: self.errors.text() }
    }

    /// Ends the test with what has been printed last.
    ///
    /// # Panics
    /// Always.
    pub fn fail(&self, why: &str) -> ! {
        let mut report = format!("{why}\n--- console, last 50 lines\n");
        let console = self.console.text();
        let lines: Vec<&str> = console.lines().collect();
        for line in &lines[lines.len().saturating_sub(50)..] {
            let _infallible = writeln!(report, "{line}");
        }
        if let Some(log) = &self.log {
            let _infallible = writeln!(report, "--- all of it: {}", log.display());
        }
        panic!("{report}--- stderr\n{}", self.errors.text());
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        // Gone already, most of the time.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if let Some(log) = &self.log
            && let Err(error) = std::fs::write(log, self.console.text())
        {
            // The test has nobody else to tell.
            eprintln!("no log {}: {error}", log.display());
        }
    }
}
