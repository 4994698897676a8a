//! Replies and events as text.

use super::connection::Failure;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// How replies are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One line of JSON each.
    Json,
    /// For people.
    Table,
}

/// Prints what a command returned. A table of nothing is nothing.
pub(super) fn value(value: &Value, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Json => format!("{value}\n"),
        Format::Table => table(value),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Prints an event as it comes.
pub(super) fn event(event: &Value, format: Format) -> Result<(), Failure> {
    let text = match format {
        Format::Json => format!("{event}\n"),
        Format::Table => event_line(event),
    };
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Time (UTC), name and data.
pub(super) fn event_line(event: &Value) -> String {
    let stamp = &event["timestamp"];
    let seconds = stamp["seconds"].as_i64().unwrap_or_default();
    let microseconds = stamp["microseconds"].as_i64().unwrap_or_default();
    let name = event["event"].as_str().unwrap_or("?");
    let data = event.get("data").map_or_else(String::new, |data| format!(" {data}"));
    format!("{}.{microseconds:06}Z {name}{data}\n", date(seconds))
}

/// Seconds since 1970 as a date of the Gregorian calendar and a time (ISO 8601).
fn date(seconds: i64) -> String {
    let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March, in eras of 400, so that the leap day is the last of its year.
    let day = days + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + carry;
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}")
}

fn table(value: &Value) -> String {
    match value {
        Value::Object(members) if members.is_empty() => String::new(),
        Value::Object(_) => {
            let rows = flat(value).into_iter().map(|(key, cell)| vec![key, cell]);
            columns(&rows.collect::<Vec<_>>())
        }
        Value::Array(elements) if elements.iter().any(Value::is_object) => objects(elements),
        Value::Array(elements) => {
            elements.iter().fold(String::new(), |text, element| text + &scalar(element) + "\n")
        }
        // The output of HMP has its own line ends.
        Value::String(text) if text.contains('\n') => text.replace('\r', ""),
        scalar_value => scalar(scalar_value) + "\n",
    }
}

/// A row for each object, a column for each member that any of them has.
fn objects(elements: &[Value]) -> String {
    let flat: Vec<_> = elements.iter().map(flat).collect();
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in flat.iter().flatten() {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let mut rows = vec![keys.iter().map(|key| key.to_uppercase()).collect::<Vec<_>>()];
    for element in &flat {
        let cell = |key: &&str| {
            let found = element.iter().find(|(own, _)| own == key);
            found.map_or_else(|| "-".to_owned(), |(_, cell)| cell.clone())
        };
        rows.push(keys.iter().map(cell).collect());
    }
    columns(&rows)
}

/// The members with the paths of nested ones; lists stay JSON.
fn flat(value: &Value) -> Vec<(String, String)> {
    let Value::Object(members) = value else { return vec![(String::new(), scalar(value))] };
    let mut cells = Vec::new();
    for (key, member) in members {
        match member {
            Value::Object(inner) if !inner.is_empty() => {
                let nested = flat(member).into_iter();
                cells.extend(nested.map(|(inner, cell)| (format!("{key}.{inner}"), cell)));
            }
            _ => cells.push((key.clone(), scalar(member))),
        }
    }
    cells
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows as columns of equal width; the last one as it is.
fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _infallible = write!(line, "{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{date, event_line, table};
    use serde_json::json;

    #[test]
    fn objects_are_columns() {
        let cpus = json!([
            {"cpu": 0, "props": {"core": 0, "thread": 1}, "path": "/a"},
            {"cpu": 10, "props": {"core": 5}, "names": ["x"]},
        ]);
        assert_eq!(
            table(&cpus),
            "CPU  PROPS.CORE  PROPS.THREAD  PATH  NAMES\n\
             0    0           1             /a    -\n\
             10   5           -             -     [\"x\"]\n"
        );
        assert_eq!(
            table(&json!({"status": "running", "running": true})),
            "status   running\nrunning  true\n"
        );
        assert_eq!(table(&json!({})), "");
        assert_eq!(table(&json!([])), "");
        assert_eq!(table(&json!(["a", 1])), "a\n1\n");
        assert_eq!(table(&json!("one\r\ntwo\r\n")), "one\ntwo\n");
        assert_eq!(table(&json!("one")), "one\n");
    }

    #[test]
    fn events_have_their_time() {
        let event = json!({"timestamp": {"seconds": 1_795_218_943, "microseconds": 42},
                           "event": "RESET", "data": {"guest": false}});
        assert_eq!(event_line(&event), "2026-11-20T23:55:43.000042Z RESET {\"guest\":false}\n");
        assert_eq!(date(0), "1970-01-01T00:00:00");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(date(4_107_542_399), "2100-02-28T23:59:59");
    }
}
