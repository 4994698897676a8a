//! A line into a command.

use devices::base64;

/// Bytes that one command may read, write or set at most.
const BYTES_MAX: u64 = 16 << 20;
/// Bytes that `memset` may set at most.
const MEMSET_MAX: u64 = 1 << 30;

/// What a program asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Endianness,
    /// Port, bytes, value.
    Out(u16, usize, u32),
    /// Port, bytes.
    In(u16, usize),
    /// Address, bytes, value.
    Store(u64, usize, u64),
    /// Address, bytes.
    Load(u64, usize),
    Read(u64, usize),
    ReadBase64(u64, usize),
    Write(u64, Vec<u8>),
    /// Address, bytes, value of each.
    Memset(u64, u64, u8),
    /// Nanoseconds, or to the next deadline.
    ClockStep(Option<i64>),
    ClockSet(i64),
    /// The path of a device; whether its outputs are meant.
    Intercept(String, bool),
    /// Path of a device, name of its inputs, number, level.
    SetIrq(String, String, u32, bool),
    ModuleLoad,
}

/// Parses `line`. The error is the reply.
pub(super) fn parse(line: &str) -> Result<Command, String> {
    let words = Words { command: line.split(' ').next().unwrap_or_default(), line };
    let command = words.command;
    Ok(match command {
        "endianness" => Command::Endianness,
        "outb" | "outw" | "outl" => {
            Command::Out(words.port(1)?, width(command), words.number(2)? as u32)
        }
        "inb" | "inw" | "inl" => Command::In(words.port(1)?, width(command)),
        "writeb" | "writew" | "writel" | "writeq" => {
            Command::Store(words.number(1)?, width(command), words.number(2)?)
        }
        "readb" | "readw" | "readl" | "readq" => Command::Load(words.number(1)?, width(command)),
        "read" => Command::Read(words.number(1)?, words.length(2)?),
        "b64read" => Command::ReadBase64(words.number(1)?, words.length(2)?),
        "write" => {
            let (address, length) = (words.number(1)?, words.length(2)?);
            Command::Write(address, padded(hex(words.data(3)?)?, length))
        }
        "b64write" => {
            let (address, length) = (words.number(1)?, words.length(2)?);
            let data =
                base64::decode(words.data(3)?.as_bytes()).ok_or("ERR the data is not base64")?;
            Command::Write(address, padded(data, length))
        }
        "memset" => {
            let length = words.number(2)?;
            if length > MEMSET_MAX {
                return Err(format!("ERR memset sets {MEMSET_MAX} bytes at most"));
            }
            Command::Memset(words.number(1)?, length, words.number(3)? as u8)
        }
        "clock_step" => {
            let step = words.get(1).map(|_| words.number(1)).transpose()?;
            Command::ClockStep(step.map(u64::cast_signed))
        }
        "clock_set" => Command::ClockSet(words.number(1)?.cast_signed()),
        "irq_intercept_in" | "irq_intercept_out" => {
            Command::Intercept(words.word(1)?.to_owned(), command.ends_with("out"))
        }
        "set_irq_in" => Command::SetIrq(
            words.word(1)?.to_owned(),
            words.word(2)?.to_owned(),
            words.number(3)? as u32,
            words.number(4)? != 0,
        ),
        "module_load" => {
            words.word(1)?;
            words.word(2)?;
            Command::ModuleLoad
        }
        _ => return Err(words.unknown()),
    })
}

/// Bytes of an access, from the last letter of its command.
fn width(command: &str) -> usize {
    match command.as_bytes().last() {
        Some(b'w') => 2,
        Some(b'l') => 4,
        Some(b'q') => 8,
        _ => 1,
    }
}

/// Hexadecimal digits after `0x`; other characters count as zero, as they do in QEMU.
fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes().get(2..).filter(|digits| !digits.is_empty());
    let digits = digits.ok_or("ERR invalid argument size")?;
    let nibble = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    Ok(digits.chunks_exact(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect())
}

/// As many bytes as were announced.
fn padded(mut data: Vec<u8>, length: usize) -> Vec<u8> {
    data.resize(length, 0);
    data
}

/// The words of a line.
struct Words<'a> {
    command: &'a str,
    line: &'a str,
}

impl<'a> Words<'a> {
    fn unknown(&self) -> String {
        let command: String = self.command.chars().take(64).collect();
        format!("FAIL Unknown command '{command}'")
    }

