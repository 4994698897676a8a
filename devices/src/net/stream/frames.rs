//! Frames in a stream of bytes.

use super::super::FRAME_MAX;

/// Bytes of the length before each frame.
pub(super) const PREFIX: usize = 4;

/// Room for what one read brings.
const CAPACITY: usize = 128 * 1024;

/// A stream that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes was announced; the limit is {FRAME_MAX}")]
pub(super) struct Oversize(pub(super) usize);

/// Where in the buffer the bytes are that have been read and not delivered.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// Kept while there is no buffer around them.
    pub(super) rest: Vec<u8>,
    start: usize,
    end: usize,
}

impl Decoder {
    /// An empty buffer of the right size.
    pub(super) fn buffer() -> Box<[u8]> {
        vec![0; CAPACITY].into()
    }

    /// Puts what was kept into `buffer`.
    pub(super) fn restore(&mut self, buffer: &mut [u8]) {
        let rest = std::mem::take(&mut self.rest);
        buffer[..rest.len()].copy_from_slice(&rest);
        (self.start, self.end) = (0, rest.len());
    }

    /// Keeps what is in `buffer`.
    pub(super) fn keep(&mut self, buffer: &[u8]) {
        self.rest = buffer[self.start..self.end].to_vec();
    }

    /// Where the next bytes are to be read to; moves what is there to the front if needed.
    pub(super) fn free(&mut self, buffer: &mut [u8]) -> std::ops::Range<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && buffer.len() - self.end < CAPACITY / 2 {
            buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.end..buffer.len()
    }

    /// `n` bytes have been read to where [`free`](Self::free) said.
    pub(super) fn read(&mut self, n: usize) {
        self.end += n;
    }

    /// The next whole frame.
    pub(super) fn next<'b>(&mut self, buffer: &'b [u8]) -> Result<Option<&'b [u8]>, Oversize> {
        let have = &buffer[self.start..self.end];
        let Some((prefix, rest)) = have.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > FRAME_MAX {
            return Err(Oversize(len));
        }
        let Some(frame) = rest.get(..len) else { return Ok(None) };
        self.start += PREFIX + len;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_oversize_frame_is_refused_at_its_prefix() {
        let mut buffer = Decoder::buffer();
        let mut decoder = Decoder::default();
        buffer[..4].copy_from_slice(&(FRAME_MAX as u32 + 1).to_be_bytes());
        decoder.read(4);
        assert_eq!(decoder.next(&buffer), Err(Oversize(FRAME_MAX + 1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn frames_come_out_as_they_went_in(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..200),
            cuts in prop::collection::vec(1usize..100_000, 1..20),
            handover in any::<bool>(),
        ) {
            let stream: Vec<u8> = frames
                .iter()
                .flat_map(|frame| {
                    (frame.len() as u32).to_be_bytes().into_iter().chain(frame.iter().copied())
                })
                .collect();
            let (mut buffer, mut decoder) = (Decoder::buffer(), Decoder::default());
            let (mut at, mut found) = (0, Vec::new());
            for cut in cuts.iter().cycle() {
                let free = decoder.free(&mut buffer);
                prop_assert!(!free.is_empty(), "there is always room");
                let n = (*cut).min(free.len()).min(stream.len() - at);
                buffer[free.start..free.start + n].copy_from_slice(&stream[at..at + n]);
                decoder.read(n);
                at += n;
                while let Some(frame) = decoder.next(&buffer).unwrap() {
                    found.push(frame.to_vec());
                }
                if handover {
                    decoder.keep(&buffer);
                    buffer = Decoder::buffer();
                    decoder.restore(&mut buffer);
                }
                if at == stream.len() {
                    break;
                }
            }
            prop_assert_eq!(found, frames);
        }
    }
}
