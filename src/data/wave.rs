//! The header of a WAV file, checked field against field and against the file's size, so that a header that lies is an
//! error and a file that was written into a pipe (sizes unknown to its writer) is read to its end.

use std::io::{Read, Seek, SeekFrom};

use super::AudioProblem;

/// Sizes from here on are what writers into a pipe put (sox 0x7FFFF000, ffmpeg 0xFFFFFFFF).
const STREAMED_SIZE: u32 = 0x7FFF_F000;

/// Integer samples.
const FORMAT_PCM: u16 = 1;
/// Floating-point samples.
const FORMAT_FLOAT: u16 = 3;
/// The true format is in the first two bytes of the extension.
const FORMAT_EXTENSIBLE: u16 = 0xFFFE;

/// What a sound header says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WaveHeader {
    /// In Hz.
    pub rate: u32,
    /// At least 1.
    pub channels: u16,
    /// Bytes of one frame (or of one block of a compressed format).
    pub block: u16,
    /// Whether the sizes in the file are placeholders.
    pub is_streamed: bool,
    /// Where the data's size field is.
    pub size_field: u64,
    /// The true size of the data in bytes.
    pub data_bytes: u64,
    /// Integer or float samples, in which case `data_bytes / block` is the number of frames.
    pub is_plain: bool,
}

struct Format {
    tag: u16,
    channels: u16,
    rate: u32,
    byte_rate: u32,
    block: u16,
    bits: u16,
}

/// Reads and checks the header of a file that begins with `RIFF....WAVE`.
pub(super) fn check(reader: &mut (impl Read + Seek)) -> Result<WaveHeader, AudioProblem> {
    let failed = |error: std::io::Error| AudioProblem::Unreadable { reason: error.to_string() };
    let file_bytes = reader.seek(SeekFrom::End(0)).map_err(failed)?;
    let cut = || AudioProblem::Truncated { claimed: "a WAV header".to_owned(), found: format!("{file_bytes} bytes") };
    reader.seek(SeekFrom::Start(4)).map_err(failed)?;
    let riff_size = u32::from_le_bytes(bytes(reader).ok_or_else(cut)?);
    let mut format: Option<Format> = None;
    let mut at = 12_u64;
    loop {
        reader.seek(SeekFrom::Start(at)).map_err(failed)?;
        let name: [u8; 4] = bytes(reader).ok_or_else(cut)?;
        let size = u32::from_le_bytes(bytes(reader).ok_or_else(cut)?);
        let body = at + 8;
        if &name == b"fmt " {
            format = Some(read_format(reader, size).ok_or_else(cut)?);
        } else if &name == b"data" {
            let format = format.ok_or_else(|| AudioProblem::lie("there is no `fmt ` chunk before the data"))?;
            return check_data(reader, &format, size, riff_size, body, file_bytes);
        }
        at = body + u64::from(size) + u64::from(size % 2);
        if at > file_bytes {
            return Err(AudioProblem::Truncated {
                claimed: format!("a chunk of {size} bytes"),
                found: format!("{} bytes", file_bytes.saturating_sub(body)),
            });
        }
    }
}

fn check_data(
    reader: &mut (impl Read + Seek),
    format: &Format,
    size: u32,
    riff_size: u32,
    body: u64,
    file_bytes: u64,
) -> Result<WaveHeader, AudioProblem> {
    let is_plain = matches!(format.tag, FORMAT_PCM | FORMAT_FLOAT);
    check_format(format, is_plain)?;
    let available = file_bytes.saturating_sub(body);
    let is_streamed = if size == 0 {
        available > 0 && !is_chunk(reader, body, available)
    } else {
        size >= STREAMED_SIZE && u64::from(size) > available
    };
    let block = u64::from(format.block.max(1));
    let data_bytes = if is_streamed { available / block * block } else { u64::from(size) };
    if data_bytes > available {
        return Err(AudioProblem::Truncated {
            claimed: format!("{data_bytes} bytes of sound"),
            found: format!("{available} bytes"),
        });
    }
    if is_plain && data_bytes % block != 0 {
        return Err(AudioProblem::lie(&format!(
            "{data_bytes} bytes of sound are no whole number of {block}-byte frames"
        )));
    }
    // Some writers leave the outer size at 0 or unset when the inner one is right; only a size that promises more than
    // there is says that the end is missing.
    if !is_streamed && riff_size < STREAMED_SIZE && u64::from(riff_size) > file_bytes.saturating_sub(8) + 1 {
        return Err(AudioProblem::Truncated {
            claimed: format!("{} bytes in all", u64::from(riff_size) + 8),
            found: format!("{file_bytes} bytes"),
        });
    }
    Ok(WaveHeader {
        rate: format.rate,
        channels: format.channels,
        block: format.block,
        is_streamed,
        size_field: body - 4,
        data_bytes,
        is_plain,
    })
}

