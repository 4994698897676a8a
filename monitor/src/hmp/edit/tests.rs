use super::{Editor, Typed};

/// A terminal of one endless row, which understands what the editor sends.
#[derive(Default)]
struct Screen {
    rows: Vec<Vec<char>>,
    column: usize,
}

impl Screen {
    fn new() -> Self {
        Self { rows: vec![Vec::new()], column: 0 }
    }

    fn row(&self) -> String {
        self.rows.last().unwrap().iter().collect()
    }

    fn feed(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).unwrap();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\r' => self.column = 0,
                '\n' => self.rows.push(Vec::new()),
                '\x07' => {}
                '\x1b' => self.sequence(&mut chars),
                c => {
                    let row = self.rows.last_mut().unwrap();
                    row.resize(row.len().max(self.column + 1), ' ');
                    row[self.column] = c;
                    self.column += 1;
                }
            }
        }
    }

    fn sequence(&mut self, chars: &mut std::str::Chars<'_>) {
        assert_eq!(chars.next(), Some('['));
        let mut number = 0;
        loop {
            match chars.next().unwrap() {
                'D' => return self.column -= number,
                'J' if number == 0 => return self.rows.last_mut().unwrap().truncate(self.column),
                'J' => return self.rows = vec![Vec::new()],
                'H' => return self.column = 0,
                digit => number = number * 10 + digit.to_digit(10).unwrap() as usize,
            }
        }
    }
}

struct Session {
    editor: Editor,
    screen: Screen,
    lines: Vec<String>,
}

impl Session {
    fn new() -> Self {
        let (editor, mut screen) = (Editor::new("> "), Screen::new());
        let mut out = Vec::new();
        editor.show(&mut out);
        screen.feed(&out);
        Self { editor, screen, lines: Vec::new() }
    }

    /// Types, checks that the screen shows what the editor holds, and gives the row.
    fn typed(&mut self, bytes: &str) -> String {
        for byte in bytes.bytes() {
            let mut out = Vec::new();
            match self.editor.take(byte, &mut out) {
                Typed::Nothing => {}
                Typed::Line(line) => {
                    self.lines.push(line);
                    self.editor.show(&mut out);
                }
                Typed::Interrupted => self.editor.show(&mut out),
                Typed::Complete(_) => {
                    let words = ["stop", "status"].map(str::to_owned);
                    self.editor.complete(&words, &mut out);
                }
            }
            self.screen.feed(&out);
            let line: String = self.editor.line.iter().collect();
            assert_eq!(self.screen.row(), format!("> {line}"));
            assert_eq!(self.screen.column, 2 + self.editor.cursor);
        }
        self.screen.row()
    }
}

#[test]
fn keys_edit_the_line_where_the_cursor_is() {
    let mut session = Session::new();
    assert_eq!(session.typed("stp\x1b[Do"), "> stop");
    assert_eq!(session.typed("\x01e\x1b[3~"), "> etop");
    assert_eq!(session.typed("\x05\x08\x08é\x1b[H\x1b[C\x7f"), "> té");
    assert_eq!(session.typed("\x1bOF all the rest\x17\x17"), "> té all ");
    assert_eq!(session.typed("\x1b[D\x1b[D\x0b"), "> té al");
    assert_eq!(session.typed("\x15now\x02\x02\x06\x04"), "> no");
    assert_eq!(session.typed("\x03"), "> ");
    assert_eq!(session.typed("a\r\nb\nc\x0c"), "> c");
    assert_eq!(session.lines, ["a", "b"]);
}

#[test]
fn lines_come_back() {
    let mut session = Session::new();
    session.typed("one\rtwo\rtwo\r  \rdraft");
    assert_eq!(session.typed("\x1b[A"), "> two");
    assert_eq!(session.typed("\x10"), "> one");
    assert_eq!(session.typed("\x1b[A"), "> one");
    assert_eq!(session.typed("\x1b[B"), "> two");
    assert_eq!(session.typed("\x0e"), "> draft");
    assert_eq!(session.typed("\x1b[B"), "> draft");
    session.typed("\x1b[A!\r");
    assert_eq!(session.lines.last().unwrap(), "two!");
}

#[test]
fn words_are_completed_as_far_as_they_agree() {
    let mut session = Session::new();
    assert_eq!(session.typed("s\t"), "> st");
    let rows = session.screen.rows.len();
    assert_eq!(session.typed("\t"), "> st");
    assert!(session.screen.rows.len() > rows, "the choice is shown");
}

#[test]
fn wild_bytes_and_endless_lines_are_bounded() {
    let mut editor = Editor::new("> ");
    let mut out = Vec::new();
    for byte in [0xff, 0x00, 0xc3, b'a', 0x1b, b'[', 0xe2, 0x82, 0xac] {
        editor.take(byte, &mut out);
    }
    for _ in 0..10_000 {
        editor.take(b'x', &mut out);
    }
    assert!(editor.line.len() <= super::LINE_BYTES_MAX);
    editor.take(0x1b, &mut out);
    editor.take(b'[', &mut out);
    for _ in 0..10_000 {
        editor.take(b'1', &mut out);
    }
    assert_eq!(editor.take(b'D', &mut out), Typed::Nothing);
}
