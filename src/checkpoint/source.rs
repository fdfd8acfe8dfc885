//! Reading tensor files: safetensors and `PyTorch` pickles, whole or in shards. Nothing in a pickle is executed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData};
use rayon::prelude::*;

use super::{
    CheckpointError,
    pytorch::{self, Pickled},
    safetensors::{self, Piece},
};
use crate::files::{self, WEIGHTS};

/// The files of a folder that can hold weights, in the order in which they are looked for.
const WHOLE: [&str; 2] = [WEIGHTS, "pytorch_model.bin"];
const INDICES: [&str; 2] = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];

/// No index is longer.
const LONGEST_INDEX: u64 = 8 << 20;

/// The tensors of some files, read when they are asked for.
#[derive(Default)]
pub struct TensorSource {
    tensors: BTreeMap<String, Stored>,
    files: Vec<PathBuf>,
    metadata: HashMap<String, String>,
}

/// A tensor that is not read yet.
enum Stored {
    Piece(Piece),
    Pickled(Pickled),
    /// Of this shape.
    Zeros(Vec<usize>),
}

impl Stored {
    fn shape(&self) -> Vec<usize> {
        match self {
            Self::Piece(piece) => piece.shape.clone(),
            Self::Pickled(tensor) => tensor.shape().to_vec(),
            Self::Zeros(shape) => shape.clone(),
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Self::Piece(piece) => piece.dtype,
            Self::Pickled(tensor) => tensor.dtype(),
            Self::Zeros(_) => DType::F32,
        }
    }
}

impl TensorSource {
    /// The weights in a folder, by the names that Hugging Face gives the files, or the one `.pt` file in it.
    ///
    /// # Errors
    /// No such file, or one that is damaged.
    pub fn open_folder(folder: &Path) -> Result<Self, CheckpointError> {
        for (whole, index) in WHOLE.iter().zip(INDICES) {
            let path = folder.join(whole);
            if path.is_file() {
                return Self::open_file(&path);
            }
            let path = folder.join(index);
            if path.is_file() {
                return Self::open_shards(folder, &path);
            }
        }
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
            .map_err(|cause| CheckpointError::Read { path: folder.into(), cause })?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "pt"))
            .collect();
        found.sort();
        match found.as_slice() {
            [path] => Self::open_file(path),
            _ => Err(CheckpointError::NoWeights { folder: folder.into() }),
        }
    }

    /// The tensors of one file.
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn open_file(path: &Path) -> Result<Self, CheckpointError> {
        let (tensors, metadata) = if path.extension().is_some_and(|extension| extension == "safetensors") {
            open_safetensors(path)?
        } else {
            (open_pickle(path)?, HashMap::new())
        };
        Ok(Self { tensors, files: vec![path.into()], metadata })
    }

    fn open_shards(folder: &Path, index: &Path) -> Result<Self, CheckpointError> {
        let mut all = Self::default();
        for shard in shards(index)? {
            let opened = Self::open_file(&folder.join(shard))?;
            all.tensors.extend(opened.tensors);
            all.files.extend(opened.files);
        }
        Ok(all)
    }

    /// The files that were opened.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// A text in the head of the safetensors file.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Name and shape of every tensor of numbers.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()))
    }

    /// Refuses a config of more layers than there are tensors, before the layers are made.
    ///
    /// # Errors
    /// There are fewer tensors.
    pub fn check_layers(&self, layers: usize) -> Result<(), CheckpointError> {
        if layers <= self.tensors.len() {
            return Ok(());
        }
        let path = self.files.first().cloned().unwrap_or_default();
        let problem =
            format!("its config.json asks for {layers} layers, and it has {} tensors in all", self.tensors.len());
        Err(CheckpointError::Config { path, problem })
    }

    /// Renames every tensor; `None` leaves it out.
    pub fn rename(&mut self, rename: impl Fn(&str) -> Option<String>) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().filter_map(|(name, tensor)| Some((rename(&name)?, tensor))).collect();
    }

    /// Adds a tensor of zeros.
    pub fn insert_zeros(&mut self, name: &str, shape: Vec<usize>) {
        self.tensors.insert(name.into(), Stored::Zeros(shape));
    }

    /// Those of these tensors that are there, in f32; what lies in safetensors files is read by all threads.
    ///
    /// # Errors
    /// A file is damaged or a tensor does not hold real numbers.
    pub fn read<Name: AsRef<str>>(
        &self,
        names: impl IntoIterator<Item = Name>,
    ) -> Result<BTreeMap<String, TensorData>, CheckpointError> {
        let path = self.files.first().cloned().unwrap_or_default();
        let damaged = |name: &str, problem: String| CheckpointError::Damaged {
            path: path.clone(),
            problem: format!("tensor {name}: {problem}"),
        };
        let mut all = BTreeMap::new();
        let mut pieces = Vec::new();
        for name in names {
            let Some((name, tensor)) = self.tensors.get_key_value(name.as_ref()) else { continue };
            let dtype = tensor.dtype();
            if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64 | DType::Flex32) {
                return Err(damaged(name, format!("its type {dtype:?} is not a floating-point one")));
            }
            match tensor {
                Stored::Piece(piece) => pieces.push((name, piece)),
                Stored::Pickled(tensor) => {
                    all.insert(name.clone(), tensor.read().map_err(|problem| damaged(name, problem))?);
                }
                Stored::Zeros(shape) => {
                    all.insert(name.clone(), TensorData::zeros::<f32, _>(shape.clone()));
                }
            }
        }
        // In the order of the file, so that each thread reads on where it is and the system reads ahead.
        pieces.sort_by_key(|(_, piece)| piece.start());
        let read = |(name, piece): (&String, &Piece)| {
            let data = piece.read().map_err(|problem| damaged(name, problem.to_string()))?;
            Ok((name.clone(), in_f32(data)))
        };
        let read: Vec<_> = pieces.into_par_iter().with_max_len(1).map(read).collect::<Result<_, CheckpointError>>()?;
        all.extend(read);
        Ok(all)
    }
}

