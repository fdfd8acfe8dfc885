//! MP4 and M4A: a tree of boxes. The edit list says which of the decoded samples are sound: the rest is what the encoder put
//! in front.

use super::AudioProblem;
use super::layout::{Found, Part};
use super::source::Peek;

/// A box: its name, and where its content is.
struct Box {
    name: [u8; 4],
    from: u64,
    to: u64,
}

/// The names of boxes at the top level.
const NAMES: [&[u8; 4]; 16] = [
    b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"free", b"skip", b"wide", b"uuid", b"sidx", b"styp", b"meta",
    b"pdin", b"emsg", b"udta", b"pnot",
];

/// Reads the file, one box at the top level after another, that begins at `begin`.
pub(super) fn read(peek: &mut Peek, begin: u64) -> Result<Found, AudioProblem> {
    let mut at = begin;
    let end = peek.end();
    let mut keep = Vec::new();
    let (mut has_movie, mut truncated) = (false, None);
    while let Some(found) = next_box(peek, at, end)? {
        // The type of the file stands once, at its beginning; what has no box's name is none.
        if !NAMES.contains(&&found.name) || (&found.name == b"ftyp" && has_movie) {
            break;
        }
        if &found.name == b"moov" {
            has_movie = true;
            keep = sound_of(peek, &found)?.into_iter().collect();
        }
        if found.to > end {
            let (claimed, found) = (found.to - found.from, end.saturating_sub(found.from));
            let (claimed, found) = (format!("a box of {claimed} bytes"), format!("{found} bytes of it"));
            truncated = Some(AudioProblem::Truncated { claimed, found });
        }
        at = found.to;
    }
    if !has_movie {
        let (claimed, found) = ("a `moov` box".to_owned(), "other boxes".to_owned());
        return Err(AudioProblem::Truncated { claimed, found });
    }
    let at = at.min(end);
    Ok(Found { parts: vec![Part { keep, ..Part::of(begin, at) }], end: at, notes: Vec::new(), truncated })
}

/// The box that begins here; `None` if no name of a box stands.
fn next_box(peek: &mut Peek, at: u64, end: u64) -> Result<Option<Box>, AudioProblem> {
    let Some([s0, s1, s2, s3, n0, n1, n2, n3]) = peek.array(at)? else { return Ok(None) };
    let name = [n0, n1, n2, n3];
    if !name.iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == 0xA9) {
        return Ok(None);
    }
    let (head, size) = match u32::from_be_bytes([s0, s1, s2, s3]) {
        0 => (8, end.saturating_sub(at)),
        1 => (16, u64::from_be_bytes(peek.array(at + 8)?.unwrap_or_default())),
        size => (8, u64::from(size)),
    };
    Ok((size >= head).then(|| Box { name, from: at + head, to: at.saturating_add(size) }))
}

/// The first box of a name in another.
fn inside(peek: &mut Peek, outer: &Box, name: [u8; 4]) -> Result<Option<Box>, AudioProblem> {
    let mut at = outer.from;
    while at < outer.to
        && let Some(found) = next_box(peek, at, outer.to)?
    {
        if found.name == name {
            return Ok(Some(found));
        }
        at = found.to;
    }
    Ok(None)
}

/// Along a path of names.
fn along(peek: &mut Peek, outer: &Box, path: &[&[u8; 4]]) -> Result<Option<Box>, AudioProblem> {
    let mut here = Box { name: outer.name, from: outer.from, to: outer.to };
    for name in path {
        match inside(peek, &here, **name)? {
            Some(found) => here = found,
            None => return Ok(None),
        }
    }
    Ok(Some(here))
}

/// The samples of the first track of sound that its edit list keeps.
fn sound_of(peek: &mut Peek, movie: &Box) -> Result<Option<std::ops::Range<u64>>, AudioProblem> {
    let mut at = movie.from;
    while at < movie.to
        && let Some(track) = next_box(peek, at, movie.to)?
    {
        at = track.to;
        if &track.name != b"trak" {
            continue;
        }
        let Some(handler) = along(peek, &track, &[b"mdia", b"hdlr"])? else { continue };
        if peek.array::<4>(handler.from + 8)? != Some(*b"soun") {
            continue;
        }
        if let Some(list) = along(peek, &track, &[b"mdia", b"minf", b"stbl", b"stsd"])? {
            check_codec(peek, &list)?;
        }
        let start = match along(peek, &track, &[b"edts", b"elst"])? {
            Some(list) => first_edit(peek, &list)?,
            None => 0,
        };
        // As players do: no more than the length that the track states, where it states one.
        let length = match along(peek, &track, &[b"mdia", b"mdhd"])? {
            Some(header) => length(peek, &header)?,
            None => u64::MAX,
        };
        return Ok(Some(start..start.saturating_add(length)));
    }
    Ok(None)
}

