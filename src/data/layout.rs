//! Where the sound of a file is: behind which tags it begins, where it ends, of how many files that were joined it is, and
//! how long it is, as far as that can be told without decoding.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::container::{self, Container};
use super::source::{Peek, Source, Store};
use super::{AudioProblem, aiff, caf, flac, mp4, mpeg, ogg, wave, webm};

/// A claim of less than the half of a second too much is forgiven: one over this.
const FORGIVEN_SHARE: u64 = 2;

/// Layouts of files from this size on are kept, so that the next piece of a long recording need not look for its place.
const KEPT_FROM: u64 = 256 * 1024;

/// So many layouts are kept at most.
const KEPT: usize = 512;

/// One of the files that a file consists of: mostly the only one.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    /// What the decoder reads before the bytes of the file.
    pub head: Vec<u8>,
    /// Where the sound's bytes begin in the file.
    pub from: u64,
    /// Where they end.
    pub to: u64,
    /// How many frames it has, where that is known for sure.
    pub frames: Option<u64>,
    /// How many it claims to have, where only decoding tells.
    pub claimed: Option<u64>,
    /// Which of the decoded frames are sound and not an encoder's padding; all of them where this is empty.
    pub keep: Vec<Range<u64>>,
    /// What an encoder put in front, in nanoseconds, where `keep` is empty.
    pub delay_nanoseconds: u64,
    /// What of the last packet is padding, in nanoseconds.
    pub padding_nanoseconds: u64,
    /// Where the frames of MPEG audio are.
    pub mpeg: Option<mpeg::Index>,
}

impl Part {
    /// A part of the file as it is.
    pub fn of(from: u64, to: u64) -> Self {
        Self { from, to, ..Self::default() }
    }

    /// What a decoder reads.
    pub fn source(&self, store: &Arc<Store>) -> Source {
        Source { store: Arc::clone(store), head: self.head.clone(), from: self.from, to: self.to, at: 0 }
    }
}

/// What a format's own reader found.
#[derive(Debug)]
pub(super) struct Found {
    pub parts: Vec<Part>,
    /// Where the sound and what belongs to it ends.
    pub end: u64,
    /// What the headers claim and the content does not bear out.
    pub notes: Vec<String>,
    /// What is wrong with who reads to the end.
    pub truncated: Option<AudioProblem>,
}

/// Where the sound of a file is.
#[derive(Debug)]
pub(super) struct Layout {
    pub container: Container,
    pub parts: Vec<Part>,
    pub notes: Vec<String>,
    pub truncated: Option<AudioProblem>,
}

impl Layout {
    /// Of a file in memory, or one that is looked at only once.
    pub fn of(store: &Arc<Store>) -> Result<Self, AudioProblem> {
        let mut peek = Peek::new(store);
        let begin = container::find(&mut peek)?;
        let found = match begin.container {
            Container::Wave => wave::read(&mut peek, begin.at)?,
            Container::Aiff => aiff::read(&mut peek, begin.at)?,
            Container::Flac => flac::read(&mut peek, begin.at)?,
            Container::Ogg => ogg::read(&mut peek, begin.at)?,
            Container::Mpeg => mpeg::read(&mut peek, begin.at, begin.junk == 0)?,
            Container::Mp4 => mp4::read(&mut peek, begin.at)?,
            Container::Caf => caf::read(&mut peek, begin.at)?,
            Container::Webm => webm::read(&mut peek, begin.at)?,
        };
        let mut notes = found.notes;
        if begin.junk > 0 {
            notes.push(format!("{} bytes before the sound are neither sound nor a tag", begin.junk));
        }
        if let Some((place, bytes)) = container::behind_sound(&mut peek, found.end)? {
            let is_whole = matches!(begin.container, Container::Flac | Container::Ogg | Container::Mpeg);
            let another = if is_whole { None } else { container::find_another(&mut peek, found.end)? };
            if let Some(byte) = another {
                return Err(AudioProblem::Joined { byte });
            }
            if found.truncated.is_none() {
                notes
                    .push(format!("{bytes} bytes behind the sound are neither sound nor a tag (from byte {place} on)"));
            }
        }
        Ok(Self { container: begin.container, parts: found.parts, notes, truncated: found.truncated })
    }

    /// Of a file on disk; of a long one it is kept for the next call.
    pub fn of_file(path: &Path, file: &File, store: &Arc<Store>) -> Result<Arc<Self>, AudioProblem> {
        type Known = HashMap<PathBuf, (u64, SystemTime, Arc<Layout>)>;
        static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
        let modified = file.metadata().and_then(|facts| facts.modified()).ok();
        let Some(modified) = modified.filter(|_| store.bytes() >= KEPT_FROM) else {
            return Self::of(store).map(Arc::new);
        };
        let known = |known: &mut Option<Known>| {
            let (bytes, time, layout) = known.as_ref()?.get(path)?;
            (*bytes == store.bytes() && *time == modified).then(|| Arc::clone(layout))
        };
        if let Some(layout) = known(&mut KNOWN.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(layout);
        }
        let layout = Arc::new(Self::of(store)?);
        let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.get_or_insert_default();
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(path.to_path_buf(), (store.bytes(), modified, Arc::clone(&layout)));
        Ok(layout)
    }
}

/// Nothing where less than half a second is missing, of this many bytes or frames a second; else the error, of what is
/// claimed and what is found.
pub(super) fn forgive(
    missing: u64,
    in_a_second: u64,
    what: impl FnOnce() -> (String, String),
) -> Result<(), AudioProblem> {
    if missing.saturating_mul(FORGIVEN_SHARE) < in_a_second {
        return Ok(());
    }
    let (claimed, found) = what();
    Err(AudioProblem::Truncated { claimed, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No bytes panic, and no part lies outside the file.
    #[test]
    fn no_bytes_panic() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/audio");
        let goods = [
            "good-16.wav",
            "good-extensible.wav",
            "streamed.wav",
            "adpcm.wav",
            "good.ogg",
            "good.mp3",
            "tag-frame-claims-much.mp3",
            "good.flac",
            "good.aiff",
            "good-short.caf",
            "good-short.m4a",
            "good-short.webm",
        ]
        .map(|name| std::fs::read(folder.join(name)).unwrap());
        crate::damage::each(&goods, 1_000, |bytes| {
            let store = Store::memory(bytes.to_vec());
            let Ok(layout) = Layout::of(&store) else { return };
            assert!(layout.parts.iter().all(|part| part.from <= part.to && part.to <= store.bytes()));
        });
    }
}
