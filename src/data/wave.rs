//! The header of a WAV file: what it says of itself that every player forgives is forgiven and noted, and a file that was
//! written into a pipe (sizes unknown to its writer) is read to its end.

use super::AudioProblem;
use super::layout::{Found, Part};
use super::source::Peek;

/// Sizes from here on are what writers into a pipe put (sox 0x7FFFF000, ffmpeg 0xFFFFFFFF).
const STREAMED_SIZE: u32 = 0x7FFF_F000;

/// Integer samples.
const FORMAT_PCM: u16 = 1;
/// Floating-point samples.
const FORMAT_FLOAT: u16 = 3;
/// The true format is in the first two bytes of the extension.
const FORMAT_EXTENSIBLE: u16 = 0xFFFE;

/// A format chunk longer than this is no format.
const MAX_FORMAT: u32 = 4096;

/// The `fmt ` chunk.
struct Format {
    body: Vec<u8>,
    /// Of the samples themselves, where the chunk is extensible.
    tag: u16,
    channels: u16,
    rate: u32,
    byte_rate: u32,
    block: u16,
    bits: u16,
}

impl Format {
    fn parse(body: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_le_bytes(body.get(at..at + 2)?.try_into().ok()?));
        let long = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let mut tag = word(0)?;
        if tag == FORMAT_EXTENSIBLE && body.len() >= 40 {
            tag = word(24)?;
        }
        Some(Self {
            tag,
            channels: word(2)?,
            rate: long(4)?,
            byte_rate: long(8)?,
            block: word(12)?,
            bits: word(14)?,
            body: body.to_vec(),
        })
    }

    /// Integer or float samples, in which case the data's size says how many frames there are.
    fn is_plain(&self) -> bool {
        matches!(self.tag, FORMAT_PCM | FORMAT_FLOAT)
    }

    /// The bits that a sample takes: odd widths (12 or 20 bits) lie in the next whole number of bytes.
    fn container_bits(&self) -> u16 {
        self.bits.div_ceil(8).saturating_mul(8)
    }

    /// Checks the fields, and gives the bytes of a frame (or of a block of a compressed format).
    fn check(&self, notes: &mut Vec<String>) -> Result<u32, AudioProblem> {
        super::decode::check_rate_and_channels(self.rate, usize::from(self.channels))?;
        if !self.is_plain() {
            return Ok(u32::from(self.block.max(1)));
        }
        let right_bits = if self.tag == FORMAT_FLOAT { &[32, 64][..] } else { &[8, 16, 24, 32] };
        let container = self.container_bits();
        if self.bits == 0 || !right_bits.contains(&container) || (self.tag == FORMAT_FLOAT && container != self.bits) {
            return Err(AudioProblem::lie(&format!("{} bits a sample is none of {right_bits:?}", self.bits)));
        }
        let frame = u32::from(self.channels) * u32::from(container / 8);
        let (block, byte_rate) = (u32::from(self.block), u64::from(self.byte_rate));
        let rate = u64::from(self.rate);
        // Two fields that agree with each other against the width of the samples: no telling which is right.
        if block != frame && byte_rate != 0 && byte_rate == rate * u64::from(block) {
            return Err(AudioProblem::lie(&format!(
                "{} channels of {} bits are {frame} bytes a frame, the header says {block}",
                self.channels, self.bits
            )));
        }
        if block != frame {
            notes.push(format!("the header says {block} bytes a frame, a frame has {frame}"));
        }
        if byte_rate != rate * u64::from(frame) {
            notes.push(format!("the header says {byte_rate} bytes a second, there are {}", rate * u64::from(frame)));
        }
        Ok(frame)
    }

    /// The chunk as a strict reader wants it.
    fn written(&self, frame: u32) -> Vec<u8> {
        let mut body = self.body.clone();
        if self.is_plain() {
            let is_extensible = body.len() >= 40 && body.starts_with(&FORMAT_EXTENSIBLE.to_le_bytes());
            body.truncate(if is_extensible { 40 } else { 16 });
            body[8..12].copy_from_slice(&self.rate.saturating_mul(frame).to_le_bytes());
            body[12..14].copy_from_slice(&u16::try_from(frame).unwrap_or(u16::MAX).to_le_bytes());
            body[14..16].copy_from_slice(&self.container_bits().to_le_bytes());
            if is_extensible {
                body[18..20].copy_from_slice(&self.container_bits().to_le_bytes());
            }
        }
        body
    }
}

