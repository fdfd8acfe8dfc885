//! Ogg: a row of pages, each with a checksum. Files that were joined are streams that follow each other. A decoder passes
//! over a page that is damaged: the sound in it would be missing in silence.

use symphonia::core::checksum::Crc32;
use symphonia::core::io::Monitor;

use super::AudioProblem;
use super::layout::{Found, Part};
use super::source::Peek;

const HEADER: usize = 27;
const FIRST_PAGE: u8 = 2;
const LAST_PAGE: u8 = 4;
/// Where a page has its checksum.
const CHECKSUM: usize = 22;
/// The largest page.
const MAX_PAGE: usize = HEADER + 255 + 255 * 255;

/// Walks the pages of a file that has one at `begin`: each must be whole and the last marked as the last.
pub(super) fn read(peek: &mut Peek, begin: u64) -> Result<Found, AudioProblem> {
    let cut = |claimed: &str, found: String| AudioProblem::Truncated { claimed: claimed.to_owned(), found };
    let mut parts: Vec<Part> = Vec::new();
    let (mut at, mut is_ended, mut was_first) = (begin, false, false);
    let mut truncated = None;
    loop {
        let page = peek.bytes(at, MAX_PAGE)?;
        if !page.starts_with(b"OggS") {
            // A tag between two files that were joined.
            let end = peek.end();
            let next = peek.find(at, end, |byte| byte == b'O', |peek, place| Ok(peek.bytes(place, 5)? == b"OggS\0"))?;
            match next {
                Some(next) => {
                    at = next;
                    continue;
                }
                None => break,
            }
        }
        let size = page.get(26).and_then(|count| {
            let table = page.get(HEADER..HEADER + usize::from(*count))?;
            Some(HEADER + table.len() + table.iter().map(|size| usize::from(*size)).sum::<usize>())
        });
        let Some(page) = size.and_then(|size| page.get(..size)) else {
            truncated = Some(cut("another Ogg page", format!("{} bytes of it", page.len())));
            break;
        };
        if checksum(page) != page[CHECKSUM..CHECKSUM + 4] {
            let reason = format!("the checksum of the page at byte {at} is wrong");
            return Err(AudioProblem::Unreadable { reason });
        }
        let flags = page[5];
        let is_first = flags & FIRST_PAGE != 0;
        // Several streams that begin together are of one file.
        if is_first && !was_first {
            parts.push(Part::of(at, at));
        }
        (is_ended, was_first) = (flags & LAST_PAGE != 0, is_first);
        at += page.len() as u64;
        if let Some(part) = parts.last_mut() {
            part.to = at;
        }
    }
    if truncated.is_none() && !is_ended {
        truncated = Some(cut("an Ogg stream with an end mark", "pages without it".to_owned()));
    }
    let end = parts.last().map_or(begin, |part| part.to);
    Ok(Found { parts, end, notes: Vec::new(), truncated })
}

/// A page's checksum, which is computed with zeros in its own place (RFC 3533, section 6).
fn checksum(page: &[u8]) -> [u8; 4] {
    let mut sum = Crc32::new(0);
    for bytes in [&page[..CHECKSUM], &[0; 4], &page[CHECKSUM + 4..]] {
        sum.process_buf_bytes(bytes);
    }
    sum.crc().to_le_bytes()
}
