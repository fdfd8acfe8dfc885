//! The files of `torch.save`: a zip archive, and the format before it (`PyTorch` 0.1.10 to 1.5).
//!
//! Every tensor is looked for when the file is opened: one that does not lie in it is an error, and never zeros. Its
//! elements are read when they are asked for, in the order that its strides give. burn-store 0.21 pads a damaged tensor
//! with zeros and ignores strides (Burn's issues #5412 and #5383, mended by its pull requests #5392 and #5593), which is
//! why this and `pickle.rs` are written here: delete both when Burn is 0.22 or later.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData, bf16, f16};

use super::pickle::{Pickle, Place};

/// Keys under which a training program puts the weights among other things.
const TOP_LEVEL_KEYS: [Option<&str>; 3] = [Some("model"), Some("state_dict"), None];

/// The first pickle of the older format: its magic number.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// Where a zip archive's first entry and its two kinds of ends begin.
const ENTRY: &[u8] = b"PK\x03\x04";
const END: &[u8] = b"PK\x05\x06";
const WIDE_END: &[u8] = b"PK\x06\x06";
/// The longest end of a zip archive: 22 bytes and a comment.
const LONGEST_END: u64 = 22 + 65_535;
/// The longest pickle and the longest table of an archive that are read.
const LONGEST_TABLE: u64 = 32 << 20;
/// The part of an older file that is read first in search of its tables, which lie in front of the numbers.
const FIRST_PART: u64 = 1 << 20;

const CUT: &str = "it ends too early";

/// Where a storage lies in a file.
#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    start: u64,
    bytes: u64,
    /// What an archive says the bytes come to.
    checksum: Option<u32>,
}

impl Part {
    /// What is no numbers.
    fn read_table(&self) -> Result<Vec<u8>, String> {
        if self.bytes > LONGEST_TABLE {
            return Err(format!("a table in it has {} bytes, more than any model's", self.bytes));
        }
        self.read()
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        let bytes = read(&self.path, self.start, self.bytes)?;
        match self.checksum {
            Some(checksum) if crc32fast::hash(&bytes) != checksum => {
                Err("its bytes are not those that were saved".into())
            }
            _ => Ok(bytes),
        }
    }
}

/// The tensors of a file by their names.
pub(super) fn open(path: &Path) -> Result<BTreeMap<String, Pickled>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    let head = read(path, 0, length.min(MAGIC.len() as u64))?;
    let (pickle, parts) = if head.starts_with(ENTRY) {
        open_archive(path, length)?
    } else if head == MAGIC {
        open_older(path, length)?
    } else {
        return Err("it is no file of torch.save".into());
    };
    let tables = TOP_LEVEL_KEYS.iter().map(|key| pickle.tensors(*key));
    let table = tables.into_iter().find(|table| !table.is_empty()).ok_or("it holds no tensors")?;
    table
        .into_iter()
        .map(|(name, place)| {
            let part = parts.get(&place.storage.key).ok_or_else(|| format!("the numbers of {name} are missing"))?;
            let tensor = Pickled::new(place, part.clone()).map_err(|problem| format!("tensor {name}: {problem}"))?;
            Ok((name, tensor))
        })
        .collect()
}

/// A tensor that is read when it is asked for; real numbers come as f32.
pub(super) struct Pickled {
    place: Place,
    part: Part,
    elements: usize,
    /// Bytes of an element.
    width: usize,
    /// From the bytes of an element; `None` if these are no real numbers.
    convert: Option<fn(&[u8]) -> f32>,
}

impl Pickled {
    /// A tensor whose elements all lie in `part`, or what is wrong with it.
    fn new(place: Place, part: Part) -> Result<Self, String> {
        let class = place.storage.class.as_str();
        let width = width(class).ok_or_else(|| format!("the type {class} is unknown"))?;
        if (place.storage.elements as u64).checked_mul(width) != Some(part.bytes) {
            return Err(CUT.into());
        }
        let width = to_usize(width)?;
        let last =
            place.shape.iter().zip(&place.strides).try_fold(place.offset, |at, (&size, &stride)| {
                at.checked_add(stride.checked_mul(size.saturating_sub(1))?)
            });
        let is_empty = place.shape.contains(&0);
        // Without the axes of length 0, so that no order of multiplying them overflows.
        let mut sizes = place.shape.iter().filter(|&&size| size > 0);
        let Some(elements) = sizes.try_fold(1_usize, |elements, &size| elements.checked_mul(size)) else {
            return Err("its shape is larger than any memory".into());
        };
        if !is_empty && last.is_none_or(|last| last >= place.storage.elements) {
            return Err("it reaches beyond its storage".into());
        }
        let convert: Option<fn(&[u8]) -> f32> = match class {
            "FloatStorage" => Some(|bytes| f32::from_le_bytes(bytes.try_into().unwrap_or_default())),
            "HalfStorage" => Some(|bytes| f16::from_le_bytes(bytes.try_into().unwrap_or_default()).to_f32()),
            "BFloat16Storage" => Some(|bytes| bf16::from_le_bytes(bytes.try_into().unwrap_or_default()).to_f32()),
            #[expect(clippy::cast_possible_truncation, reason = "the model computes in f32")]
            "DoubleStorage" => Some(|bytes| f64::from_le_bytes(bytes.try_into().unwrap_or_default()) as f32),
            _ => None,
        };
        Ok(Self { place, part, elements, width, convert })
    }

