//! Which audio format a file has, by its first bytes, and whether the formats without a total length are whole.

use super::AudioProblem;

/// The bytes that [`sniff`] wants to see, where there are that many.
pub(super) const HEAD_BYTES: usize = 512;

/// A format that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    /// RIFF WAVE.
    Wave,
    /// FLAC.
    Flac,
    /// Ogg with Vorbis or FLAC.
    Ogg,
    /// AIFF or AIFF-C.
    Aiff,
    /// MPEG audio (MP3), perhaps behind an ID3 tag.
    Mpeg,
}

/// The format of a file that begins with `head`.
pub(super) fn sniff(head: &[u8]) -> Result<Container, AudioProblem> {
    let unsupported = |format, name| Err(AudioProblem::Unsupported { format, name });
    let form = head.get(8..12).unwrap_or_default();
    match head {
        [] => Err(AudioProblem::Empty),
        [b'R', b'I', b'F', b'F', ..] if form == b"WAVE" => Ok(Container::Wave),
        [b'R', b'I', b'F', b'F', ..] if head.len() < 12 => {
            Err(AudioProblem::Truncated { claimed: "a WAV header".to_owned(), found: format!("{} bytes", head.len()) })
        }
        [b'R', b'F', b'6', b'4', ..] => unsupported("RF64", "in.wav"),
        [b'F', b'O', b'R', b'M', ..] if form == b"AIFF" || form == b"AIFC" => Ok(Container::Aiff),
        [b'f', b'L', b'a', b'C', ..] => Ok(Container::Flac),
        [b'O', b'g', b'g', b'S', ..] if contains(head, b"OpusHead") => unsupported("Opus", "in.opus"),
        [b'O', b'g', b'g', b'S', ..] if contains(head, b"Speex   ") => unsupported("Speex", "in.spx"),
        [b'O', b'g', b'g', b'S', ..] => Ok(Container::Ogg),
        [b'I', b'D', b'3', ..] => Ok(Container::Mpeg),
        [b'N', b'I', b'S', b'T', b'_', ..] => unsupported("NIST SPHERE", "in.sph"),
        [b'#', b'!', b'A', b'M', b'R', ..] => unsupported("AMR", "in.amr"),
        [0x1A, 0x45, 0xDF, 0xA3, ..] => unsupported("Matroska or WebM", "in.webm"),
        [b'w', b'v', b'p', b'k', ..] => unsupported("WavPack", "in.wv"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => unsupported("MP4 (AAC)", "in.m4a"),
        // Encoders pad the beginning with zeros at times; a sync word must follow.
        _ => match head.iter().position(|byte| *byte != 0) {
            Some(at) if is_mpeg_sync(head.get(at..).unwrap_or_default()) => Ok(Container::Mpeg),
            _ => Err(AudioProblem::NotAudio),
        },
    }
}

/// Walks the pages of an Ogg file: the last one must be whole and marked as the last.
pub(super) fn check_ogg(bytes: &[u8]) -> Result<(), AudioProblem> {
    const HEADER: usize = 27;
    const END_OF_STREAM: u8 = 4;
    let truncated = |claimed: &str, found: String| AudioProblem::Truncated { claimed: claimed.to_owned(), found };
    let mut rest = bytes;
    let mut is_ended = false;
    while rest.starts_with(b"OggS") {
        let size = rest.get(26).and_then(|count| {
            let table = rest.get(HEADER..HEADER + usize::from(*count))?;
            Some(HEADER + table.len() + table.iter().map(|size| usize::from(*size)).sum::<usize>())
        });
        let page = size.and_then(|size| rest.split_at_checked(size));
        let Some((page, behind)) = page else {
            return Err(truncated("another Ogg page", format!("{} bytes of it", rest.len())));
        };
        is_ended = page.get(5).is_some_and(|flags| flags & END_OF_STREAM != 0);
        rest = behind;
    }
    if !is_ended && rest.is_empty() {
        return Err(truncated("an Ogg stream with an end mark", "pages without it".to_owned()));
    }
    Ok(())
}

/// Walks the frames of an MP3 file: the last one must be whole. Lost synchronisation is left to the decoder.
pub(super) fn check_mpeg(bytes: &[u8]) -> Result<(), AudioProblem> {
    let mut rest = behind_tag(bytes);
    let mut frames = 0;
    while let Some(size) = mpeg_frame_bytes(rest) {
        let Some(behind) = rest.get(size..) else {
            // A stray sync word in rubbish behind the sound is no frame that was cut.
            if frames == 0 {
                break;
            }
            return Err(AudioProblem::Truncated {
                claimed: format!("a frame of {size} bytes"),
                found: format!("{} bytes of it", rest.len()),
            });
        };
        frames += 1;
        rest = behind;
    }
    // Less than a frame header is left: the cut hit the header itself.
    if frames > 0 && (1..4).contains(&rest.len()) && rest.first() == Some(&0xFF) {
        return Err(AudioProblem::Truncated {
            claimed: "another frame".to_owned(),
            found: format!("{} bytes of it", rest.len()),
        });
    }
    Ok(())
}

/// Whether the first frame of an MP3 file states how many follow.
pub(super) fn has_mpeg_length(bytes: &[u8]) -> bool {
    let frame = behind_tag(bytes);
    let size = mpeg_frame_bytes(frame).unwrap_or(0);
    frame.get(..size).is_some_and(|frame| [b"Xing", b"Info", b"VBRI"].iter().any(|tag| contains(frame, *tag)))
}

/// What follows `ID3v2` tags and zeros.
fn behind_tag(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b'I', b'D', b'3', _, _, flags, a0, a1, a2, a3, ..] = rest {
        let size = [a0, a1, a2, a3].iter().fold(0, |size, byte| (size << 7) | usize::from(**byte & 0x7F));
        let footer = if flags & 0x10 == 0 { 0 } else { 10 };
        rest = rest.get(10 + size + footer..).unwrap_or_default();
    }
    let zeros = rest.iter().take_while(|byte| **byte == 0).count();
    rest.get(zeros..).unwrap_or_default()
}

