//! Which audio format a file has, by its content: behind tags, zeros and a little junk, whatever the file's name.

use super::source::Peek;
use super::{AudioProblem, mpeg};
use crate::files;

/// So many bytes in front of the sound may be something else.
const MAX_JUNK: u64 = 64 * 1024;

/// The bytes that a signature is looked for in.
const HEAD_BYTES: usize = 512;

/// A format that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    /// RIFF WAVE.
    Wave,
    /// FLAC.
    Flac,
    /// Ogg with Vorbis, Opus or FLAC.
    Ogg,
    /// AIFF or AIFF-C.
    Aiff,
    /// MPEG audio (MP3).
    Mpeg,
    /// MP4 and M4A with AAC or ALAC.
    Mp4,
    /// Apple's Core Audio Format.
    Caf,
    /// `WebM` and Matroska.
    Webm,
}

/// Where the sound begins, and in which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub container: Container,
    pub at: u64,
    /// Bytes before it that are no tag.
    pub junk: u64,
}

/// Finds the beginning of the sound.
pub(super) fn find(peek: &mut Peek) -> Result<Begin, AudioProblem> {
    if peek.end() == 0 {
        return Err(AudioProblem::Empty);
    }
    let tags = behind_tags(peek, 0)?;
    if let Some(container) = at(peek, tags)? {
        return Ok(Begin { container, at: tags, junk: 0 });
    }
    // What is known by its first bytes and not read is told by its name, and not searched through.
    unread(peek.bytes(tags, HEAD_BYTES)?)?;
    let found = peek.find(tags, tags + MAX_JUNK, is_first, |peek, place| Ok(at(peek, place)?.is_some()))?;
    let Some(place) = found else { return Err(AudioProblem::NotAudio) };
    let Some(container) = at(peek, place)? else { return Err(AudioProblem::NotAudio) };
    Ok(Begin { container, at: place, junk: place - tags })
}

/// Where another file of a known format begins behind `from`.
pub(super) fn find_another(peek: &mut Peek, from: u64) -> Result<Option<u64>, AudioProblem> {
    let end = peek.end();
    peek.find(from, end, is_first, |peek, place| Ok(signature(peek, place)?.is_some()))
}

/// Whether a format can begin with this byte.
fn is_first(byte: u8) -> bool {
    matches!(byte, b'R' | b'f' | b'O' | b'F' | b'c' | 0 | 0x1A | 0xFF)
}

fn at(peek: &mut Peek, place: u64) -> Result<Option<Container>, AudioProblem> {
    if let Some(container) = signature(peek, place)? {
        return Ok(Some(container));
    }
    Ok(mpeg::is_stream(peek, place)?.then_some(Container::Mpeg))
}

/// The format whose signature stands here; MPEG audio has none.
fn signature(peek: &mut Peek, place: u64) -> Result<Option<Container>, AudioProblem> {
    let head = peek.bytes(place, 12)?;
    let form = head.get(8..12).unwrap_or_default();
    Ok(match head {
        [b'R', b'I', b'F', b'F', ..] if form == b"WAVE" => Some(Container::Wave),
        [b'F', b'O', b'R', b'M', ..] if form == b"AIFF" || form == b"AIFC" => Some(Container::Aiff),
        // The first block is always the description of the stream, of 34 bytes.
        [b'f', b'L', b'a', b'C', 0 | 0x80, 0, 0, 34, ..] => Some(Container::Flac),
        [b'O', b'g', b'g', b'S', 0, flags, ..] if flags & 2 != 0 => {
            let page = peek.bytes(place, HEAD_BYTES)?;
            unread(page)?;
            Some(Container::Ogg)
        }
        [b'c', b'a', b'f', b'f', 0, 1, ..] => Some(Container::Caf),
        [0, 0, _, _, b'f', b't', b'y', b'p', ..] => Some(Container::Mp4),
        [0x1A, 0x45, 0xDF, 0xA3, ..] => Some(Container::Webm),
        _ => None,
    })
}

