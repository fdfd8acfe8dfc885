//! CAF: a description of the format, then chunks; with a table of packets, which says what is padding.

use super::AudioProblem;
use super::layout::{Found, Part, forgive};
use super::source::Peek;

/// Reads the header of a file that has `caff` at `begin`.
pub(super) fn read(peek: &mut Peek, begin: u64) -> Result<Found, AudioProblem> {
    let end = peek.end();
    let cut = || AudioProblem::Truncated { claimed: "a CAF header".to_owned(), found: format!("{end} bytes") };
    let (mut description, mut data, mut table) = (None, None, None);
    let mut at = begin + 8;
    while let (Some(name), Some(size)) = (peek.array::<4>(at)?, peek.array::<8>(at + 4)?) {
        if !name.iter().all(|byte| (b' '..=b'~').contains(byte)) || name == *b"caff" {
            break;
        }
        let (body, size) = (at + 12, i64::from_be_bytes(size));
        // A name and a size that does not fit are other bytes.
        if name != *b"data" && !u64::try_from(size).is_ok_and(|size| size <= end.saturating_sub(body)) {
            break;
        }
        match &name {
            b"desc" => description = Some(peek.array::<32>(body)?.ok_or_else(cut)?),
            b"data" => data = Some((body, size)),
            b"pakt" => table = Some(peek.array::<24>(body)?.ok_or_else(cut)?),
            _ => {}
        }
        // A size of -1 says that the sound goes on to the end.
        at = body.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
        if at >= end {
            break;
        }
    }
    let (description, (body, size)) = (description.ok_or_else(cut)?, data.ok_or_else(cut)?);
    let long = |at: usize| u32::from_be_bytes(description[at..at + 4].try_into().unwrap_or_default());
    let rate = f64::from_be_bytes(description[..8].try_into().unwrap_or_default());
    let channels = long(24);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float to integer cast saturates")]
    let rate = rate as u32;
    super::decode::check_rate_and_channels(rate, usize::try_from(channels).unwrap_or(usize::MAX))?;
    let mut notes = Vec::new();
    let first = body + 4;
    let available = end.saturating_sub(first);
    let claimed = u64::try_from(size).unwrap_or(0).saturating_sub(4);
    let is_plain = description[8..12] == *b"lpcm";
    let block = u64::from(long(16).max(1));
    let mut bytes = claimed.min(available);
    if claimed == 0 {
        notes.push("the header does not state the length".to_owned());
        bytes = available;
    } else if claimed > available {
        let a_second = if is_plain { u64::from(rate) * block } else { 0 };
        forgive(claimed - available, a_second, || (format!("{claimed} bytes of sound"), format!("{available} bytes")))?;
        notes.push(format!("the header claims {claimed} bytes of sound, there are {available}"));
    }
    let behind = at.min(end).max(first + bytes);
    if !is_plain {
        let keep = table.map(|table| {
            let valid = u64::from_be_bytes(table[8..16].try_into().unwrap_or_default());
            let priming = u64::from(u32::from_be_bytes(table[16..20].try_into().unwrap_or_default()));
            priming..priming.saturating_add(valid)
        });
        let part = Part { keep: keep.into_iter().collect(), ..Part::of(begin, behind) };
        return Ok(Found { parts: vec![part], end: behind, notes, truncated: None });
    }
    if bytes % block != 0 {
        notes.push(format!("the last {} bytes of the sound are no whole frame", bytes % block));
        bytes -= bytes % block;
    }
    let mut head = b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20".to_vec();
    head.extend(description);
    head.extend(b"data");
    head.extend((bytes + 4).to_be_bytes());
    head.extend([0; 4]);
    let part = Part { head, frames: Some(bytes / block), ..Part::of(first, first + bytes) };
    Ok(Found { parts: vec![part], end: behind, notes, truncated: None })
}
