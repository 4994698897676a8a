//! A session over any stream of bytes.

use super::edit::{Editor, Typed};
use super::line::LineReader;
use super::page::Pager;
use super::{complete, run_line};
use crate::core::{Core, Env};
use devices::chardev::screen;
use reactor::{Fd, io};
use std::sync::Arc;

const PROMPT: &str = "(ringvisor) ";

/// Whether the session shows what is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// The peer is a terminal in raw mode: lines are edited here, with history and completion.
    On,
    /// The peer shows it itself, or is a program.
    Off,
}

/// How input becomes lines.
enum Input {
    Terminal { editor: Editor, pager: Pager },
    Plain(LineReader),
}

/// A session of the human monitor: bytes in, bytes out.
pub struct HmpSession {
    core: Arc<Core>,
    input: Input,
}

impl HmpSession {
    pub(crate) fn new(core: Arc<Core>, echo: Echo) -> Self {
        let input = match echo {
            Echo::On => Input::Terminal { editor: Editor::new(PROMPT), pager: Pager::default() },
            Echo::Off => Input::Plain(LineReader::default()),
        };
        Self { core, input }
    }

    /// What is shown first.
    pub fn banner(&self) -> Vec<u8> {
        let version = env!("CARGO_PKG_VERSION");
        let banner = format!("ringvisor {version} monitor - type 'help' for more information");
        format!("{banner}\r\n{PROMPT}").into_bytes()
    }

    /// The peer's screen has this size: longer output is shown a page at a time. Without a size,
    /// or with 0 rows, it is not.
    pub fn set_screen(&mut self, rows: u16, columns: u16) {
        if let Input::Terminal { pager, .. } = &mut self.input {
            pager.set_screen(rows, columns);
        }
    }

    /// Takes input and gives what is to be shown. Runs the complete lines in it one after the
    /// other; the caller stays in its context, whichever that is.
    pub async fn input(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        for &byte in bytes {
            if let Some(line) = self.line(byte, &mut output) {
                let text = run(&self.core, line).await;
                self.show(text, &mut output);
            }
        }
        output
    }

    /// Takes a byte; gives the line that it ends.
    fn line(&mut self, byte: u8, output: &mut Vec<u8>) -> Option<String> {
        let (editor, pager) = match &mut self.input {
            Input::Plain(reader) => return reader.take(byte),
            Input::Terminal { editor, pager } => (editor, pager),
        };
        if pager.waits() {
            let key = editor.key(byte)?;
            output.extend_from_slice(pager.key(key).as_bytes());
            if !pager.waits() {
                editor.show(output);
            }
            return None;
        }
        match editor.take(byte, output) {
            Typed::Nothing => {}
            Typed::Line(line) => return Some(line),
            Typed::Interrupted => editor.show(output),
            Typed::Complete(before) => editor.complete(&complete::words(&before), output),
        }
        None
    }

    /// Shows the output of a command and asks for the next.
    fn show(&mut self, text: String, output: &mut Vec<u8>) {
        match &mut self.input {
            Input::Plain(_) => {
                output.extend_from_slice(text.as_bytes());
                output.extend_from_slice(PROMPT.as_bytes());
            }
            Input::Terminal { editor, pager } => {
                output.extend_from_slice(pager.show(text).as_bytes());
                if !pager.waits() {
                    editor.show(output);
                }
            }
        }
    }

    /// Serves a stream until its end; without an input for ever. In the monitor context.
    pub(crate) async fn serve(mut self, input: Option<&Fd>, output: &Fd) {
        let (mut result, _) = io::write_all(output, self.banner()).await;
        let Some(input) = input else { return std::future::pending().await };
        let mut buffer = vec![0; 512];
        while result.is_ok() {
            let (received, back) = io::read(input, buffer).await;
            buffer = back;
            let answer = match received {
                Ok(0) => return,
                Ok(n) => {
                    // Clients are greeted while the machine is built.
                    self.core.machine_there().await;
                    // It may have been resized.
                    let (rows, columns) = screen(output);
                    self.set_screen(rows, columns);
                    self.input(buffer.get(..n).unwrap_or_default()).await
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            (result, _) = io::write_all(output, answer).await;
        }
    }
}

/// Enters coroutine context for the line.
async fn run(core: &Arc<Core>, line: String) -> String {
    let own = Arc::clone(core);
    let task = core.reactors.main().spawn("hmp-command", async move {
        // Who only looks need not wait for another session's command that waits.
        let _lane = if super::table::only_looks(&line) {
            None
        } else {
            Some(own.coroutine_lane.lock().await)
        };
        run_line(&Env::of_hmp(&own), &line).await
    });
    match task.await {
        Ok(output) => output,
        Err(error) => format!("Error: {error}\r\n"),
    }
}
