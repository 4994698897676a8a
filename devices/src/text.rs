//! Text as users write it on the command line and in the monitor.

/// Whether `id` is an identifier as QEMU has it: a letter, then letters, digits, `-`, `.` and `_`.
pub fn is_identifier(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

/// Splits at single commas; a doubled comma stands for one.
pub fn split_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        if c != ',' {
            parts[last].push(c);
        } else if chars.next_if_eq(&',').is_some() {
            parts[last].push(',');
        } else {
            parts.push(String::new());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::{is_identifier, split_commas};

    #[test]
    fn identifiers_begin_with_a_letter() {
        assert!(["a", "disk0", "a-b.c_d"].into_iter().all(is_identifier));
        assert!(!["", "0", "-a", "a b", "a,b", "\u{e9}", "#block1"].into_iter().any(is_identifier));
    }

    #[test]
    fn doubled_commas_are_commas() {
        assert_eq!(split_commas(""), [""]);
        assert_eq!(split_commas("a,b=c,,d,"), ["a", "b=c,d", ""]);
    }
}
