//! A socket server that only answers: the floor of a management protocol with one hop between threads.

use crate::lab::Placement;
use crate::{Error, host};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// What is answered to each line.
const ANSWER: &[u8] = b"{\"return\": {\"status\": \"prelaunch\", \"running\": false}}\r\n";

/// A client's end of the server.
pub struct Echo {
    stream: UnixStream,
    threads: Vec<JoinHandle<Result<(), Error>>>,
}

impl Echo {
    /// Starts two threads on the server's CPUs: one reads lines, one answers them.
    pub fn start(place: &Placement) -> Result<Self, Error> {
        let (stream, theirs) = UnixStream::pair().map_err(|e| Error::io("socket pair", e))?;
        let mut reader = theirs;
        let mut writer = reader.try_clone().map_err(|e| Error::io("socket", e))?;
        let (ask, asked) = mpsc::channel::<usize>();
        let (there, here) = (place.server.clone(), place.server.clone());
        let reads = std::thread::spawn(move || {
            host::bind_thread(0, &there)?;
            let mut chunk = vec![0; 64 << 10];
            loop {
                let count = reader.read(&mut chunk).unwrap_or(0);
                let lines = chunk[..count].split(|byte| *byte == b'\n').count() - 1;
                if count == 0 || (lines > 0 && ask.send(lines).is_err()) {
                    return Ok(());
                }
            }
        });
        let answers = std::thread::spawn(move || {
            host::bind_thread(0, &here)?;
            while let Ok(lines) = asked.recv() {
                if writer.write_all(&ANSWER.repeat(lines)).is_err() {
                    break;
                }
            }
            Ok(())
        });
        Ok(Self { stream, threads: vec![reads, answers] })
    }

    /// Sends `lines` of `request` and waits for as many answers.
    pub fn exchange(&mut self, request: &[u8], lines: usize) -> Result<(), Error> {
        let sent = if lines == 1 {
            self.stream.write_all(request)
        } else {
            self.stream.write_all(&request.repeat(lines))
        };
        sent.map_err(|e| Error::io("socket", e))?;
        let mut chunk = [0; 16 << 10];
        let mut left = lines * ANSWER.len();
        while left > 0 {
            let count = self.stream.read(&mut chunk).map_err(|e| Error::io("socket", e))?;
            if count == 0 {
                return Err(Error::unexpected("the echo server has ended"));
            }
            left = left.saturating_sub(count);
        }
        Ok(())
    }

    /// Ends the server.
    pub fn stop(self) -> Result<(), Error> {
        drop(self.stream);
        for thread in self.threads {
            thread.join().map_err(|_| Error::unexpected("the echo server panicked"))??;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_answer() {
        let cpus = host::allowed_cpus().unwrap();
        let place = Placement { name: "all", server: cpus.clone(), client: cpus };
        let mut echo = Echo::start(&place).unwrap();
        for lines in [1, 64, 1000, 1] {
            echo.exchange(b"{\"execute\":\"query-status\"}\n", lines).unwrap();
        }
        echo.stop().unwrap();
    }
}