/// An error for sound that is known and not read, by the first of the track's sample descriptions.
fn check_codec(peek: &mut Peek, list: &Box) -> Result<(), AudioProblem> {
    let unsupported = |format, name| Err(AudioProblem::Unsupported { format, name });
    let Some(entry) = next_box(peek, list.from + 8, list.to)? else { return Ok(()) };
    // QuickTime's later versions have more fields before the boxes.
    let version = u16::from_be_bytes(peek.array(entry.from + 8)?.unwrap_or_default());
    match &entry.name {
        b"samr" | b"sawb" => unsupported("AMR in 3GP or MP4", "in.3gp"),
        b"Opus" => unsupported("Opus in MP4", "in.mp4"),
        b"ac-3" | b"ec-3" => unsupported("AC-3 in MP4", "in.mp4"),
        b"alac" if version > 0 => unsupported("ALAC in QuickTime", "in.mov"),
        b"mp4a" => {
            let fields = [28, 44, 64].get(usize::from(version)).copied().unwrap_or(28);
            let boxes = Box { name: entry.name, from: entry.from + fields, to: entry.to };
            let outer = inside(peek, &boxes, *b"wave")?.unwrap_or(boxes);
            let Some(description) = inside(peek, &outer, *b"esds")? else { return Ok(()) };
            if is_low_complexity(peek.bytes(description.from + 4, 64)?) {
                return Ok(());
            }
            unsupported("AAC of another kind than LC (such as HE-AAC, which restores high frequencies)", "in.m4a")
        }
        _ => Ok(()),
    }
}

/// Whether a description of an elementary stream (ISO 14496-1, 7.2.6) is of AAC that is decoded whole (ISO 14496-3,
/// 1.6.2.1), or of something else than AAC.
fn is_low_complexity(mut bytes: &[u8]) -> bool {
    const AAC: u8 = 0x40;
    let mut object = AAC;
    while let [tag, rest @ ..] = bytes {
        // The length: seven bits a byte, of which all but the last have the highest bit.
        let length = rest.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
        let Some(content) = rest.get(length..) else { return true };
        bytes = match tag {
            // Two bytes of a number, one of flags; only MPEG-2 uses what these announce.
            3 => content.get(3..).unwrap_or_default(),
            4 => {
                object = content.first().copied().unwrap_or(AAC);
                content.get(13..).unwrap_or_default()
            }
            5 if object == AAC => {
                let eight = content.iter().chain(std::iter::repeat(&0)).take(8);
                let bits = eight.fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
                let field = |from: u32, count: u32| bits << from >> (64 - count);
                // Where the rate stands in full, it takes 24 bits more.
                let behind = if field(5, 4) == 15 { 40 } else { 16 };
                let extends = field(behind, 11) == 0x2B7 && field(behind + 11, 5) == 5 && field(behind + 16, 1) == 1;
                return field(0, 5) == 2 && !extends;
            }
            _ => return true,
        };
    }
    true
}

/// The length of a track in its own time; the largest number where it is not stated.
fn length(peek: &mut Peek, header: &Box) -> Result<u64, AudioProblem> {
    let stated = match peek.array::<1>(header.from)? {
        Some([1]) => u64::from_be_bytes(peek.array(header.from + 24)?.unwrap_or_default()),
        _ => match u32::from_be_bytes(peek.array(header.from + 16)?.unwrap_or_default()) {
            u32::MAX => 0,
            length => u64::from(length),
        },
    };
    Ok(if stated == 0 { u64::MAX } else { stated })
}

/// Where the first edit that is not empty begins, in the track's time, which is counted in samples.
fn first_edit(peek: &mut Peek, list: &Box) -> Result<u64, AudioProblem> {
    let version = peek.array::<1>(list.from)?.unwrap_or_default()[0];
    let count = u32::from_be_bytes(peek.array(list.from + 4)?.unwrap_or_default());
    let (mut at, size) = (list.from + 8, if version == 1 { 20 } else { 12 });
    for _ in 0..count {
        if at + size > list.to {
            break;
        }
        let time = if version == 1 {
            i64::from_be_bytes(peek.array(at + 8)?.unwrap_or_default())
        } else {
            i64::from(i32::from_be_bytes(peek.array(at + 4)?.unwrap_or_default()))
        };
        if let Ok(start) = u64::try_from(time) {
            return Ok(start);
        }
        at += size;
    }
    Ok(0)
}
