//! The command line.

use crate::case::Bench;
use crate::lab::Lab;
use crate::progress::Progress;
use crate::report::{compare, hgrm, html, json, readme, table};
use crate::run::{rounds_of, run};
use crate::{Error, host, suites};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The peer when none is named.
const PEER: &str = "qemu-system-x86_64";

const HELP: &str = "\
perf: measures ringvisor beside a peer and beside the bare limit of this machine

usage: perf run [SUITE...] [options]    perf list    perf compare BEFORE.json AFTER.json

  --peer PROGRAM      the other VMM, which speaks QEMU's languages (default: qemu-system-x86_64 where it is
                      installed); none: ringvisor and the limit alone
  --ringvisor FILE    the program under test (default: ringvisor beside this program; cargo run builds it first)
  --only TEXT         only benches with a case whose name contains TEXT
  --quick             two rounds of a tenth of the length: a rough look
  --json FILE         results for other programs and for perf compare
  --html FILE         a report with plots, in one file
  --histograms DIR    all times as HdrHistogram percentile files (default: beside the JSON file, else in
                      ~/.cache/ringvisor/perf)
  --readme FILE       put the table of the goals between the perf markers of that file

Example: perf run qmp hotplug --json after.json && perf compare before.json after.json
";

/// Does what the arguments ask for; the text for stdout.
pub fn main(args: &[String]) -> Result<String, Error> {
    let mut words = args.iter().map(String::as_str);
    match words.next() {
        Some("run") => Options::parse(&args[1..]).and_then(|options| options.run()),
        Some("list") => Ok(list()),
        Some("compare") => match (words.next(), words.next(), words.next()) {
            (Some(before), Some(after), None) => compare::compare(&read(before)?, &read(after)?),
            _ => Err(Error::Usage("compare takes two files".to_owned())),
        },
        Some("--help" | "-h" | "help") => Ok(HELP.to_owned()),
        Some(other) => Err(Error::Usage(format!("there is no command '{other}'"))),
        None => Err(Error::Usage("say what to do: run, list or compare".to_owned())),
    }
}

fn read(path: &str) -> Result<Value, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::io(path, e))
}

/// Suites and their cases.
fn list() -> String {
    let mut text = String::new();
    for (suite, about) in suites::ALL {
        let _infallible = writeln!(text, "{suite}: {about}");
        for bench in suites::benches(suite) {
            for case in &bench.cases {
                let goal = case.goal.map_or(String::new(), |goal| {
                    format!("  (goal: {} of the {:?})", goal.ratio, goal.to)
                });
                let _infallible =
                    writeln!(text, "    {}, {} {}{goal}", case.name, case.metric, case.unit);
            }
        }
    }
    text
}

/// What `perf run` was asked for.
#[derive(Debug, Default, PartialEq)]
struct Options {
    suites: Vec<String>,
    peer: Option<String>,
    ringvisor: Option<PathBuf>,
    only: Option<String>,
    quick: bool,
    json: Option<PathBuf>,
    html: Option<PathBuf>,
    histograms: Option<PathBuf>,
    readme: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || {
                let value = args.next().cloned();
                value.ok_or_else(|| Error::Usage(format!("{arg} needs a value")))
            };
            match arg.as_str() {
                "--peer" => options.peer = Some(value()?),
                "--ringvisor" => options.ringvisor = Some(value()?.into()),
                "--only" => options.only = Some(value()?),
                "--quick" => options.quick = true,
                "--json" => options.json = Some(value()?.into()),
                "--html" => options.html = Some(value()?.into()),
                "--histograms" => options.histograms = Some(value()?.into()),
                "--readme" => options.readme = Some(value()?.into()),
                flag if flag.starts_with('-') => {
                    return Err(Error::Usage(format!("there is no option '{flag}'")));
                }
                suite if suites::ALL.iter().any(|(name, _)| *name == suite) => {
                    options.suites.push(suite.to_owned());
                }
                other => {
                    let names = suites::ALL.map(|(name, _)| name).join(", ");
                    return Err(Error::Usage(format!("no suite '{other}'; there are {names}")));
                }
            }
        }
        Ok(options)
    }

    fn run(&self) -> Result<String, Error> {
        let benches = self.benches()?;
        let peer = self.peer()?;
        let ringvisor = match &self.ringvisor {
            Some(path) => path.clone(),
            None => built()?,
        };
        let mut machine = host::describe();
        machine["date"] = json!(host::date());
        machine["ringvisor"] = json!(version(&ringvisor)?);
        machine["peer"] =
            peer.as_deref().map(version).transpose()?.map_or(Value::Null, Value::from);
        machine["quick"] = json!(self.quick);
        let lab = Lab::new(ringvisor, peer, self.quick)?;
        let rounds: u64 = benches.iter().map(|bench| u64::from(rounds_of(&lab, bench))).sum();
        let mut progress = Progress::new(rounds * 3);
        let outcomes = run(&lab, &benches, &mut progress)?;
        machine["load_after"] = json!(host::load());
        let commands = lab.commands();
        if let Some(path) = &self.json {
            let document = json::document(&machine, &commands, &outcomes);
            write(path, &format!("{document:#}\n"))?;
        }
        if let Some(path) = &self.html {
            write(path, &html::page(&machine, &commands, &outcomes))?;
        }
        if let Some(path) = &self.readme {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Error::io(path.display().to_string(), e))?;
            write(path, &readme::replaced(&text, &readme::section(&machine, &outcomes))?)?;
        }
        let mut text = table::table(&outcomes);
        let folder = self.histogram_folder(&machine);
        let count = hgrm::keep(&folder, &outcomes)?;
        let _infallible = writeln!(text, "{count} histograms: {}", folder.display());
        Ok(text)
    }

    fn benches(&self) -> Result<Vec<Bench>, Error> {
        let wanted = |name: &str| self.suites.is_empty() || self.suites.iter().any(|s| s == name);
        let mut benches: Vec<Bench> = suites::ALL
            .iter()
            .filter(|(name, _)| wanted(name))
            .flat_map(|(name, _)| suites::benches(name))
            .collect();
        if let Some(only) = &self.only {
            benches.retain(|bench| bench.cases.iter().any(|case| case.name.contains(only)));
        }
        if benches.is_empty() {
            return Err(Error::Usage("no case has that name; perf list shows them".to_owned()));
        }
        Ok(benches)
    }

    /// The peer's program; `None` where none is wanted, or none is named and none is installed.
    fn peer(&self) -> Result<Option<PathBuf>, Error> {
        match self.peer.as_deref() {
            Some("none") => Ok(None),
            Some(name) => match find(name) {
                Some(path) => Ok(Some(path)),
                None => Err(Error::Usage(format!("--peer: there is no program '{name}'"))),
            },
            None => Ok(find(PEER)),
        }
    }

    fn histogram_folder(&self, machine: &Value) -> PathBuf {
        if let Some(dir) = &self.histograms {
            return dir.clone();
        }
        if let Some(json) = &self.json {
            return json.with_extension("histograms");
        }
        let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
        let cache = std::env::var_os("XDG_CACHE_HOME").map_or(home.join(".cache"), PathBuf::from);
        let stamp = hgrm::slug(machine["date"].as_str().unwrap_or("run"));
        cache.join("ringvisor/perf").join(stamp)
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|e| Error::io(path.display().to_string(), e))
}

