//! MPEG audio (MP3): a file is a row of frames, each with a header, and often a first one that tells of the others. The
//! frames are found here, so that a piece of a long recording is read from near its beginning.

use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use super::AudioProblem;
use super::container::behind_tags;
use super::layout::{Found, Part, forgive};
use super::source::Peek;

/// A place is kept of every so many frames.
const STRIDE: u64 = 32;

/// Frames before a piece that are decoded for their effect on it: what they leave of the bit reservoir (at most 511 bytes
/// of sound), the overlap and the filter bank.
const BEFORE: u64 = 30;

/// The decoder's own delay in samples, which the first frame's tag does not count.
const DECODER_DELAY: u64 = 529;

/// Fields of two frames of one stream that are the same: sync word, version, layer, rate, mode.
const SAME_STREAM: u32 = 0xFFFE_0CCF;

/// The largest frame.
const MAX_FRAME: usize = 4096;

/// The header of a frame (ISO 11172-3, 13818-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    word: u32,
    /// In bytes, the header included.
    size: usize,
    rate: u32,
    /// Samples of each channel.
    samples: u64,
    pub layer: u8,
    is_mono: bool,
    is_first_version: bool,
}

impl Header {
    fn parse(bytes: [u8; 4]) -> Option<Self> {
        const FIRST_VERSION: [[usize; 15]; 3] = [
            [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
            [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
            [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
        ];
        const LATER_VERSIONS: [[usize; 15]; 2] = [
            [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
            [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
        ];
        let [first, second, third, fourth] = bytes;
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
        let base = [44_100_u32, 48_000, 32_000].get(usize::from((third >> 2) & 3)).copied()?;
        let rate = match version {
            3 => base,
            2 => base / 2,
            0 => base / 4,
            _ => return None,
        };
        let bitrates = match (version, layer) {
            (3, layer) => FIRST_VERSION[usize::from(layer) - 1],
            (_, 1) => LATER_VERSIONS[0],
            _ => LATER_VERSIONS[1],
        };
        let bitrate = bitrates.get(usize::from(third >> 4)).copied().filter(|bitrate| *bitrate > 0)? * 1_000;
        let padding = usize::from((third >> 1) & 1);
        let (size, samples) = match (layer, version) {
            (1, _) => ((12 * bitrate / rate as usize + padding) * 4, 384),
            (3, 0 | 2) => (72 * bitrate / rate as usize + padding, 576),
            _ => (144 * bitrate / rate as usize + padding, 1152),
        };
        let is_mono = fourth >> 6 == 3;
        Some(Self {
            word: u32::from_be_bytes(bytes),
            size,
            rate,
            samples,
            layer,
            is_mono,
            is_first_version: version == 3,
        })
    }

    fn is_of_stream(&self, other: &Self) -> bool {
        (self.layer, self.rate, self.is_first_version) == (other.layer, other.rate, other.is_first_version)
    }

    fn read(peek: &mut Peek, at: u64) -> Result<Option<Self>, AudioProblem> {
        Ok(peek.array(at)?.and_then(Self::parse))
    }
}

/// Whether a stream of frames begins here: a frame, and behind it the end or more of them.
pub(super) fn is_stream(peek: &mut Peek, at: u64) -> Result<bool, AudioProblem> {
    let Some(first) = Header::read(peek, at)? else { return Ok(false) };
    let mut place = at + first.size as u64;
    let mut last = first;
    for frame in 0..3 {
        let Some(next) = Header::read(peek, place)? else {
            // A file of one or two frames; what follows is a tag, or nothing.
            return Ok(place <= peek.end() && super::container::behind_sound(peek, place)?.is_none());
        };
        let differs = (next.word ^ last.word) & SAME_STREAM != 0;
        // The first frame may be one that tells of the others, whose mode may be another.
        if if frame == 0 { !next.is_of_stream(&first) } else { differs && !next.is_of_stream(&first) } {
            return Ok(false);
        }
        place += next.size as u64;
        last = next;
    }
    Ok(true)
}

/// What the first frame tells of the others (the tags of Xing and LAME, and of Fraunhofer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tag {
    /// Frames that follow.
    frames: Option<u64>,
    /// Bytes of the file.
    bytes: Option<u64>,
    /// Samples before the sound, the decoder's own delay included.
    delay: Option<u64>,
    padding: u64,
}

impl Tag {
    fn read(peek: &mut Peek, at: u64, header: &Header) -> Result<Option<Self>, AudioProblem> {
        let frame = peek.bytes(at, header.size.min(MAX_FRAME))?;
        let long = |from: usize| Some(u64::from(u32::from_be_bytes(frame.get(from..from + 4)?.try_into().ok()?)));
        if frame.get(36..40) == Some(b"VBRI") {
            return Ok(Some(Self { bytes: long(46), frames: long(50), ..Self::default() }));
        }
        let side = match (header.is_first_version, header.is_mono) {
            (true, false) => 32,
            (true, true) | (false, false) => 17,
            (false, true) => 9,
        };
        let begin = 4 + side;
        if header.layer != 3 || ![Some(&b"Xing"[..]), Some(b"Info")].contains(&frame.get(begin..begin + 4)) {
            return Ok(None);
        }
        let flags = long(begin + 4).unwrap_or(0);
        let mut tag = Self::default();
        let mut place = begin + 8;
        let mut field = |flag: u64, size: usize| {
            let has_field = flags & flag != 0;
            let here = place;
            place += if has_field { size } else { 0 };
            has_field.then_some(here)
        };
        tag.frames = field(1, 4).and_then(long);
        tag.bytes = field(2, 4).and_then(long);
        field(4, 100);
        field(8, 4);
        // Nine bytes of the encoder's name, twelve of other things, then twelve bits of each.
        if let Some([a0, a1, a2]) = frame.get(place + 21..place + 24)
            && frame.get(place..place + 4).is_some_and(|name| [b"LAME", b"Lavf", b"Lavc"].iter().any(|it| name == *it))
        {
            tag.delay = Some((u64::from(*a0) << 4 | u64::from(*a1) >> 4) + DECODER_DELAY);
            tag.padding = u64::from(*a1 & 15) << 8 | u64::from(*a2);
        }
        Ok(Some(tag))
    }
}

/// Where the frames of a stream are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub header: Header,
    /// The places of every [`STRIDE`]th frame.
    places: Vec<u64>,
}

/// Walks the frames of the stream that begins at `begin`; `is_at_front` where nothing but tags stands before it.
pub(super) fn read(peek: &mut Peek, begin: u64, is_at_front: bool) -> Result<Found, AudioProblem> {
    let mut first_place = begin;
    let Some(mut header) = Header::read(peek, begin)? else { return Err(AudioProblem::NotAudio) };
    let mut notes = Vec::new();
    let mut tag = None;
    if is_at_front {
        tag = Tag::read(peek, begin, &header)?;
        if tag.is_some()
            && let Some(next) = Header::read(peek, begin + header.size as u64)?
        {
            first_place = begin + header.size as u64;
            header = next;
        }
    } else if let Some(next) = Header::read(peek, begin + header.size as u64)?
        && (header.word ^ next.word) & SAME_STREAM != 0
    {
        // As players do: behind junk, a frame that differs from the next is not the first.
        first_place = begin + header.size as u64;
        header = next;
    }
    if header.layer != 3 {
        return Err(AudioProblem::Unsupported { format: "MPEG audio of layer 1 or 2 (MP2)", name: "in.mp2" });
    }
    let mut frames = Frames { at: first_place, number: 0, header, gap: None };
    let (mut places, mut end) = (Vec::new(), first_place);
    let mut gaps = 0;
    while let Some((at, size)) = frames.next(peek)? {
        if (frames.number - 1).is_multiple_of(STRIDE) {
            places.push(at);
        }
        gaps += u64::from(frames.gap.take().is_some());
        end = (at + size as u64).min(peek.end());
    }
    if gaps > 0 {
        notes.push(format!("other bytes stand between frames in {gaps} places"));
    }
    let total = frames.number * header.samples;
    let tag = tag.unwrap_or_default();
    let mut keep = Vec::new();
    let delay = tag.delay.unwrap_or(0);
    let mut truncated = None;
    let file = peek.end() - begin;
    // A tag that speaks of much less than the file: files that were joined.
    let is_joined = tag.bytes.is_some_and(|bytes| bytes > 0 && file > bytes && file - bytes > bytes / 16);
    let claimed = tag.frames.filter(|frames| *frames > 0);
    if let Some(claimed) = claimed.filter(|claimed| *claimed != frames.number && !is_joined) {
        let what = || (format!("{claimed} frames"), format!("{} frames", frames.number));
        // The largest value says that the writer did not know.
        if claimed < u64::from(u32::MAX) {
            let missing = claimed.saturating_sub(frames.number) * header.samples;
            truncated = forgive(missing, u64::from(header.rate), what).err();
        }
        notes.push(format!("the header claims {claimed} frames, there are {}", frames.number));
    }
    match claimed.filter(|_| !is_joined) {
        Some(claimed) if tag.padding > DECODER_DELAY => {
            let last = claimed * header.samples;
            keep.push(delay..last.saturating_sub(tag.padding - DECODER_DELAY).max(delay));
            keep.push(last.max(delay)..u64::MAX);
        }
        _ => keep.push(delay..u64::MAX),
    }
    let kept = keep.iter().map(|range| range.end.min(total).saturating_sub(range.start)).sum();
    let part = Part { frames: Some(kept), keep, mpeg: Some(Index { header, places }), ..Part::of(first_place, end) };
    Ok(Found { parts: vec![part], end, notes, truncated })
}

/// The frames of a stream, one after another.
#[derive(Debug)]
struct Frames {
    at: u64,
    /// Frames so far.
    number: u64,
    /// The first frame's.
    header: Header,
    /// Bytes that were passed over before the last frame.
    gap: Option<u64>,
}

impl Frames {
    /// The place and the size of the next frame. The last may be cut.
    fn next(&mut self, peek: &mut Peek) -> Result<Option<(u64, usize)>, AudioProblem> {
        let mut at = self.at;
        let here = |peek: &mut Peek, at: u64, first: &Header| -> Result<Option<Header>, AudioProblem> {
            Ok(Header::read(peek, at)?.filter(|header| header.is_of_stream(first)))
        };
        let mut found = here(peek, at, &self.header)?;
        if found.is_none() {
            let first = self.header;
            // Behind a gap, one header could be chance: another frame or the end must follow it.
            let behind = behind_tags(peek, at)?;
            let end = peek.end();
            let place = peek.find(
                behind,
                end,
                |byte| byte == 0xFF,
                |peek, place| {
                    let Some(header) = here(peek, place, &first)? else { return Ok(false) };
                    let next = place + header.size as u64;
                    Ok(next == end || here(peek, next, &first)?.is_some())
                },
            )?;
            let Some(place) = place else { return Ok(None) };
            self.gap = Some(place - at);
            at = place;
            found = Header::read(peek, at)?;
            // A frame that only tells of others has no sound.
            if let Some(header) = found
                && Tag::read(peek, at, &header)?.is_some()
            {
                at += header.size as u64;
                found = here(peek, at, &first)?;
            }
        }
        let Some(header) = found else { return Ok(None) };
        self.at = at + header.size as u64;
        self.number += 1;
        Ok(Some((at, header.size)))
    }
}

/// The frames of a part as packets for the decoder.
pub(super) struct Packets {
    peek: Peek,
    frames: Frames,
    index: Index,
    end: u64,
}

impl Packets {
    pub fn new(peek: Peek, part: &Part, index: &Index) -> Self {
        let frames = Frames { at: part.from, number: 0, header: index.header, gap: None };
        Self { peek, frames, index: index.clone(), end: part.to }
    }

    pub fn rate(&self) -> u32 {
        self.index.header.rate
    }

    /// Goes to a frame of some way before a sample, and gives the sample that it begins with.
    pub fn seek(&mut self, sample: u64) -> u64 {
        let frame = (sample / self.index.header.samples).saturating_sub(BEFORE);
        let entry =
            usize::try_from(frame / STRIDE).unwrap_or(usize::MAX).min(self.index.places.len().saturating_sub(1));
        self.frames.at = self.index.places.get(entry).copied().unwrap_or(self.frames.at);
        self.frames.number = entry as u64 * STRIDE;
        self.frames.number * self.index.header.samples
    }

    /// The next frame. What is missing of the last is zeros.
    pub fn next(&mut self) -> Result<Option<Packet>, AudioProblem> {
        if self.frames.at >= self.end {
            return Ok(None);
        }
        let Some((at, size)) = self.frames.next(&mut self.peek)? else { return Ok(None) };
        let mut bytes = self.peek.bytes(at, size)?.to_vec();
        bytes.resize(size, 0);
        let samples = self.index.header.samples;
        let begin = i64::try_from((self.frames.number - 1) * samples).unwrap_or(i64::MAX);
        Ok(Some(Packet::new(0, Timestamp::new(begin), Duration::new(samples), bytes)))
    }
}