/// An error for a format that is known and not read.
fn unread(head: &[u8]) -> Result<(), AudioProblem> {
    let unsupported = |format, name| Err(AudioProblem::Unsupported { format, name });
    if files::is_lfs_pointer(head) {
        return Err(AudioProblem::LfsPointer);
    }
    match head {
        [b'R', b'I', b'F', b'F', ..] if head.len() < 12 => {
            Err(AudioProblem::Truncated { claimed: "a WAV header".to_owned(), found: format!("{} bytes", head.len()) })
        }
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' ', ..] => unsupported("AVI", "in.avi"),
        [b'R', b'I', b'F', b'X', ..] => unsupported("RIFX", "in.wav"),
        [b'F', b'L', b'V', 1, ..] => unsupported("Flash video (FLV)", "in.flv"),
        // Packets of 188 bytes.
        [b'G', ..] if head.get(188) == Some(&b'G') && head.get(376) == Some(&b'G') => {
            unsupported("an MPEG transport stream", "in.ts")
        }
        [0x56, second, ..] if second & 0xE0 == 0xE0 => unsupported("AAC (LATM)", "in.loas"),
        [b'R', b'F', b'6', b'4', ..] | [b'B', b'W', b'6', b'4', ..] => unsupported("RF64", "in.wav"),
        [b'r', b'i', b'f', b'f', 0x2E, 0x91, ..] => unsupported("Sony Wave64 (W64)", "in.w64"),
        [b'.', b's', b'n', b'd', ..] => unsupported("AU", "in.au"),
        [0x30, 0x26, 0xB2, 0x75, 0x8E, 0x66, ..] => unsupported("ASF (WMA)", "in.wma"),
        [b'O', b'g', b'g', b'S', ..] if contains(head, b"Speex   ") => unsupported("Speex", "in.spx"),
        [b'N', b'I', b'S', b'T', b'_', ..] => unsupported("NIST SPHERE", "in.sph"),
        [b'#', b'!', b'A', b'M', b'R', ..] => unsupported("AMR", "in.amr"),
        [b'w', b'v', b'p', b'k', ..] => unsupported("WavPack", "in.wv"),
        [b'M', b'A', b'C', b' ', ..] => unsupported("Monkey's Audio", "in.ape"),
        [b'T', b'T', b'A', b'1', ..] => unsupported("True Audio (TTA)", "in.tta"),
        [b'D', b'S', b'D', b' ', ..] => unsupported("DSF", "in.dsf"),
        [b'M', b'P', b'C', b'K', ..] | [b'M', b'P', b'+', ..] => unsupported("Musepack", "in.mpc"),
        [0x0B, 0x77, ..] => unsupported("AC-3", "in.ac3"),
        [b'A', b'D', b'I', b'F', ..] => unsupported("AAC (ADIF)", "in.aac"),
        // The sync word of MPEG audio with a layer that it does not have.
        [0xFF, second, ..] if second & 0xF6 == 0xF0 => unsupported("AAC (ADTS)", "in.aac"),
        _ => Ok(()),
    }
}

/// What follows `ID3v2` tags.
pub(super) fn behind_tags(peek: &mut Peek, mut place: u64) -> Result<u64, AudioProblem> {
    while let Some([b'I', b'D', b'3', _, _, flags, a0, a1, a2, a3]) = peek.array(place)? {
        let size = [a0, a1, a2, a3].iter().fold(0, |size, byte| (size << 7) | u64::from(byte & 0x7F));
        place += 10 + size + if flags & 0x10 == 0 { 0 } else { 10 };
    }
    Ok(place)
}

/// Where what follows the sound is more than tags, zeros and line ends: the place and how many bytes there are.
pub(super) fn behind_sound(peek: &mut Peek, mut place: u64) -> Result<Option<(u64, u64)>, AudioProblem> {
    let end = peek.end();
    while place < end {
        let head = peek.bytes(place, 32)?;
        let size = match head {
            [0 | b'\n' | b'\r' | b' ', ..] => 1,
            [b'T', b'A', b'G', ..] if end - place >= 128 => 128,
            [b'A', b'P', b'E', b'T', b'A', b'G', b'E', b'X', _, _, _, _, s0, s1, s2, s3, ..] => {
                // The size is that of the items and the footer; a header stands before them.
                32 + u64::from(u32::from_le_bytes([*s0, *s1, *s2, *s3]))
            }
            [b'I', b'D', b'3', ..] => behind_tags(peek, place)? - place,
            [b'L', b'Y', b'R', b'I', b'C', b'S', b'B', b'E', b'G', b'I', b'N', ..] => end - place,
            _ => return Ok(Some((place, end - place))),
        };
        place = place.saturating_add(size.max(1));
    }
    Ok(None)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