    pub fn shape(&self) -> &[usize] {
        &self.place.shape
    }

    pub fn dtype(&self) -> DType {
        if self.convert.is_some() { DType::F32 } else { DType::I64 }
    }

    /// Its elements in f32, one behind the other, or why there are none.
    pub fn read(&self) -> Result<TensorData, String> {
        let Self { place, elements, width, .. } = self;
        let (elements, width) = (*elements, *width);
        let convert = self.convert.ok_or("it holds no real numbers")?;
        if place.shape.contains(&0) {
            return Ok(TensorData::new(Vec::<f32>::new(), place.shape.clone()));
        }
        if elements > place.storage.elements {
            return Err("it repeats its numbers: save it anew after .contiguous()".into());
        }
        let bytes = self.part.read()?;
        let mut values = Vec::with_capacity(elements);
        if place.strides == contiguous(&place.shape) {
            let first = place.offset * width;
            values.extend(bytes[first..first + elements * width].chunks_exact(width).map(convert));
        } else {
            for index in 0..elements {
                // From the last axis to the first.
                let mut rest = index;
                let mut at = place.offset;
                for (&size, &stride) in place.shape.iter().zip(&place.strides).rev() {
                    at += rest % size * stride;
                    rest /= size;
                }
                values.push(convert(&bytes[at * width..(at + 1) * width]));
            }
        }
        Ok(TensorData::new(values, place.shape.clone()))
    }
}

/// The strides of a tensor whose elements lie one behind the other.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Bytes of an element.
fn width(class: &str) -> Option<u64> {
    Some(match class {
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "FloatStorage" | "IntStorage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "CharStorage" | "ByteStorage" | "BoolStorage" => 1,
        _ => return None,
    })
}

// --- the older format -------------------------------------------------------------------------------------------------

/// Five pickles (magic number, version, machine, content, keys of the storages), then for each key the number of
/// elements and the elements.
fn open_older(path: &Path, length: u64) -> Result<(Pickle, BTreeMap<String, Part>), String> {
    let most = LONGEST_TABLE.min(length);
    let mut part = FIRST_PART.min(length);
    let (content, keys, mut at) = loop {
        let bytes = read(path, 0, part)?;
        match read_older_tables(&bytes) {
            Ok(tables) => break tables,
            Err(problem) if part == most => return Err(problem),
            Err(_) => part = part.saturating_mul(4).min(most),
        }
    };
    let mut parts = BTreeMap::new();
    for key in keys {
        let storage = content.storages().get(&key).ok_or("its table of storages is damaged")?;
        let width = width(&storage.class).ok_or_else(|| format!("the type {} is unknown", storage.class))?;
        let count = u64::from_le_bytes(read(path, at, 8)?.try_into().map_err(|_| CUT)?);
        let bytes = count.checked_mul(width).ok_or(CUT)?;
        let start = at + 8;
        at = start.checked_add(bytes).filter(|&end| end <= length).ok_or(CUT)?;
        parts.insert(key, Part { path: path.into(), start, bytes, checksum: None });
    }
    Ok((content, parts))
}

/// The content, the keys of the storages and where these begin.
fn read_older_tables(bytes: &[u8]) -> Result<(Pickle, Vec<String>, u64), String> {
    let mut at = 0;
    let mut next = || -> Result<Pickle, String> {
        let pickle = Pickle::read(bytes.get(at..).unwrap_or_default())?;
        at += pickle.length;
        Ok(pickle)
    };
    for _ in ["magic number", "version", "machine"] {
        next()?;
    }
    let content = next()?;
    let keys = next()?;
    let keys = keys.texts().ok_or("its table of storages is damaged")?.into_iter().map(str::to_owned).collect();
    Ok((content, keys, at as u64))
}

// --- the zip archive --------------------------------------------------------------------------------------------------

