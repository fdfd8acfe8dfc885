//! The header of an AIFF or AIFF-C file: the size of the sound decides, and not the number of frames stated beside it.

use super::AudioProblem;
use super::layout::{Found, Part, forgive};
use super::source::Peek;

/// A description of the format longer than this is none.
const MAX_COMM: u32 = 4096;

/// Compression types of AIFF-C that compress nothing.
const PLAIN: [&[u8; 4]; 12] =
    [b"NONE", b"none", b"twos", b"sowt", b"raw ", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32", b"42ni"];

/// Reads the header of a file that has `FORM....AIFF` or `FORM....AIFC` at `begin`.
pub(super) fn read(peek: &mut Peek, begin: u64) -> Result<Found, AudioProblem> {
    let end = peek.end();
    let cut = || AudioProblem::Truncated { claimed: "an AIFF header".to_owned(), found: format!("{end} bytes") };
    let form: [u8; 4] = peek.array(begin + 8)?.ok_or_else(cut)?;
    let (mut comm, mut sound): (Option<Vec<u8>>, Option<(u64, u64)>) = (None, None);
    let mut at = begin + 12;
    while let (Some(name), Some(size)) = (peek.array::<4>(at)?, peek.array::<4>(at + 4)?) {
        let (size, body) = (u32::from_be_bytes(size), at + 8);
        match &name {
            b"COMM" => comm = Some(peek.bytes(body, size.min(MAX_COMM) as usize)?.to_vec()),
            b"SSND" => sound = Some((body, u64::from(size))),
            b"FORM" => break,
            _ if !name.iter().all(|byte| (b' '..=b'~').contains(byte)) => break,
            _ => {}
        }
        at = body + u64::from(size) + u64::from(size % 2);
        // The sound is the last chunk where its size is one that a writer into a pipe puts.
        if sound.is_some() && comm.is_some() && at >= end {
            break;
        }
    }
    let comm = comm.filter(|comm| comm.len() >= 18).ok_or_else(cut)?;
    let Some((body, size)) = sound else { return Err(cut()) };
    let word = |at: usize| u16::from_be_bytes([comm[at], comm[at + 1]]);
    let stated = u32::from_be_bytes([comm[2], comm[3], comm[4], comm[5]]);
    let (channels, bits, rate) = (word(0), word(6), extended(&comm[8..18]));
    super::decode::check_rate_and_channels(rate, usize::from(channels))?;
    let is_plain = comm.get(18..22).is_none_or(|kind| PLAIN.iter().any(|plain| kind == *plain));
    let block = u64::from(channels) * u64::from(bits.div_ceil(8)).max(1);
    let offset = u64::from(u32::from_be_bytes(peek.array(body)?.ok_or_else(cut)?));
    let first = body.saturating_add(8).saturating_add(offset).min(end);
    let (claimed, available) = (size.saturating_sub(8 + offset), end - first);
    let mut notes = Vec::new();
    let mut data_bytes = claimed.min(available);
    if !(8..0x7FFF_0000).contains(&size) {
        notes.push("the header does not state the length".to_owned());
        data_bytes = available;
    } else if claimed > available {
        let bytes_a_second = if is_plain { u64::from(rate) * block } else { u64::from(rate) };
        forgive(claimed - available, bytes_a_second, || {
            (format!("{claimed} bytes of sound"), format!("{available} bytes"))
        })?;
        notes.push(format!("the header claims {claimed} bytes of sound, there are {available}"));
    }
    let mut frames = u64::from(stated);
    if is_plain {
        if data_bytes % block != 0 {
            notes.push(format!("the last {} bytes of the sound are no whole frame", data_bytes % block));
            data_bytes -= data_bytes % block;
        }
        frames = data_bytes / block;
        if frames != u64::from(stated) {
            notes.push(format!("the header claims {stated} frames, there are {frames}"));
        }
    }
    let mut head = b"FORM\0\0\0\0".to_vec();
    head.extend(form);
    if &form == b"AIFC" {
        head.extend(b"FVER\0\0\0\x04\xA2\x80\x51\x40");
    }
    let put = |head: &mut Vec<u8>, value: u64| head.extend(u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
    head.extend(b"COMM");
    put(&mut head, comm.len() as u64);
    head.extend(&comm[..2]);
    put(&mut head, frames);
    head.extend(&comm[6..]);
    head.extend(std::iter::repeat_n(0, comm.len() % 2));
    head.extend(b"SSND");
    put(&mut head, data_bytes + 8);
    head.extend([0; 8]);
    let outer = u32::try_from(head.len() as u64 + data_bytes).unwrap_or(u32::MAX).saturating_sub(8);
    head[4..8].copy_from_slice(&outer.to_be_bytes());
    let part = Part {
        head,
        frames: is_plain.then_some(frames),
        claimed: (!is_plain).then_some(frames),
        ..Part::of(first, first + data_bytes)
    };
    let end_of_sound = at.min(end).max(first + data_bytes);
    Ok(Found { parts: vec![part], end: end_of_sound, notes, truncated: None })
}

/// A rate as AIFF writes it, a float of 80 bits; 0 for what is no whole number of hertz.
fn extended(bytes: &[u8]) -> u32 {
    let exponent = u32::from(u16::from_be_bytes([bytes[0], bytes[1]]) & 0x7FFF);
    let mantissa = u64::from_be_bytes(bytes[2..10].try_into().unwrap_or_default());
    let shift = 16_383 + 63_u32;
    match shift.checked_sub(exponent) {
        Some(by @ 0..=63) => u32::try_from(mantissa >> by).unwrap_or(0),
        _ => 0,
    }
}