fn in_f32(data: TensorData) -> TensorData {
    if data.dtype == DType::F32 { data } else { data.convert::<f32>() }
}

/// The files that an index of shards names.
///
/// # Errors
/// An index that is missing or damaged, or that names files of another folder.
pub fn shards(index: &Path) -> Result<BTreeSet<String>, CheckpointError> {
    let damaged = |problem: String| CheckpointError::Damaged { path: index.into(), problem };
    let text =
        files::read_text(index, LONGEST_INDEX).map_err(|cause| CheckpointError::Read { path: index.into(), cause })?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|source| damaged(source.to_string()))?;
    let map = json
        .get("weight_map")
        .and_then(serde_json::Value::as_object)
        .ok_or_else(|| damaged("it has no `weight_map`".into()))?;
    let shards: BTreeSet<String> = map.values().filter_map(serde_json::Value::as_str).map(str::to_owned).collect();
    match shards.iter().find(|shard| shard.contains(['/', '\\'])) {
        Some(shard) => Err(damaged(format!("the shard {shard:?} lies in another folder"))),
        None => Ok(shards),
    }
}

fn open_weights(path: &Path) -> Result<std::fs::File, CheckpointError> {
    let opened = files::open_regular(path).and_then(|file| files::check_no_lfs_pointer(&file).map(|()| file));
    opened.map_err(|cause| CheckpointError::Read { path: path.into(), cause })
}

fn open_safetensors(path: &Path) -> Result<(BTreeMap<String, Stored>, HashMap<String, String>), CheckpointError> {
    let file = open_weights(path)?;
    let (pieces, metadata) =
        safetensors::open(file).map_err(|problem| CheckpointError::Damaged { path: path.into(), problem })?;
    Ok((pieces.into_iter().map(|(name, piece)| (name, Stored::Piece(piece))).collect(), metadata))
}

fn open_pickle(path: &Path) -> Result<BTreeMap<String, Stored>, CheckpointError> {
    open_weights(path)?;
    let tensors = pytorch::open(path).map_err(|problem| CheckpointError::Damaged { path: path.into(), problem })?;
    Ok(tensors.into_iter().map(|(name, tensor)| (name, Stored::Pickled(tensor))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_short_after_it_was_opened_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tensors");
        let bytes = std::fs::read(corpus.join("good.safetensors")).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let source = TensorSource::open_file(&path).unwrap();
        let names: Vec<String> = source.shapes().map(|(name, _)| name.to_owned()).collect();
        let before = source.read(&names).unwrap();
        assert_eq!(before.len(), names.len());
        // Another file that takes its name is none of its tensors'.
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        std::fs::write(&path, vec![0x3f; bytes.len()]).unwrap();
        assert_eq!(source.read(&names).unwrap(), before);
        std::fs::File::options()
            .write(true)
            .open(folder.path().join("old"))
            .unwrap()
            .set_len(bytes.len() as u64 - 1)
            .unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let problem = source.read(&names).map(|read| read.len()).unwrap_err().to_string();
        assert!(problem.contains("model.safetensors") && problem.contains("tensor "), "{problem}");
        // The same before it is opened: what the head tells of is not all there.
        let problem = TensorSource::open_file(&path).map(|source| source.files.len()).unwrap_err().to_string();
        assert!(
            problem.contains(&format!("{} bytes where its head tells of {}", bytes.len() - 1, bytes.len())),
            "{problem}"
        );
    }

    /// The files of the corpus, which `tests/suite/fuzz.rs` damages too, and the index of shards.
    #[test]
    fn no_bytes_panic() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tensors");
        let folder = tempfile::tempdir().unwrap();
        for (name, cases) in
            [(WHOLE[0], ["good.safetensors", "halves.safetensors"]), (WHOLE[1], ["good-older.bin", "good-archive.bin"])]
        {
            let goods = cases.map(|case| std::fs::read(corpus.join(case)).unwrap());
            let path = folder.path().join(name);
            crate::damage::each(&goods, 300, |bytes| {
                std::fs::write(&path, bytes).unwrap();
                if let Ok(source) = TensorSource::open_folder(folder.path()) {
                    assert!(
                        source.shapes().all(|(name, _)| source.read([name]).ok().is_none_or(|read| read.len() == 1))
                    );
                }
            });
            std::fs::remove_file(path).unwrap();
        }
        std::fs::copy(corpus.join("good.safetensors"), folder.path().join("1.safetensors")).unwrap();
        let index =
            br#"{"metadata": {"total_size": 28}, "weight_map": {"a.weight": "1.safetensors", "b": "..", "c": 1}}"#;
        crate::damage::each(&[&index[..], &index[..78]], 1_000, |bytes| {
            std::fs::write(folder.path().join(INDICES[0]), bytes).unwrap();
            let _ = TensorSource::open_folder(folder.path()).map_err(|error| error.to_string());
        });
    }
}
