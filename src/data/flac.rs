//! FLAC: the description of the stream, then frames with a checksum each. Where the last one ends is found here, so that
//! what stands behind it does no harm, and what the description claims can be compared with what is there.

use symphonia::core::checksum::{Crc8Ccitt, Crc16Ansi};
use symphonia::core::io::Monitor;

use super::AudioProblem;
use super::layout::{Found, Part, forgive};
use super::source::Peek;

/// The last frame begins at most so many bytes before the end of the file.
const TAIL: u64 = 2 << 20;

/// The stream's description, without what says how long it is.
#[derive(Clone, Debug)]
struct Info {
    body: Vec<u8>,
    /// Frames that it claims; 0 where its writer did not know.
    claimed: u64,
    rate: u32,
    block: u64,
    /// Where the first frame begins.
    first: u64,
}

/// The header of a frame of sound.
struct FrameHeader {
    /// The first sample of the stream that is in it.
    sample: u64,
    samples: u64,
}

/// Reads the files, one or joined, of which the first begins at `begin`.
pub(super) fn read(peek: &mut Peek, begin: u64) -> Result<Found, AudioProblem> {
    let mut found = Found { parts: Vec::new(), end: begin, notes: Vec::new(), truncated: None };
    let mut next = Some(begin);
    while let Some(at) = next {
        let info = Info::read(peek, at)?;
        let end = peek.end();
        let is_magic = |peek: &mut Peek, place: u64| {
            Ok(peek.bytes(place, 8)?.starts_with(b"fLaC\0\0\0\x22") && Info::read(peek, place).is_ok())
        };
        next = peek.find(info.first, end, |byte| byte == b'f', is_magic)?;
        let tail = find_end(peek, &info, next.unwrap_or(end))?;
        let (frames, is_cut) = (tail.frames, tail.is_cut);
        let is_known = info.claimed > 0 && info.claimed < (1 << 36) - 1;
        let what = |claimed| (format!("{claimed} frames"), format!("{frames} frames"));
        if is_known && info.claimed > frames {
            let problem = forgive(info.claimed - frames, u64::from(info.rate), || what(info.claimed)).err();
            found.truncated = found.truncated.take().or(problem);
        } else if is_cut {
            let claimed = format!("more than {frames} frames");
            found.truncated.get_or_insert(AudioProblem::Truncated { claimed, found: format!("{frames} frames") });
        }
        if !is_known {
            found.notes.push("the header does not state the length".to_owned());
        } else if info.claimed != frames {
            found.notes.push(format!("the header claims {} frames, there are {frames}", info.claimed));
        }
        let part = Part { head: info.head(frames), frames: Some(frames), ..Part::of(info.first, tail.end) };
        found.end = tail.end;
        found.parts.push(part);
    }
    Ok(found)
}

/// The frames that the header of the first file claims, where it says that.
pub(super) fn claimed(peek: &mut Peek, begin: u64) -> Result<Option<(u64, u32)>, AudioProblem> {
    let info = Info::read(peek, begin)?;
    Ok((1..(1 << 36) - 1).contains(&info.claimed).then_some((info.claimed, info.rate)))
}

impl Info {
    fn read(peek: &mut Peek, begin: u64) -> Result<Self, AudioProblem> {
        let end = peek.end();
        let cut = || AudioProblem::Truncated { claimed: "a FLAC header".to_owned(), found: format!("{end} bytes") };
        let body = peek.bytes(begin + 8, 34)?.to_vec();
        if body.len() < 34 {
            return Err(cut());
        }
        let packed = u64::from_be_bytes(body[10..18].try_into().unwrap_or_default());
        let rate = u32::try_from(packed >> 44).unwrap_or(0);
        let channels = usize::try_from((packed >> 41) & 7).unwrap_or(0) + 1;
        super::decode::check_rate_and_channels(rate, channels)?;
        let mut at = begin + 4;
        loop {
            let [kind, a0, a1, a2] = peek.array(at)?.ok_or_else(cut)?;
            at += 4 + u64::from(u32::from_be_bytes([0, a0, a1, a2]));
            if kind & 0x80 != 0 {
                break;
            }
        }
        if at > end {
            return Err(cut());
        }
        let block = u64::from(u16::from_be_bytes([body[0], body[1]]));
        Ok(Self { claimed: packed & ((1 << 36) - 1), rate, block, body, first: at })
    }

