//! What may follow the beginning of a line.

use super::table::{self, HmpCommand};

/// The words that the last one of `before` may become, sorted.
pub(super) fn words(before: &str) -> Vec<String> {
    let (rest, last) = match before.rsplit_once(char::is_whitespace) {
        Some((rest, last)) => (rest, last),
        None => ("", before),
    };
    let mut previous = rest.split_whitespace();
    let commands = match (previous.next(), previous.next(), previous.next()) {
        (None | Some("help" | "?"), None, _) => table::COMMANDS,
        (Some("info"), None, _) | (Some("help" | "?"), Some("info"), None) => table::info(),
        _ => return Vec::new(),
    };
    let names = |command: &'static HmpCommand| command.names.split('|');
    let matches = |name: &&str| name.starts_with(last);
    let mut words: Vec<String> =
        commands.iter().flat_map(names).filter(matches).map(str::to_owned).collect();
    words.sort_unstable();
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn commands_and_what_there_is_to_ask_for() {
        assert_eq!(words("sys"), ["system_powerdown", "system_reset", "system_wakeup"]);
        assert_eq!(words("help sto"), ["stop"]);
        assert_eq!(words("info stat"), ["status"]);
        assert_eq!(words("help info uu"), ["uuid"]);
        assert!(words("").contains(&"q".to_owned()));
        assert!(words("info ").contains(&"cpus".to_owned()));
        assert_eq!(words("stop "), [""; 0]);
        assert_eq!(words("nothing"), [""; 0]);
    }
}
