//! Many commands over one connection: from a terminal, with completion and history, or from a
//! file.

use super::arguments::words;
use super::connection::{Connection, Failure, Incoming, Message, Outgoing, Request, trouble};
use super::output::{self, Format};
use super::schema::{Kind, Schema};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Editor, ExternalPrinter, Helper};
use std::io::{BufRead, IsTerminal};
use std::rc::Rc;
use std::sync::mpsc;

/// Reads commands from stdin until its end.
pub(super) fn run(connection: Connection, format: Format) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        return Terminal::new(connection, format)?.run();
    }
    script(connection, format)
}

/// A request for each line; none for an empty one or a comment. The first that fails ends it.
fn script(mut connection: Connection, format: Format) -> Result<(), Failure> {
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| trouble(format!("stdin: {error}")))?;
        let Some(request) = request(&line, || connection.schema())? else { continue };
        let value = connection.execute(&request, |_| Ok(()))?;
        output::value(&value, format)?;
    }
    Ok(())
}

fn request<'s>(
    line: &str,
    schema: impl FnOnce() -> Result<&'s Schema, Failure>,
) -> Result<Option<Request>, Failure> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.starts_with('{') {
        return Request::json(line).map(Some);
    }
    let words = words(line).map_err(trouble)?;
    Request::parse(&words, false, schema).map(Some)
}

/// What follows a line.
#[derive(PartialEq, Eq)]
enum Next {
    Line,
    /// The connection has ended.
    End,
}

/// A person at a terminal.
struct Terminal {
    editor: Editor<Completion, MemHistory>,
    outgoing: Outgoing,
    replies: mpsc::Receiver<Result<serde_json::Value, Failure>>,
    schema: Rc<Schema>,
    format: Format,
}

impl Terminal {
    fn new(connection: Connection, format: Format) -> Result<Self, Failure> {
        let (incoming, outgoing, schema) = connection.split()?;
        let schema = Rc::new(schema);
        let unusable = |error| trouble(format!("the terminal cannot be used: {error}"));
        let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true);
        let mut editor =
            Editor::with_history(config.build(), MemHistory::new()).map_err(unusable)?;
        editor.set_helper(Some(Completion(Rc::clone(&schema))));
        let printer = editor.create_external_printer().map_err(unusable)?;
        let (sender, replies) = mpsc::channel();
        std::thread::spawn(move || receive(incoming, printer, &sender));
        Ok(Self { editor, outgoing, replies, schema, format })
    }

    fn run(mut self) -> Result<(), Failure> {
        let commands = self.schema.commands().count();
        println!("{commands} commands; Tab completes, help explains, Ctrl-D ends");
        loop {
            match self.editor.readline("qmp> ") {
                Ok(line) => match self.line(line.trim()) {
                    Err(Failure::Command { text, .. } | Failure::Trouble(text)) => {
                        eprintln!("{text}");
                    }
                    result => {
                        if result? == Next::End {
                            return Ok(());
                        }
                    }
                },
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(trouble(format!("the terminal cannot be read: {error}"))),
            }
        }
    }

    fn line(&mut self, line: &str) -> Result<Next, Failure> {
        if let Some(topic) = line.strip_prefix("help") {
            help(&self.schema, topic.trim());
            return Ok(Next::Line);
        }
        let schema = Rc::clone(&self.schema);
        let Some(request) = request(line, || Ok(&*schema))? else {
            return Ok(Next::Line);
        };
        // An error of the socket ends the receiver too, whose word counts.
        let _ = self.outgoing.send(&request);
        match self.replies.recv() {
            Ok(reply) => output::value(&reply?, self.format).map(|()| Next::Line),
            Err(_) => Ok(Next::End),
        }
    }
}

fn help(schema: &Schema, topic: &str) {
    match topic {
        "" => {
            for command in schema.commands() {
                println!("{command}");
            }
            println!("Write COMMAND key=value ...; help COMMAND shows what it takes.");
        }
        _ => match schema.usage(topic) {
            Some(usage) => println!("{usage}"),
            None => println!("there is no command {topic}; help lists them"),
        },
    }
}