    /// A header with nothing but the description, and the true number of frames.
    fn head(&self, frames: u64) -> Vec<u8> {
        let mut head = b"fLaC\x80\0\0\x22".to_vec();
        head.extend(&self.body);
        let packed = u64::from_be_bytes(self.body[10..18].try_into().unwrap_or_default());
        let packed = packed >> 36 << 36 | (frames & ((1 << 36) - 1));
        head[18..26].copy_from_slice(&packed.to_be_bytes());
        // The sum of the samples is of the file as it was written.
        head[26..42].fill(0);
        head
    }

    /// The header of a frame, if these bytes begin with one of this stream.
    fn frame(&self, bytes: &[u8]) -> Option<FrameHeader> {
        let [0xFF, second @ (0xF8 | 0xF9), third, fourth, first, ..] = *bytes else { return None };
        let (block, rate) = (third >> 4, third & 15);
        if block == 0 || rate == 15 || fourth & 1 != 0 || fourth >> 4 > 10 {
            return None;
        }
        let count = match first.leading_ones() {
            0 => 1,
            ones @ 2..=7 => ones as usize,
            _ => return None,
        };
        let mut number = if count == 1 { u64::from(first) } else { u64::from(first & (0x7F_u8 >> count)) };
        for byte in bytes.get(5..4 + count)? {
            if byte >> 6 != 2 {
                return None;
            }
            number = number << 6 | u64::from(byte & 0x3F);
        }
        let mut at = 4 + count;
        let samples = match block {
            1 => 192,
            2..=5 => 576 << (block - 2),
            6 => u64::from(*bytes.get(at)?) + 1,
            7 => u64::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])) + 1,
            _ => 256 << (block - 8),
        };
        at += match block {
            6 => 1,
            7 => 2,
            _ => 0,
        };
        at += match rate {
            12 => 1,
            13 | 14 => 2,
            _ => 0,
        };
        let mut sum = Crc8Ccitt::new(0);
        sum.process_buf_bytes(bytes.get(..at)?);
        if sum.crc() != *bytes.get(at)? {
            return None;
        }
        let sample = if second == 0xF9 { number } else { number * self.block };
        Some(FrameHeader { sample, samples })
    }
}

/// The end of a stream.
struct Tail {
    /// Behind its last whole frame.
    end: u64,
    frames: u64,
    /// Whether a part of another frame follows.
    is_cut: bool,
}

/// Finds the last whole frame before `limit`.
fn find_end(peek: &mut Peek, info: &Info, limit: u64) -> Result<Tail, AudioProblem> {
    let from = limit.saturating_sub(TAIL).max(info.first);
    let count = usize::try_from(limit.saturating_sub(from)).unwrap_or(0);
    let bytes = peek.bytes(from, count)?.to_vec();
    let mut is_cut = false;
    let mut upper = bytes.len();
    for begin in (0..bytes.len()).rev() {
        if bytes[begin] != 0xFF {
            continue;
        }
        let Some(header) = info.frame(&bytes[begin..]) else { continue };
        // The checksum at the end of a frame makes that of the whole frame zero. Where several ends do that, the bytes
        // behind the right one are passed over by the decoder.
        let mut sum = Crc16Ansi::new(0);
        let mut end = None;
        for (place, byte) in bytes.iter().enumerate().take(upper).skip(begin) {
            sum.process_byte(*byte);
            if sum.crc() == 0 {
                end = Some(place + 1);
            }
        }
        if let Some(end) = end {
            let frames = header.sample.saturating_add(header.samples);
            return Ok(Tail { end: from + end as u64, frames, is_cut });
        }
        is_cut = true;
        upper = begin;
    }
    Ok(Tail { end: info.first, frames: 0, is_cut })
}