/// A program by name, in PATH, or by path.
fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The program under test: beside this one. Under `cargo run` it is built first, so that it is the one of the sources.
fn built() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|e| Error::io("path of this program", e))?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "-p", "ringvisor"]);
        command.args((!cfg!(debug_assertions)).then_some("--release"));
        let status = command.status().map_err(|e| Error::io("cargo build", e))?;
        if !status.success() {
            return Err(Error::unexpected("ringvisor could not be built"));
        }
    }
    let path = own.with_file_name("ringvisor");
    if path.is_file() {
        Ok(path)
    } else {
        let text = format!("{} is not there: cargo build --release", path.display());
        Err(Error::Usage(text))
    }
}

/// The first line of what a program says of itself.
fn version(path: impl AsRef<Path>) -> Result<String, Error> {
    let path = path.as_ref();
    let output = Command::new(path).arg("-version").output();
    let output = output.map_err(|e| Error::io(path.display().to_string(), e))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("?").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_are_taken_apart() {
        let text = "qmp boot --quick --json a.json --peer none --only trip";
        let options = Options::parse(&words(text)).unwrap();
        assert_eq!(options.suites, ["qmp", "boot"]);
        assert!(options.quick && options.html.is_none());
        assert_eq!(options.peer().unwrap(), None);
        assert_eq!(options.histogram_folder(&Value::Null), PathBuf::from("a.histograms"));
        let benches = options.benches().unwrap();
        assert!(!benches.is_empty());
        assert!(benches.iter().all(|b| b.cases.iter().any(|c| c.name.contains("trip"))));
    }

    #[test]
    fn errors_say_what_there_is() {
        for (line, text) in [
            ("", "run, list or compare"),
            ("walk", "no command 'walk'"),
            ("run blok", "there are block, hotplug, qmp"),
            ("run --slow", "no option '--slow'"),
            ("run --json", "--json needs a value"),
            ("run --only nothing-like-it", "perf list shows them"),
            ("run qmp --peer no-such-vmm", "no program 'no-such-vmm'"),
            ("compare a.json", "compare takes two files"),
            ("compare /nonexistent /nonexistent", "/nonexistent: "),
        ] {
            let error = main(&words(line)).unwrap_err().to_string();
            assert!(error.contains(text), "{line}: {error}");
        }
        assert!(main(&words("--help")).unwrap().contains("usage: perf run"));
    }

    #[test]
    fn every_suite_has_cases_with_names_of_their_own() {
        let list = list();
        for (suite, _) in suites::ALL {
            assert!(list.contains(&format!("{suite}: ")), "{suite}");
            let benches = suites::benches(suite);
            let mut names: Vec<_> =
                benches.iter().flat_map(|b| &b.cases).map(|c| (&c.name, c.metric)).collect();
            assert!(benches.iter().flat_map(|b| &b.cases).all(|c| c.suite == suite));
            let count = names.len();
            assert!(count > 0);
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{suite}");
        }
    }
}
