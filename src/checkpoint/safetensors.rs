//! Reading safetensors files: the head says where each tensor lies, which is read from there when it is asked for. The
//! file is read and not mapped, since copies out of a map cost a page fault a page, and a file that is cut short
//! meanwhile would end the program.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    sync::Arc,
};

use burn::tensor::{BoolStore, Bytes, DType, TensorData};
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};

/// Bytes of the number that says how long the head is.
const LENGTH: usize = 8;
/// The longest head that is read: a tensor takes some hundred bytes of it. The format allows 100 MB, which would take
/// some times as much memory.
const LONGEST_HEAD: u64 = 16 << 20;

/// A tensor in a file.
pub struct Piece {
    /// Kept open: one that takes its name meanwhile is another checkpoint's.
    file: Arc<File>,
    start: u64,
    /// In bytes.
    length: usize,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl Piece {
    /// The byte of its file at which it begins.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The tensor as it is stored.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than it was.
    pub fn read(&self) -> io::Result<TensorData> {
        let mut bytes = self.room();
        let mut done = 0;
        while done < self.length {
            match rustix::io::pread(&*self.file, &mut bytes[done..], self.start + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(problem) => return Err(problem.into()),
            }
        }
        Ok(TensorData { bytes, shape: self.shape.clone().into(), dtype: self.dtype })
    }

    /// As many bytes, aligned for its numbers: bytes of no type would be copied once more so that they are.
    fn room(&self) -> Bytes {
        match self.dtype.size() {
            8 => Bytes::from_elems(vec![0_u64; self.length / 8]),
            4 => Bytes::from_elems(vec![0_u32; self.length / 4]),
            2 => Bytes::from_elems(vec![0_u16; self.length / 2]),
            _ => Bytes::from_elems(vec![0_u8; self.length]),
        }
    }
}

/// The tensors of a file by name and its metadata, or what is wrong with it.
pub fn open(mut file: File) -> Result<(Vec<(String, Piece)>, HashMap<String, String>), String> {
    let shown = |problem: io::Error| problem.to_string();
    let size = file.metadata().map_err(shown)?.len();
    let mut length = [0; LENGTH];
    file.read_exact(&mut length).map_err(|_| "it is too short for a safetensors file".to_owned())?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEAD || length > size - LENGTH as u64 {
        return Err(format!("its head of {length} bytes is longer than the file, or than any head may be"));
    }
    let mut head = Vec::new();
    (&file).take(length).read_to_end(&mut head).map_err(shown)?;
    let head: Metadata = serde_json::from_slice(&head).map_err(|problem| format!("its head: {problem}"))?;
    let info = |name: String| head.info(&name).cloned().map(|info| (name, info));
    let tensors: Vec<(String, TensorInfo)> = head.offset_keys().into_iter().filter_map(info).collect();
    // Checks that shapes and places fit each other, without gaps.
    let end = Metadata::new(None, tensors.clone()).map_err(|problem| problem.to_string())?.data_len();
    let start = LENGTH as u64 + length;
    let told = u128::from(start) + end as u128;
    if told != u128::from(size) {
        return Err(format!("it has {size} bytes where its head tells of {told}"));
    }
    let file = Arc::new(file);
    let pieces = tensors
        .into_iter()
        .map(|(name, TensorInfo { dtype, shape, data_offsets: (from, to) })| {
            let dtype =
                burn_type(dtype).ok_or_else(|| format!("tensor {name}: numbers of type {dtype} are not known"))?;
            Ok((name, Piece { file: Arc::clone(&file), start: start + from as u64, length: to - from, dtype, shape }))
        })
        .collect::<Result<_, String>>()?;
    Ok((pieces, head.metadata().clone().unwrap_or_default()))
}

fn burn_type(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}
