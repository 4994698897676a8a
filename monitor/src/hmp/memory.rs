//! Guest memory: `x`, `xp`, `memsave`, `pmemsave`; and `print`, which shares their formats.

use super::args::{Args, Failure, Format};
use crate::commands::memory::{self, MemSave, PMemSave};
use crate::core::Env;
use std::fmt::Write as _;

/// The most that one command shows, in bytes of memory.
const DUMP_MAX: u64 = 64 << 10;

pub(super) async fn memsave(env: &Env, rest: &str) -> Result<String, Failure> {
    let (val, size, filename) = what_to_save(rest)?;
    memory::memsave(env.clone(), MemSave { val, size, filename, cpu_index: None }).await?;
    Ok(String::new())
}

pub(super) async fn pmemsave(env: &Env, rest: &str) -> Result<String, Failure> {
    let (val, size, filename) = what_to_save(rest)?;
    memory::pmemsave(env.clone(), PMemSave { val, size, filename }).await?;
    Ok(String::new())
}

fn what_to_save(rest: &str) -> Result<(u64, u64, String), Failure> {
    let mut args = Args::new(rest);
    let address = args.expression()? as u64;
    let size = u64::from(args.expression32("size")? as u32);
    let name = args.word()?;
    args.end()?;
    Ok((address, size, name))
}

/// Bytes that `sum` reads before others have their turn.
const SUM_PIECE: u64 = 1 << 20;

/// The 16-bit checksum of sum(1) over physical memory.
pub(super) async fn sum(env: &Env, rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let address = args.expression()? as u64;
    let size = u64::from(args.expression32("size")? as u32);
    args.end()?;
    let machine = env.machine()?;
    let (mut sum, mut done, mut buffer) = (0u16, 0, Vec::new());
    while done < size {
        buffer.resize((size - done).min(SUM_PIECE) as usize, 0);
        let at = address.wrapping_add(done);
        if !machine.ram().is_some_and(|ram| memory::read_ram(ram, at, &mut buffer)) {
            return Ok(" Cannot access memory\n".to_owned());
        }
        for byte in &buffer {
            sum = sum.rotate_right(1).wrapping_add(u16::from(*byte));
        }
        done += buffer.len() as u64;
        reactor::yield_now().await;
    }
    Ok(format!("{sum:05}\n"))
}

pub(super) fn print(rest: &str) -> Result<String, Failure> {
    let mut args = Args::new(rest);
    let (format, value) = (args.format()?, args.expression()?);
    args.end()?;
    Ok(match format.letter {
        'o' => format!("{}\n", octal(value as u64, 0)),
        'd' => format!("{value}\n"),
        'u' => format!("{}\n", value as u64),
        'c' => format!("{}\n", character(value as u8)),
        _ => format!("{value:#x}\n"),
    })
}

/// Physical memory.
pub(super) fn xp(env: &Env, rest: &str) -> Result<String, Failure> {
    let (format, address) = what_to_dump(rest)?;
    let machine = env.machine()?;
    Ok(dump(format, address, |address, buffer| {
        machine.ram().is_some_and(|ram| memory::read_ram(ram, address, buffer))
    }))
}

/// Memory as the first vCPU addresses it.
pub(super) async fn x(env: &Env, rest: &str) -> Result<String, Failure> {
    let (format, address) = what_to_dump(rest)?;
    let machine = env.machine()?;
    if machine.cpus().is_empty() {
        return Ok("Can not dump without CPU\n".to_owned());
    }
    let linear = machine.linear(0).await?;
    Ok(dump(format, address, |address, buffer| {
        machine.ram().is_some_and(|ram| memory::read_linear(ram, &linear, address, buffer))
    }))
}

fn what_to_dump(rest: &str) -> Result<(Format, u64), Failure> {
    let mut args = Args::new(rest);
    let (format, address) = (args.format()?, args.expression()? as u64);
    args.end()?;
    if format.count.saturating_mul(format.bytes as u64) > DUMP_MAX {
        let text = format!("at most {DUMP_MAX} bytes are shown at once; pmemsave writes more");
        return Err(Failure::Syntax(text));
    }
    Ok((format, address))
}

fn dump(format: Format, start: u64, read: impl Fn(u64, &mut [u8]) -> bool) -> String {
    let row_bytes = if format.bytes == 1 { 8 } else { 16 };
    let item_bytes = if format.letter == 'c' { 1 } else { format.bytes };
    let mut left = format.count as usize * format.bytes;
    let (mut text, mut address) = (String::new(), start);
    while left > 0 {
        let _ = write!(text, "{address:016x}:");
        let mut row = vec![0; left.min(row_bytes)];
        if !read(address, &mut row) {
            text += " Cannot access memory\n";
            break;
        }
        for item in row.chunks(item_bytes) {
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(item) {
                *to = *from;
            }
            text.push(' ');
            text += &number(u64::from_le_bytes(bytes), format.letter, item_bytes);
        }
        text.push('\n');
        address = address.wrapping_add(row.len() as u64);
        left -= row.len();
    }
    text
}

/// As wide as the largest of its size.
fn number(value: u64, letter: char, bytes: usize) -> String {
    let bits = bytes * 8;
    match letter {
        'o' => octal(value, bits.div_ceil(3)),
        'd' | 'u' => format!("{value:0$}", (bits * 10).div_ceil(33)),
        'c' => character(value as u8),
        _ => format!("0x{value:00$x}", bits / 4),
    }
}

/// With a leading zero, as printf's `%#*o`.
fn octal(value: u64, width: usize) -> String {
    let digits = if value == 0 { "0".to_owned() } else { format!("0{value:o}") };
    format!("{digits:>width$}")
}

fn character(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}
