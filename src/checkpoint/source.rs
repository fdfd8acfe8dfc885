//! Reading tensor files: safetensors and `PyTorch` pickles, whole or in shards. Nothing in a pickle is executed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData};
use burn_store::{ModuleStore, SafetensorsStore, TensorSnapshot};

use super::{CheckpointError, pytorch};

/// The files of a folder that can hold weights, in the order in which they are looked for.
const WHOLE: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
const INDICES: [&str; 2] = ["model.safetensors.index.json", "pytorch_model.bin.index.json"];

/// The tensors of some files, read when they are asked for.
#[derive(Default)]
pub struct TensorSource {
    tensors: BTreeMap<String, TensorSnapshot>,
    files: Vec<PathBuf>,
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
            .map_err(|source| CheckpointError::Read { path: folder.into(), source })?
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
        let tensors = if path.extension().is_some_and(|extension| extension == "safetensors") {
            open_safetensors(path)?
        } else {
            open_pickle(path)?
        };
        Ok(Self { tensors, files: vec![path.into()] })
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
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Name and shape of every tensor of numbers.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.to_vec()))
    }

    /// Renames every tensor; `None` leaves it out.
    pub fn rename(&mut self, rename: impl Fn(&str) -> Option<String>) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().filter_map(|(name, tensor)| Some((rename(&name)?, tensor))).collect();
    }

    /// Adds a tensor of zeros.
    pub fn insert_zeros(&mut self, name: &str, shape: Vec<usize>) {
        let data = TensorData::zeros::<f32, _>(shape);
        let id = burn::module::ParamId::new();
        self.tensors.insert(name.into(), TensorSnapshot::from_data(data, Vec::new(), Vec::new(), id));
    }

    /// A tensor in f32.
    ///
    /// # Errors
    /// The file is damaged or the tensor does not hold real numbers.
    pub fn read(&self, name: &str) -> Result<Option<TensorData>, CheckpointError> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let damaged = |problem: String| CheckpointError::Damaged {
            path: self.files.first().cloned().unwrap_or_default(),
            problem: format!("tensor {name}: {problem}"),
        };
        if !matches!(tensor.dtype, DType::F32 | DType::F16 | DType::BF16 | DType::F64 | DType::Flex32) {
            return Err(damaged(format!("its type {:?} is not a floating-point one", tensor.dtype)));
        }
        let data = tensor.to_data().map_err(|problem| damaged(problem.to_string()))?;
        Ok(Some(if data.dtype == DType::F32 { data } else { data.convert::<f32>() }))
    }
}

/// The files that an index of shards names.
///
/// # Errors
/// An index that is missing or damaged, or that names files of another folder.
pub fn shards(index: &Path) -> Result<BTreeSet<String>, CheckpointError> {
    let damaged = |problem: String| CheckpointError::Damaged { path: index.into(), problem };
    let text = std::fs::read_to_string(index).map_err(|source| CheckpointError::Read { path: index.into(), source })?;
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

fn open_safetensors(path: &Path) -> Result<BTreeMap<String, TensorSnapshot>, CheckpointError> {
    if !path.is_file() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(CheckpointError::Read { path: path.into(), source });
    }
    let mut store = SafetensorsStore::from_file(path).map_indices_contiguous(false);
    match store.get_all_snapshots() {
        Ok(tensors) => Ok(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect()),
        Err(problem) => Err(CheckpointError::Damaged { path: path.into(), problem: problem.to_string() }),
    }
}

fn open_pickle(path: &Path) -> Result<BTreeMap<String, TensorSnapshot>, CheckpointError> {
    std::fs::File::open(path).map_err(|source| CheckpointError::Read { path: path.into(), source })?;
    pytorch::open(path).map_err(|problem| CheckpointError::Damaged { path: path.into(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

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
                    assert!(source.shapes().all(|(name, _)| !matches!(source.read(name), Ok(None))));
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