/// Reads the header of a file that has `RIFF....WAVE` at `begin`.
pub(super) fn read(peek: &mut Peek, begin: u64) -> Result<Found, AudioProblem> {
    let end = peek.end();
    let cut = || AudioProblem::Truncated { claimed: "a WAV header".to_owned(), found: format!("{end} bytes") };
    let riff_size = u32::from_le_bytes(peek.array(begin + 4)?.ok_or_else(cut)?);
    let mut format: Option<Format> = None;
    let mut fact = Vec::new();
    let mut at = begin + 12;
    loop {
        let name: [u8; 4] = peek.array(at)?.ok_or_else(cut)?;
        let size = u32::from_le_bytes(peek.array(at + 4)?.ok_or_else(cut)?);
        let body = at + 8;
        match &name {
            b"fmt " => {
                let bytes = peek.bytes(body, size.min(MAX_FORMAT) as usize)?;
                format = Some(Format::parse(bytes).ok_or_else(cut)?);
            }
            b"fact" if size >= 4 => fact = peek.bytes(body, 4)?.to_vec(),
            b"data" => {
                let format = format.ok_or_else(|| AudioProblem::lie("there is no `fmt ` chunk before the data"))?;
                return data(peek, &format, &fact, begin, riff_size, (body, size));
            }
            _ => {}
        }
        at = body + u64::from(size) + u64::from(size % 2);
        if at > end {
            return Err(AudioProblem::Truncated {
                claimed: format!("a chunk of {size} bytes"),
                found: format!("{} bytes", end.saturating_sub(body)),
            });
        }
    }
}

fn data(
    peek: &mut Peek,
    format: &Format,
    fact: &[u8],
    begin: u64,
    riff_size: u32,
    (body, size): (u64, u32),
) -> Result<Found, AudioProblem> {
    let mut notes = Vec::new();
    let frame = format.check(&mut notes)?;
    let available = peek.end().saturating_sub(body);
    let is_streamed = if size == 0 {
        available > 0 && !is_chunk(peek, body)?
    } else {
        size >= STREAMED_SIZE && u64::from(size) > available
    };
    let block = u64::from(frame);
    let claimed = u64::from(size);
    let mut data_bytes = if is_streamed { available } else { claimed.min(available) };
    if is_streamed {
        notes.push("the header does not state the length".to_owned());
    } else if claimed > available {
        let bytes_a_second =
            if format.is_plain() { u64::from(format.rate) * block } else { u64::from(format.byte_rate) };
        super::layout::forgive(claimed - available, bytes_a_second, || {
            (format!("{claimed} bytes of sound"), format!("{available} bytes"))
        })?;
        notes.push(format!("the header claims {claimed} bytes of sound, there are {available}"));
    }
    if format.is_plain() && data_bytes % block != 0 {
        notes.push(format!("the last {} bytes of the sound are no whole frame", data_bytes % block));
        data_bytes -= data_bytes % block;
    }
    if !is_streamed && riff_size < STREAMED_SIZE && u64::from(riff_size) > peek.end() - begin - 8 {
        let found = peek.end() - begin;
        notes.push(format!("the header claims {} bytes in all, the file has {found}", u64::from(riff_size) + 8));
    }
    // Other chunks may follow: cue points, tags.
    let mut behind = body + if is_streamed { available } else { claimed.min(available) };
    behind = (behind + u64::from(claimed % 2 == 1 && !is_streamed)).min(peek.end());
    while is_chunk(peek, behind)? {
        let size = u32::from_le_bytes(peek.array(behind + 4)?.unwrap_or_default());
        behind = (behind + 8 + u64::from(size) + u64::from(size % 2)).min(peek.end());
    }
    let body_of_format = format.written(frame);
    let mut head = b"RIFF\xFF\xFF\xFF\x7FWAVEfmt ".to_vec();
    head.extend(u32::try_from(body_of_format.len()).unwrap_or(0).to_le_bytes());
    head.extend(body_of_format);
    if !format.is_plain() && !fact.is_empty() {
        head.extend(b"fact\x04\0\0\0");
        head.extend(fact);
    }
    head.extend(b"data");
    let written = u32::try_from(data_bytes).unwrap_or(u32::MAX);
    head.extend(written.to_le_bytes());
    let outer = written.saturating_add(u32::try_from(head.len()).unwrap_or(0)).saturating_sub(8);
    head[4..8].copy_from_slice(&outer.to_le_bytes());
    let part = Part {
        head,
        frames: format.is_plain().then_some(data_bytes / block),
        ..Part::of(body, body + u64::from(written))
    };
    Ok(Found { parts: vec![part], end: behind, notes, truncated: None })
}

/// Whether a chunk begins here: a name, and a size that fits. Not another file.
fn is_chunk(peek: &mut Peek, at: u64) -> Result<bool, AudioProblem> {
    let (Some(name), Some(size)) = (peek.array::<4>(at)?, peek.array::<4>(at + 4)?) else {
        return Ok(false);
    };
    let is_name = name.iter().all(|byte| (b' '..=b'~').contains(byte)) && &name != b"RIFF";
    Ok(is_name && u64::from(u32::from_le_bytes(size)) <= peek.end().saturating_sub(at + 8))
}
