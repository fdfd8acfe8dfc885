//! Matroska and `WebM`: a tree of elements. Where it ends and what of the last packet is padding is found here.

use super::AudioProblem;
use super::layout::{Found, Part};
use super::source::Peek;

const EBML: u32 = 0x1A45_DFA3;
const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1F43_B675;
const BLOCK_GROUP: u32 = 0xA0;
const DISCARD_PADDING: u32 = 0x75A2;

/// Walks the elements of a file that begins at `begin`.
pub(super) fn read(peek: &mut Peek, begin: u64) -> Result<Found, AudioProblem> {
    let end = peek.end();
    let mut at = begin;
    let mut segment_end = u64::MAX;
    let mut padding = 0;
    let mut truncated = None;
    while at < end.min(segment_end) {
        let Some((name, size, body)) = element(peek, at)? else { break };
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
            DISCARD_PADDING => {
                let count = usize::try_from(size.unwrap_or(0)).unwrap_or(0).min(8);
                let value = peek.bytes(body, count)?.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
                padding += value;
            }
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
    let part = Part { padding_nanoseconds: padding, ..Part::of(begin, at) };
    Ok(Found { parts: vec![part], end: at, notes: Vec::new(), truncated })
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
