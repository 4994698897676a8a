//! Guest memory in files and on the screen.

use super::client::Client;
use super::human::hmp;
use super::stage::{RAM_BYTES, stage};
use serde_json::{Value, json};
use vm_memory::{Bytes, GuestAddress};

fn save(client: &mut Client, command: &str, val: i64, size: u64, file: &std::path::Path) -> Value {
    let arguments = json!({"val": val, "size": size, "filename": file});
    let reply = client.ask(&json!({"execute": command, "arguments": arguments}));
    reply.get("error").map_or(Value::Null, |error| error["desc"].clone())
}

#[test]
fn memory_is_written_to_files_with_the_errors_of_qemu() {
    stage(|stage| {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dump");
        let mut client = stage.client();
        let pattern: Vec<u8> = (0..200_000).map(|n: u32| (n / 7) as u8).collect();
        stage.machine.ram.write_slice(&pattern, GuestAddress(0x1003)).unwrap();
        for command in ["pmemsave", "memsave"] {
            // More than one piece, and not at the border of a page.
            assert_eq!(save(&mut client, command, 0x1003, 200_000, &file), Value::Null);
            assert!(std::fs::read(&file).unwrap() == pattern, "{command}");
            assert_eq!(save(&mut client, command, 0, 0, &file), Value::Null);
            assert_eq!(std::fs::read(&file).unwrap().len(), 0);
            let missing = directory.path().join("none/dump");
            let expected =
                format!("Could not open '{}': No such file or directory", missing.display());
            assert_eq!(save(&mut client, command, 0, 1, &missing), json!(expected));
            let full = save(&mut client, command, 0, 16, "/dev/full".as_ref());
            assert_eq!(full, json!("writing memory to '/dev/full' failed"));
        }
        // Beyond RAM: zeros by physical address, an error by virtual address.
        let end = RAM_BYTES.cast_signed() - 2;
        stage.machine.ram.write_slice(&[7, 8], GuestAddress(RAM_BYTES - 2)).unwrap();
        assert_eq!(save(&mut client, "pmemsave", end, 4, &file), Value::Null);
        assert_eq!(std::fs::read(&file).unwrap(), [7, 8, 0, 0]);
        assert_eq!(save(&mut client, "pmemsave", -1, 2, &file), Value::Null);
        let expected = format!("Invalid addr 0x{end:016x}/size 4 specified");
        assert_eq!(save(&mut client, "memsave", end, 4, &file), json!(expected));
        let arguments = json!({"val": 0, "size": 1, "filename": file, "cpu-index": 9});
        let request = json!({"execute": "memsave", "arguments": arguments});
        assert_eq!(client.error(&request).1, "Parameter 'cpu-index' expects a CPU number");
    });
}

#[test]
fn a_dump_holds_up_no_other_session() {
    stage(|stage| {
        let mut client = stage.client();
        let mut other = stage.client();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        // As full as it gets: the dump waits for a reader.
        let target = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        let arguments = json!({"val": 0, "size": RAM_BYTES, "filename": target});
        client.send(json!({"execute": "pmemsave", "arguments": arguments}).to_string());
        assert_eq!(other.run("query-status")["running"], json!(true));
        assert_eq!(client.oob("x-where-oob"), json!("monitor"));
        let mut taken = vec![0; RAM_BYTES as usize];
        std::io::Read::read_exact(&mut std::fs::File::from(reader), &mut taken).unwrap();
        assert_eq!(client.message(), json!({"return": {}}));
        drop(writer);
    });
}

#[test]
fn memory_is_shown_in_the_layouts_of_qemu() {
    stage(|stage| {
        let mut client = stage.client();
        let bytes: Vec<u8> = (0x41..0x61).collect();
        stage.machine.ram.write_slice(&bytes, GuestAddress(0x100)).unwrap();
        stage.machine.ram.write_slice(b"\n'\\\x00", GuestAddress(0x200)).unwrap();
        let end = format!("{:016x}", RAM_BYTES - 8);
        for (line, output) in [
            ("xp 0x100", "0000000000000100: 0x44434241\r\n"),
            ("xp/2xg 0x100", "0000000000000100: 0x4847464544434241 0x504f4e4d4c4b4a49\r\n"),
            (
                "xp /5xw 0x100",
                "0000000000000100: 0x44434241 0x48474645 0x4c4b4a49 0x504f4e4d\r\n\
                 0000000000000110: 0x54535251\r\n",
            ),
            ("x /3dh 0x100", "0000000000000100: 16961 17475 17989\r\n"),
            ("xp /3ob 0x100", "0000000000000100: 0101 0102 0103\r\n"),
            ("xp /4cb 0x200", "0000000000000200: '\\n' '\\'' '\\\\' '\\x00'\r\n"),
            (&format!("xp /2xg {}", RAM_BYTES - 8), &format!("{end}: Cannot access memory\r\n")),
            ("xp /2s 0", "invalid char in format: 's'\r\nTry \"help xp\" for more information\r\n"),
            ("xp /2xw", "unexpected end of expression\r\nTry \"help xp\" for more information\r\n"),
            (
                "xp 0 1",
                "xp: extraneous characters at the end of line\r\nTry \"help xp\" for more information\r\n",
            ),
            (
                "pmemsave 0 1",
                "pmemsave: string expected\r\nTry \"help pmemsave\" for more information\r\n",
            ),
            (
                "pmemsave 0 16 \"/nonexistent/a b\"",
                "Error: Could not open '/nonexistent/a b': No such file or directory\r\n",
            ),
            (
                "memsave 0 16 /tmp/z junk",
                "invalid char 't' in expression\r\nTry \"help memsave\" for more information\r\n",
            ),
            ("sum 0x100 3", "16500\r\n"),
            ("sum 0x100 0", "00000\r\n"),
            (&format!("sum {RAM_BYTES} 1"), " Cannot access memory\r\n"),
            ("sum 0", "unexpected end of expression\r\nTry \"help sum\" for more information\r\n"),
            ("print 1+2", "0x3\r\n"),
            ("p /d 0x10", "16\r\n"),
        ] {
            assert_eq!(hmp(&mut client, line), output, "for {line:?}");
        }
        assert!(hmp(&mut client, "xp /99999999xg 0").starts_with("at most 65536 bytes"));
    });
}

#[test]
fn nmis_reach_the_machine() {
    stage(|stage| {
        let mut client = stage.client();
        assert_eq!(client.run("inject-nmi"), json!({}));
        assert_eq!(hmp(&mut client, "nmi"), "");
        assert_eq!(*stage.machine.nmis.lock().unwrap(), 2);
        assert_eq!(client.run("query-command-line-options"), json!([]));
        let arguments = json!({"option": "nope"});
        let options = json!({"execute": "query-command-line-options", "arguments": arguments});
        assert_eq!(client.error(&options).1, "invalid option name: nope");
    });
}