    fn get(&self, index: usize) -> Option<&'a str> {
        self.line.split(' ').nth(index)
    }

    fn word(&self, index: usize) -> Result<&'a str, String> {
        let missing = || format!("ERR {}: argument {index} is missing", self.command);
        self.get(index).filter(|word| !word.is_empty()).ok_or_else(missing)
    }

    /// A C number: decimal, octal after `0` or hexadecimal after `0x`; a minus sign wraps around.
    fn number(&self, index: usize) -> Result<u64, String> {
        let word = self.word(index)?;
        let wrong = || {
            let start: String = word.chars().take(32).collect();
            format!("ERR {}: '{start}' is no number of 64 bits", self.command)
        };
        let (negative, digits) = word.strip_prefix('-').map_or((false, word), |d| (true, d));
        let (radix, digits) = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            Some(hex) => (16, hex),
            None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
            None => (10, digits),
        };
        if digits.starts_with('+') {
            return Err(wrong());
        }
        let value = u64::from_str_radix(digits, radix).map_err(|_| wrong())?;
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    fn port(&self, index: usize) -> Result<u16, String> {
        let number = self.number(index)?;
        let wrong = |_| format!("ERR {}: there is no port {number:#x}", self.command);
        u16::try_from(number).map_err(wrong)
    }

    /// A number of bytes to transfer: at least one.
    fn length(&self, index: usize) -> Result<usize, String> {
        let number = self.number(index)?;
        if number == 0 {
            return Err("ERR invalid argument size".to_owned());
        }
        if number > BYTES_MAX {
            return Err(format!("ERR {}: {BYTES_MAX} bytes at most", self.command));
        }
        Ok(number as usize)
    }

    /// Encoded bytes, of at least one byte.
    fn data(&self, index: usize) -> Result<&'a str, String> {
        let word = self.word(index)?;
        if word.len() < 3 { Err("ERR invalid argument size".to_owned()) } else { Ok(word) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_understood() {
        let ok = |line: &str| parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(ok("endianness"), Command::Endianness);
        assert_eq!(ok("outw 0xcf8 0x12345"), Command::Out(0xcf8, 2, 0x12345));
        assert_eq!(ok("inl 0777"), Command::In(0o777, 4));
        assert_eq!(ok("writeq 0x10 -1"), Command::Store(16, 8, u64::MAX));
        assert_eq!(ok("readb 16"), Command::Load(16, 1));
        assert_eq!(ok("read 0 3"), Command::Read(0, 3));
        assert_eq!(ok("b64read 0 3"), Command::ReadBase64(0, 3));
        assert_eq!(ok("write 0x1 4 0x0aFg"), Command::Write(1, vec![0x0a, 0xf0, 0, 0]));
        assert_eq!(ok("write 1 1 0x0102"), Command::Write(1, vec![1]));
        assert_eq!(ok("b64write 1 4 AQIDBA=="), Command::Write(1, vec![1, 2, 3, 4]));
        assert_eq!(ok("memset 1 0 0x1ff"), Command::Memset(1, 0, 0xff));
        assert_eq!(ok("clock_step"), Command::ClockStep(None));
        assert_eq!(ok("clock_step 100"), Command::ClockStep(Some(100)));
        assert_eq!(ok("clock_set 5"), Command::ClockSet(5));
        assert_eq!(ok("irq_intercept_in ioapic"), Command::Intercept("ioapic".to_owned(), false));
        let (path, name) = ("ioapic".to_owned(), "unnamed-gpio-in".to_owned());
        assert_eq!(
            ok("set_irq_in ioapic unnamed-gpio-in 4 1"),
            Command::SetIrq(path, name, 4, true)
        );
        assert_eq!(ok("module_load hw- x"), Command::ModuleLoad);
    }

    #[test]
    fn what_is_malformed_gets_a_reply() {
        for (line, expected) in [
            ("", "FAIL Unknown command ''"),
            (" outb 1 2", "FAIL Unknown command ''"),
            ("OUTB 1 2", "FAIL Unknown command 'OUTB'"),
            ("outb", "ERR outb: argument 1 is missing"),
            ("outb 0x70", "ERR outb: argument 2 is missing"),
            ("inb zz", "ERR inb: 'zz' is no number of 64 bits"),
            ("inb 0x10000", "ERR inb: there is no port 0x10000"),
            (
                "readb 0x1fffffffffffffffff",
                "ERR readb: '0x1fffffffffffffffff' is no number of 64 bits",
            ),
            ("readb +1", "ERR readb: '+1' is no number of 64 bits"),
            ("read 0 0", "ERR invalid argument size"),
            ("read 0 0x100000000", "ERR read: 16777216 bytes at most"),
            ("write 0 4 0x", "ERR invalid argument size"),
            ("b64write 0 4 A!!A", "ERR the data is not base64"),
            ("memset 0 0x80000000 0", "ERR memset sets 1073741824 bytes at most"),
            ("clock_set", "ERR clock_set: argument 1 is missing"),
            ("set_irq_in ioapic", "ERR set_irq_in: argument 2 is missing"),
        ] {
            assert_eq!(parse(line).unwrap_err(), expected, "{line}");
        }
    }
}
