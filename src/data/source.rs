//! The bytes of an audio file: looked at in any place, and handed to a decoder in part, behind a header of our own.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use symphonia::core::io::MediaSource;

use super::AudioProblem;

/// What is read at once where a file is looked at.
const CHUNK: usize = 64 * 1024;

/// An audio file, on disk or in memory.
#[derive(Debug)]
pub(super) enum Store {
    File(File, u64),
    Memory(Vec<u8>),
}

impl Store {
    pub fn file(file: File) -> std::io::Result<Arc<Self>> {
        let bytes = file.metadata()?.len();
        Ok(Arc::new(Self::File(file, bytes)))
    }

    pub fn memory(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self::Memory(bytes))
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::File(_, bytes) => *bytes,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file, _) => file.read_at(buffer, at),
            Self::Memory(bytes) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let count = buffer.len().min(bytes.len() - from);
                buffer[..count].copy_from_slice(&bytes[from..from + count]);
                Ok(count)
            }
        }
    }
}

/// Looks at bytes in any place of a file, of which it keeps a chunk in memory.
#[derive(Debug)]
pub(super) struct Peek {
    store: Arc<Store>,
    chunk: Vec<u8>,
    /// Where the chunk begins.
    from: u64,
}

impl Peek {
    pub fn new(store: &Arc<Store>) -> Self {
        Self { store: Arc::clone(store), chunk: Vec::new(), from: 0 }
    }

    /// The size of the file.
    pub fn end(&self) -> u64 {
        self.store.bytes()
    }

    /// So many bytes from a place on; fewer at the end of the file.
    pub fn bytes(&mut self, at: u64, count: usize) -> Result<&[u8], AudioProblem> {
        let wanted = (self.end().saturating_sub(at)).min(count as u64);
        let inside = at.checked_sub(self.from).is_some_and(|skip| skip + wanted <= self.chunk.len() as u64);
        if !inside {
            let size = usize::try_from(self.end().saturating_sub(at)).unwrap_or(usize::MAX).min(count.max(CHUNK));
            self.chunk.resize(size, 0);
            self.from = at;
            let mut filled = 0;
            while filled < size {
                let read = self.store.read_at(at + filled as u64, &mut self.chunk[filled..]);
                match read.map_err(|error| AudioProblem::Unreadable { reason: error.to_string() })? {
                    0 => break,
                    more => filled += more,
                }
            }
            self.chunk.truncate(filled);
        }
        let from = usize::try_from(at - self.from).unwrap_or(usize::MAX).min(self.chunk.len());
        let to = from.saturating_add(count).min(self.chunk.len());
        Ok(&self.chunk[from..to])
    }

    /// A field of this many bytes; none behind the end of the file.
    pub fn array<const COUNT: usize>(&mut self, at: u64) -> Result<Option<[u8; COUNT]>, AudioProblem> {
        Ok(self.bytes(at, COUNT)?.try_into().ok())
    }

    /// The first place from `from` on, before `to`, where `is_there` says yes of what begins there (so many bytes, fewer at
    /// the end). Only places with one of these first bytes are asked about.
    pub fn find(
        &mut self,
        from: u64,
        to: u64,
        first: impl Fn(u8) -> bool,
        mut is_there: impl FnMut(&mut Self, u64) -> Result<bool, AudioProblem>,
    ) -> Result<Option<u64>, AudioProblem> {
        let to = to.min(self.end());
        let mut at = from;
        while at < to {
            let count = usize::try_from(to - at).unwrap_or(usize::MAX).min(CHUNK);
            let chunk = self.bytes(at, count)?;
            if chunk.is_empty() {
                break;
            }
            let places: Vec<u64> =
                chunk.iter().zip(at..).filter(|(byte, _)| first(**byte)).map(|(_, place)| place).collect();
            let read = chunk.len() as u64;
            for place in places {
                if is_there(self, place)? {
                    return Ok(Some(place));
                }
            }
            at += read;
        }
        Ok(None)
    }
}

/// What a decoder reads: a header of our own, then a part of the file.
#[derive(Debug)]
pub(super) struct Source {
    pub store: Arc<Store>,
    pub head: Vec<u8>,
    /// Where the part begins in the file.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// Where the reader is, counted from the header's first byte.
    pub at: u64,
}

impl Source {
    fn size(&self) -> u64 {
        self.head.len() as u64 + self.to.saturating_sub(self.from)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.size().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = buffer.len().min(left);
        let head = self.head.get(usize::try_from(self.at).unwrap_or(usize::MAX)..).unwrap_or_default();
        let read = if head.is_empty() {
            let behind_head = self.at - self.head.len() as u64;
            self.store.read_at(self.from + behind_head, &mut buffer[..count])?
        } else {
            let count = count.min(head.len());
            buffer[..count].copy_from_slice(&head[..count]);
            count
        };
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = place.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.size())
    }
}