fn check_format(format: &Format, is_plain: bool) -> Result<(), AudioProblem> {
    super::decode::check_rate_and_channels(format.rate, usize::from(format.channels))?;
    if !is_plain {
        return Ok(());
    }
    let right_bits = if format.tag == FORMAT_FLOAT { &[32, 64][..] } else { &[8, 16, 24, 32] };
    // Odd widths (12 or 20 bits) lie in the next whole number of bytes.
    let container = format.bits.div_ceil(8).saturating_mul(8);
    if format.bits == 0 || !right_bits.contains(&container) || (format.tag == FORMAT_FLOAT && container != format.bits)
    {
        return Err(AudioProblem::lie(&format!("{} bits a sample is none of {right_bits:?}", format.bits)));
    }
    let frame = u32::from(format.channels) * u32::from(container / 8);
    if u32::from(format.block) != frame {
        return Err(AudioProblem::lie(&format!(
            "{} channels of {} bits are {frame} bytes a frame, the header says {}",
            format.channels, format.bits, format.block
        )));
    }
    // 0 is what some writers put where they do not know.
    if format.byte_rate != 0 && u64::from(format.byte_rate) != u64::from(format.rate) * u64::from(frame) {
        return Err(AudioProblem::lie(&format!(
            "{} Hz at {frame} bytes a frame is not the {} bytes a second that the header says",
            format.rate, format.byte_rate
        )));
    }
    Ok(())
}

fn read_format(reader: &mut impl Read, size: u32) -> Option<Format> {
    let mut tag = u16::from_le_bytes(bytes(reader)?);
    let channels = u16::from_le_bytes(bytes(reader)?);
    let rate = u32::from_le_bytes(bytes(reader)?);
    let byte_rate = u32::from_le_bytes(bytes(reader)?);
    let block = u16::from_le_bytes(bytes(reader)?);
    let bits = u16::from_le_bytes(bytes(reader)?);
    if tag == FORMAT_EXTENSIBLE && size >= 40 {
        // Extension size, valid bits, channel mask.
        let _: [u8; 8] = bytes(reader)?;
        tag = u16::from_le_bytes(bytes(reader)?);
    }
    Some(Format { tag, channels, rate, byte_rate, block, bits })
}

/// Whether what follows an empty data chunk is another chunk and not sound.
fn is_chunk(reader: &mut (impl Read + Seek), at: u64, available: u64) -> bool {
    if reader.seek(SeekFrom::Start(at)).is_err() {
        return false;
    }
    let (Some(name), Some(size)) = (bytes::<4>(reader), bytes::<4>(reader)) else {
        return false;
    };
    name.iter().all(|byte| (b' '..=b'~').contains(byte)) && u64::from(u32::from_le_bytes(size)) + 8 <= available
}

fn bytes<const COUNT: usize>(reader: &mut impl Read) -> Option<[u8; COUNT]> {
    let mut buffer = [0; COUNT];
    reader.read_exact(&mut buffer).ok()?;
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No bytes panic; a header that is believed claims no more than there is.
    #[test]
    fn no_bytes_panic() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/audio");
        let goods = ["good-16.wav", "good-extensible.wav", "good-list-chunk.wav", "streamed.wav", "adpcm.wav"]
            .map(|name| std::fs::read(folder.join(name)).unwrap());
        crate::damage::each(&goods, 3_000, |bytes| {
            if let Ok(header) = check(&mut std::io::Cursor::new(bytes)) {
                assert!(header.channels > 0 && header.rate > 0);
                assert!(header.size_field + 4 + header.data_bytes <= bytes.len() as u64);
            }
        });
    }
}
