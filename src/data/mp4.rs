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