/// `NAME/data.pkl` with the content and `NAME/data/KEY` with each storage, none of them compressed.
fn open_archive(path: &Path, length: u64) -> Result<(Pickle, BTreeMap<String, Part>), String> {
    let entries = directory(path, length)?;
    let content = |name: &&String| name.as_str() == "data.pkl" || name.ends_with("/data.pkl");
    let name = entries.keys().find(content).ok_or("the archive has no data.pkl")?;
    let folder = name.strip_suffix("data.pkl").unwrap_or_default();
    if let Some(order) = entries.get(&format!("{folder}byteorder"))
        && order.read_table()? != b"little"
    {
        return Err("its numbers have the byte order of another machine: save it anew there".into());
    }
    let pickle = Pickle::read(&entries[name].read_table()?)?;
    let storages = format!("{folder}data/");
    let storage = |(name, part): (&String, &Part)| Some((name.strip_prefix(&storages)?.to_owned(), part.clone()));
    Ok((pickle, entries.iter().filter_map(storage).collect()))
}

/// The files of an archive.
fn directory(path: &Path, length: u64) -> Result<BTreeMap<String, Part>, String> {
    let tail_start = length.saturating_sub(LONGEST_END);
    let tail = read(path, tail_start, length - tail_start)?;
    let end = tail.windows(END.len()).rposition(|window| window == END).ok_or(CUT)?;
    let comment = to_usize(number(&tail, end + 20, 2)?)?;
    if end + 22 + comment != tail.len() {
        return Err(CUT.into());
    }
    let mut count = number(&tail, end + 10, 2)?;
    let mut start = number(&tail, end + 16, 4)?;
    let mut bytes = number(&tail, end + 12, 4)?;
    if count == 0xffff || start == 0xffff_ffff || bytes == 0xffff_ffff {
        let locator = end.checked_sub(20).ok_or(CUT)?;
        let wide = read(path, number(&tail, locator + 8, 8)?, 56)?;
        if !wide.starts_with(WIDE_END) {
            return Err(CUT.into());
        }
        (count, bytes, start) = (number(&wide, 32, 8)?, number(&wide, 40, 8)?, number(&wide, 48, 8)?);
    }
    if bytes > LONGEST_TABLE {
        return Err(format!("its directory has {bytes} bytes, more than any model's"));
    }
    let table = read(path, start, bytes)?;
    let mut at = 0;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let [name, extra, comment] = [28, 30, 32].map(|field| number(&table, at + field, 2));
        let (name, extra) = (to_usize(name?)?, to_usize(extra?)?);
        let name_end = at + 46 + name;
        let name = String::from_utf8_lossy(table.get(at + 46..name_end).ok_or(CUT)?).into_owned();
        if number(&table, at + 10, 2)? != 0 {
            return Err(format!("{name} in it is compressed: save it anew with torch.save"));
        }
        let wide = wide_sizes(table.get(name_end..name_end + extra).ok_or(CUT)?);
        let mut wide = wide.into_iter();
        // What does not fit 32 bits stands in the extra field, in this order.
        let mut field = |place: usize| match number(&table, at + place, 4)? {
            0xffff_ffff => wide.next().ok_or_else(|| CUT.to_owned()),
            value => Ok(value),
        };
        let (bytes, _, header) = (field(24)?, field(20)?, field(42)?);
        let checksum = u32::try_from(number(&table, at + 16, 4)?).ok();
        let local = read(path, header, 30)?;
        let start = header + 30 + number(&local, 26, 2)? + number(&local, 28, 2)?;
        if !local.starts_with(ENTRY) || start.checked_add(bytes).is_none_or(|end| end > length) {
            return Err(CUT.into());
        }
        entries.insert(name, Part { path: path.into(), start, bytes, checksum });
        at = name_end + extra + to_usize(comment?)?;
    }
    Ok(entries)
}

/// The numbers of the extra field with the sizes of large entries.
fn wide_sizes(mut extra: &[u8]) -> Vec<u64> {
    while let (Ok(kind), Ok(length)) = (number(extra, 0, 2), number(extra, 2, 2).and_then(to_usize)) {
        let Some(content) = extra.get(4..4 + length) else { break };
        if kind == 1 {
            return content.chunks_exact(8).filter_map(|bytes| number(bytes, 0, 8).ok()).collect();
        }
        extra = &extra[4 + length..];
    }
    Vec::new()
}

/// The number of `width` bytes at a place.
fn number(bytes: &[u8], at: usize, width: usize) -> Result<u64, String> {
    let mut wide = [0; 8];
    let found = bytes.get(at..at + width).ok_or(CUT)?;
    wide[..width].copy_from_slice(found);
    Ok(u64::from_le_bytes(wide))
}

fn to_usize(number: u64) -> Result<usize, String> {
    usize::try_from(number).map_err(|_| CUT.into())
}