/// Passes replies on and prints events, over the line being typed. On a thread of its own.
fn receive(
    mut incoming: Incoming,
    mut printer: impl ExternalPrinter,
    replies: &mpsc::Sender<Result<serde_json::Value, Failure>>,
) {
    loop {
        let end = match incoming.message() {
            Ok(Some(Message::Event(event))) => {
                // The terminal is gone when it cannot be printed, and so is the reader.
                let _ = printer.print(output::event_line(&event));
                continue;
            }
            Ok(Some(Message::Reply(reply))) => match replies.send(reply) {
                Ok(()) => continue,
                Err(_) => return,
            },
            Ok(None) => "the machine has ended; press Enter".to_owned(),
            Err(failure) => failure.to_string(),
        };
        let _ = printer.print(format!("{end}\n"));
        return;
    }
}

/// Completes commands, the names of arguments and the words of enumerations.
struct Completion(Rc<Schema>);

impl Completion {
    /// Where the last word begins and what it may become.
    fn words(&self, before: &str) -> (usize, Vec<String>) {
        let start = before.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        let (rest, last) = before.split_at(start);
        let mut previous = rest.split_whitespace();
        let command = match (previous.next(), previous.next()) {
            (None, _) | (Some("help"), None) => {
                let commands = self.0.commands().filter(|command| command.starts_with(last));
                return (start, commands.map(str::to_owned).collect());
            }
            (Some(command), _) => command,
        };
        if let Some((key, word)) = last.split_once('=') {
            let words = match self.0.find(command, key) {
                Some(Kind::Enum(words)) => words,
                Some(Kind::Boolean) => ["on", "off"].map(str::to_owned).to_vec(),
                _ => Vec::new(),
            };
            let matches = words.into_iter().filter(|candidate| candidate.starts_with(word));
            return (start + key.len() + 1, matches.collect());
        }
        let members = self.0.arguments(command).unwrap_or_default().into_iter();
        let missing = members.filter(|member| {
            member.name.starts_with(last) && !rest.contains(&format!(" {}=", member.name))
        });
        (start, missing.map(|member| format!("{}=", member.name)).collect())
    }
}

impl Completer for Completion {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.words(line.get(..position).unwrap_or_default()))
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Hinter for Completion {
    type Hint = String;
}

#[cfg(test)]
mod tests {
    use super::{Completion, Schema};
    use serde_json::json;
    use std::rc::Rc;

    #[test]
    fn commands_arguments_and_words_are_completed() {
        let schema = Schema::new(json!([
            {"name": "set-action", "meta-type": "command", "arg-type": "1", "ret-type": "0"},
            {"name": "stop", "meta-type": "command", "arg-type": "0", "ret-type": "0"},
            {"name": "0", "meta-type": "object", "members": []},
            {"name": "1", "meta-type": "object", "members": [
                {"name": "panic", "type": "2"}, {"name": "reboot", "type": "bool"}]},
            {"name": "2", "meta-type": "enum", "values": ["pause", "none"]},
            {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
        ]));
        let completion = Completion(Rc::new(schema));
        let words = |line| completion.words(line);
        let found =
            |start, words: &[&str]| (start, words.iter().map(ToString::to_string).collect());
        assert_eq!(words("s"), found(0, &["set-action", "stop"]));
        assert_eq!(words("help st"), found(5, &["stop"]));
        assert_eq!(words("set-action "), found(11, &["panic=", "reboot="]));
        assert_eq!(words("set-action panic=none "), found(22, &["reboot="]));
        assert_eq!(words("set-action panic=p"), found(17, &["pause"]));
        assert_eq!(words("set-action reboot="), found(18, &["on", "off"]));
        assert_eq!(words("stop "), found(5, &[]));
    }
}
