//! Matroska and `WebM`: a tree of elements. Where it ends, and what an encoder put before and behind the sound, is found
//! here.

use super::layout::{Found, Part};
use super::source::Peek;
use super::{AudioProblem, container};

const EBML: u32 = 0x1A45_DFA3;
const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1F43_B675;
const BLOCK_GROUP: u32 = 0xA0;
const DISCARD_PADDING: u32 = 0x75A2;
const TRACKS: u32 = 0x1654_AE6B;
const TRACK: u32 = 0xAE;
const TRACK_TYPE: u32 = 0x83;
const CODEC_DELAY: u32 = 0x56AA;

/// The other elements of a segment, a cluster and a group of blocks.
const OTHERS: [u32; 25] = [
    0x114D_9B74,
    0x1549_A966,
    0x1C53_BB6B,
    0x1941_A469,
    0x1043_A770,
    0x1254_C367,
    0xE7,
    0x5854,
    0xA7,
    0xAB,
    0xA3,
    0xAF,
    0xA1,
    0xA2,
    0x75A1,
    0x9B,
    0xFA,
    0xFB,
    0xFD,
    0xA4,
    0x8E,
    0xC8,
    0xEC,
    0xBF,
    0x2F41_2D50,
];

/// So many bytes behind a recording of unknown size that are none of its elements are junk; more are damage.
const MAX_JUNK: u64 = 256;

/// Walks the elements of a file that begins at `begin`.
pub(super) fn read(peek: &mut Peek, begin: u64) -> Result<Found, AudioProblem> {
    let end = peek.end();
    let mut at = begin;
    let mut segment_end = u64::MAX;
    let (mut delay, mut padding) = (0, 0);
    let mut truncated = None;
    while at < end.min(segment_end) {
        let Some((name, size, body)) = element(peek, at)? else { break };
        let is_known = [EBML, SEGMENT, CLUSTER, BLOCK_GROUP, DISCARD_PADDING, TRACKS].contains(&name);
        // Nothing but its elements says how far a segment of unknown size reaches.
        if segment_end == u64::MAX && !is_known && !OTHERS.contains(&name) {
            break;
        }
        match name {
            EBML if at != begin => break,
            // Their size is unknown where they were written as they came.
            SEGMENT | CLUSTER | BLOCK_GROUP => {
                if name == SEGMENT
                    && let Some(size) = size
                {
                    segment_end = body.saturating_add(size);
                }
                at = body;
                continue;
            }
            DISCARD_PADDING => padding = number(peek, body, size)?.saturating_add(padding),
            TRACKS => delay = codec_delay(peek, body, body.saturating_add(size.unwrap_or(0)).min(end))?,
            _ => {}
        }
        let Some(size) = size else { break };
        at = body.saturating_add(size);
        if at > end {
            let found = format!("{} bytes", end - body.min(end));
            truncated = Some(AudioProblem::Truncated { claimed: format!("an element of {size} bytes"), found });
        }
    }
    if truncated.is_none() && segment_end != u64::MAX && at < segment_end && at >= end {
        let claimed = format!("{} bytes in all", segment_end - begin);
        truncated = Some(AudioProblem::Truncated { claimed, found: format!("{} bytes", end - begin) });
    }
    let at = at.min(end);
    if truncated.is_none()
        && segment_end == u64::MAX
        && let Some((place, bytes)) = container::behind_sound(peek, at)?
        && bytes > MAX_JUNK
    {
        let reason = format!("at byte {place} begins nothing that WebM has");
        truncated = Some(AudioProblem::Unreadable { reason });
    }
    let part = Part { delay_nanoseconds: delay, padding_nanoseconds: padding, ..Part::of(begin, at) };
    Ok(Found { parts: vec![part], end: at, notes: Vec::new(), truncated })
}

/// What the encoder of the first track of sound put before it, in nanoseconds.
fn codec_delay(peek: &mut Peek, from: u64, to: u64) -> Result<u64, AudioProblem> {
    const SOUND: u64 = 2;
    let (mut at, mut is_sound, mut delay) = (from, false, 0);
    while at < to {
        let Some((name, Some(size), body)) = element(peek, at)? else { break };
        match name {
            TRACK if is_sound => break,
            TRACK => {
                (delay, at) = (0, body);
                continue;
            }
            TRACK_TYPE => is_sound = number(peek, body, Some(size))? == SOUND,
            CODEC_DELAY => delay = number(peek, body, Some(size))?,
            _ => {}
        }
        at = body.saturating_add(size);
    }
    Ok(if is_sound { delay } else { 0 })
}

/// A whole number of at most eight bytes.
fn number(peek: &mut Peek, body: u64, size: Option<u64>) -> Result<u64, AudioProblem> {
    let count = usize::try_from(size.unwrap_or(0)).unwrap_or(0).min(8);
    Ok(peek.bytes(body, count)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// The name of the element that begins here, its size where that is known, and where its content begins.
fn element(peek: &mut Peek, at: u64) -> Result<Option<(u32, Option<u64>, u64)>, AudioProblem> {
    let bytes = peek.bytes(at, 12)?;
    let width = bytes.first().map_or(9, |first| first.leading_zeros() as usize + 1);
    let (Some(name), true) = (bytes.get(..width), width <= 4) else { return Ok(None) };
    let name = name.iter().fold(0, |name, byte| name << 8 | u32::from(*byte));
    let Some(first) = bytes.get(width) else { return Ok(None) };
    let length = first.leading_zeros() as usize + 1;
    let Some(size) = bytes.get(width..width + length).filter(|_| length <= 8) else { return Ok(None) };
    let mask = (1_u64 << (7 * length)) - 1;
    let size = size.iter().fold(0_u64, |size, byte| size << 8 | u64::from(*byte)) & mask;
    Ok(Some((name, (size != mask).then_some(size), at + (width + length) as u64)))
}