/// A part of a file.
fn read(path: &Path, start: u64, bytes: u64) -> Result<Vec<u8>, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut found = Vec::new();
        // Grows with what is there, whatever a damaged file says.
        file.take(bytes).read_to_end(&mut found)?;
        Ok(found)
    };
    let found = read().map_err(|error| error.to_string())?;
    if found.len() as u64 == bytes { Ok(found) } else { Err(CUT.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of a pickle.
    fn text(text: &str) -> Vec<u8> {
        [b"X".as_slice(), &u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat()
    }

    /// What `torch.save({"turned": w.t(), "row": w[1], "plain": w}, _use_new_zipfile_serialization=False)` writes for
    /// `w = torch.arange(6.).view(2, 3)`, put together by hand: one storage, seen in three ways.
    fn older_file() -> Vec<u8> {
        let tensor = |name: &str, offset: u8, shape: &[u8], strides: &[u8]| {
            let numbers = |numbers: &[u8]| {
                let items: Vec<u8> = numbers.iter().flat_map(|&number| [b'K', number]).collect();
                [b"(".as_slice(), &items, b"t"].concat()
            };
            let storage =
                [b"(".as_slice(), &text("storage"), b"ctorch\nFloatStorage\n", &text("94"), &text("cpu"), b"K\x06NtQ"]
                    .concat();
            let arguments = [storage, vec![b'K', offset], numbers(shape), numbers(strides), b"\x89N".to_vec()].concat();
            [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(), arguments, b"tR".to_vec()].concat()
        };
        let entries =
            [tensor("turned", 0, &[3, 2], &[1, 3]), tensor("row", 3, &[3], &[1]), tensor("plain", 0, &[2, 3], &[3, 1])]
                .concat();
        let content = [b"\x80\x02}q\x00(".as_slice(), &entries, b"u."].concat();
        let keys = [b"\x80\x02]q\x00".as_slice(), &text("94"), b"a."].concat();
        let numbers: Vec<u8> = (0..6_u8).flat_map(|number| f32::from(number).to_le_bytes()).collect();
        let machine = b"\x80\x02}.";
        let version = b"\x80\x02M\xe9\x03.";
        [MAGIC, version, machine, &content, &keys, &6_u64.to_le_bytes(), &numbers].concat()
    }

    fn values(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
        let data = open(path).unwrap()[name].read().unwrap();
        (data.shape.to_vec(), data.to_vec().unwrap())
    }

    #[test]
    fn views_of_a_storage_are_read_in_their_own_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("older.bin");
        std::fs::write(&path, older_file()).unwrap();
        assert_eq!(values(&path, "plain"), (vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        assert_eq!(values(&path, "row"), (vec![3], vec![3.0, 4.0, 5.0]));
        assert_eq!(values(&path, "turned"), (vec![3, 2], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("older.bin");
        let whole = older_file();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(open(&path).is_err(), "{length} of {} bytes", whole.len());
        }
    }

    #[test]
    fn a_view_beyond_its_storage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("older.bin");
        let mut bytes = older_file();
        let row = bytes.windows(5).position(|window| window == b"K\x03(K\x03").unwrap();
        bytes[row + 1] = 4;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(open(&path).err().unwrap(), "tensor row: it reaches beyond its storage");
    }

    /// One number that stands for more than any memory holds, and tensors without numbers that lie nowhere.
    #[test]
    fn a_small_file_is_a_small_tensor() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tensors");
        let read = |name: &str| open(&corpus.join(name)).map(|tensors| tensors["h"].read());
        let problem = read("repeats-a-number-less.bin").unwrap().unwrap_err();
        assert!(problem.contains("it repeats its numbers"), "{problem}");
        let whole = read("repeats-a-number.bin").err().unwrap();
        assert_eq!(whole, "tensor h: its shape is larger than any memory");
        assert_eq!(read("empty-behind-its-storage.bin").unwrap().unwrap().shape.to_vec(), [0]);
        let again = open(&corpus.join("dictionary-of-dictionaries.bin")).err().unwrap();
        assert_eq!(again, "its pickle is cut or damaged");
    }

    #[test]
    fn no_bytes_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.bin");
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tensors");
        let others = ["good-archive.bin", "archive-with-wide-end.bin", "parameter.bin", "ordered-pairs.bin"]
            .map(|name| std::fs::read(corpus.join(name)).unwrap());
        crate::damage::each(&[&[older_file()], &others[..]].concat(), 500, |bytes| {
            std::fs::write(&path, bytes).unwrap();
            for tensor in open(&path).unwrap_or_default().values() {
                if let Ok(data) = tensor.read() {
                    assert_eq!(data.shape.to_vec(), tensor.shape());
                }
            }
        });
    }
}