fn is_mpeg_sync(bytes: &[u8]) -> bool {
    mpeg_frame_bytes(bytes).is_some()
}

/// The size in bytes of the MPEG audio frame whose header `bytes` begins with (ISO 11172-3, 13818-3).
fn mpeg_frame_bytes(bytes: &[u8]) -> Option<usize> {
    const FIRST_VERSION: [[usize; 15]; 3] = [
        [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    ];
    const LATER_VERSIONS: [[usize; 15]; 2] = [
        [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let [first, second, third, _, ..] = *bytes else { return None };
    if first != 0xFF || second & 0xE0 != 0xE0 {
        return None;
    }
    // 3 is MPEG 1, 2 is MPEG 2, 0 is MPEG 2.5.
    let version = (second >> 3) & 3;
    let layer = match (second >> 1) & 3 {
        3 => 1,
        2 => 2,
        1 => 3,
        _ => return None,
    };
    let base = [44_100, 48_000, 32_000].get(usize::from((third >> 2) & 3)).copied()?;
    let rate = match version {
        3 => base,
        2 => base / 2,
        0 => base / 4,
        _ => return None,
    };
    let bitrates = match (version, layer) {
        (3, layer) => FIRST_VERSION[layer - 1],
        (_, 1) => LATER_VERSIONS[0],
        _ => LATER_VERSIONS[1],
    };
    let bitrate = bitrates.get(usize::from(third >> 4)).copied().filter(|bitrate| *bitrate > 0)? * 1_000;
    let padding = usize::from((third >> 1) & 1);
    Some(match (layer, version) {
        (1, _) => (12 * bitrate / rate + padding) * 4,
        (3, 0 | 2) => 72 * bitrate / rate + padding,
        _ => 144 * bitrate / rate + padding,
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_panic() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/audio");
        let goods = ["good.ogg", "good.mp3", "good.flac", "good.aiff", "good-16.wav", "tag-frame-claims-much.mp3"]
            .map(|name| std::fs::read(folder.join(name)).unwrap());
        crate::damage::each(&goods, 1_000, |bytes| {
            let _ = sniff(&bytes[..bytes.len().min(HEAD_BYTES)]);
            let _ = check_ogg(bytes);
            let _ = check_mpeg(bytes);
            let _ = has_mpeg_length(bytes);
        });
    }
}
