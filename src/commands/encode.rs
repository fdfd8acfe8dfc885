//! `clasp encode`: every vector that a method makes of each utterance of a manifest, in a safetensors file.

use std::{
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};

use super::{count, end_at_signals, output::Output, tell_counts, write_output};
use clasp::{
    cli::EncodeArguments,
    data::{DataError, manifest},
    device::{self, Task},
    error,
    eval::report::InputCounts,
    files::{AtomicFile, FileError, remove_unfinished_beside},
    inference::{
        pass::inputs,
        predictor::{NOT_FINITE, Predictor},
    },
    method::tensors,
    ops::Ops,
    terminal::{Event, Progress},
};

/// Threads that decode ahead.
const WORKERS: usize = 2;

/// Runs `clasp encode`.
///
/// # Errors
/// A checkpoint, manifest or utterance that cannot be read; a file that cannot be written.
pub fn run(arguments: &EncodeArguments) -> anyhow::Result<u8> {
    end_at_signals()?;
    let chosen = device::choose(arguments.device)?;
    device::dispatch(chosen, EncodeTask(arguments))
}

struct EncodeTask<'a>(&'a EncodeArguments);

impl Task for EncodeTask<'_> {
    type Output = anyhow::Result<u8>;

    fn run<B: Ops>(self, device: &B::Device) -> Self::Output {
        let arguments = self.0;
        let named = || arguments.manifest.display().to_string();
        let rows = manifest::read(&arguments.manifest)?;
        // Before anything takes long.
        let path = &arguments.output;
        let output = Output::new("--output", path);
        output.is_not_manifest(&arguments.manifest)?;
        output.is_not_of_checkpoint(&arguments.checkpoint)?;
        output.is_not_in_run(&arguments.checkpoint)?;
        rows.iter().try_for_each(|row| output.is_not_recording(row))?;
        let cannot =
            |problem: FileError| anyhow::Error::new(FileError { action: "write", ..problem }).context("--output");
        remove_unfinished_beside(path);
        let mut file = Some(AtomicFile::create_seekable(path).map_err(cannot)?);
        let predictor = Predictor::<B>::load(&arguments.checkpoint, device)?;
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let dataset = predictor.dataset(rows).with_context(named)?;
        let counted = dataset.counts().with_context(named)?;
        let pass = predictor.pass(count(arguments.batch_size), WORKERS);
        let mut progress = Progress::stderr(false);
        let mut writer: Option<RowWriter> = None;
        let mut shapes = Map::new();
        let (mut done, of) = (0, Some(ids.len()));
        let written = clasp::inference::pass::run::<B, anyhow::Error>(
            predictor.model(),
            device,
            &dataset,
            pass,
            |batch, output| {
                let mut tensors: Vec<(&str, Vec<usize>, Vec<f32>)> = tensors(output)
                    .into_iter()
                    .map(|(name, tensor)| Ok((name, tensor.dims()[1..].to_vec(), values(tensor)?)))
                    .collect::<anyhow::Result<_>>()?;
                if arguments.layers {
                    let model = predictor.model();
                    for (name, tensor) in model.layer_vectors(&inputs(batch), device) {
                        tensors.push((name, tensor.dims()[1..].to_vec(), values(tensor)?));
                    }
                }
                if let Some(file) = file.take() {
                    let row_shapes: Vec<(&str, Vec<usize>)> =
                        tensors.iter().map(|(name, shape, _)| (*name, shape.clone())).collect();
                    writer = Some(RowWriter::begin(file, path, &row_shapes, &ids)?);
                    let shape = |own: &[usize]| json!([&[ids.len()], own].concat());
                    shapes.extend(row_shapes.iter().map(|(name, own)| ((*name).to_owned(), shape(own))));
                }
                let Some(writer) = &mut writer else { return Ok(()) };
                for (place, (_, shape, values)) in tensors.iter().enumerate() {
                    let width = shape.iter().product::<usize>().max(1);
                    for (&row, values) in batch.indices.iter().zip(values.chunks(width)) {
                        if let (false, Some(row)) = (values.iter().all(|value| value.is_finite()), dataset.row(row)) {
                            let problem = Box::new(DataError::Unusable { problem: NOT_FINITE.into() });
                            return Err(DataError::Utterance { id: row.id.clone(), line: row.line, problem }.into());
                        }
                        writer.write(place, row, values)?;
                    }
                }
                done += batch.len();
                progress.handle(&Event::Count { what: "encoding", done, of });
                Ok(())
            },
        );
        progress.handle(&Event::Finished);
        written.with_context(named)?;
        if let Some(writer) = writer {
            writer.commit()?;
        }
        let (empty_texts, cut_texts, cut_audio) = (counted.text_empty, counted.text_cut, counted.audio_cut);
        let inputs = InputCounts { empty_texts, cut_texts, cut_audio };
        tell_counts(&mut progress, &inputs, dataset.len());
        if arguments.json {
            let written = json!({ "output": path, "examples": ids.len(), "tensors": shapes, "inputs": inputs });
            write_output(&format!("{written:#}\n"))?;
        }
        Ok(error::SUCCESS)
    }
}

fn values<B: Ops, const D: usize>(tensor: Tensor<B, D>) -> anyhow::Result<Vec<f32>> {
    let values = tensor.into_data().convert::<f32>().to_vec::<f32>();
    values.map_err(|problem| anyhow::anyhow!("{problem:?}"))
}

/// A safetensors file of tensors, [examples, ...], whose rows arrive in any order; nothing is held in memory. The
/// file appears under its name when it is complete.
struct RowWriter {
    file: AtomicFile,
    path: PathBuf,
    /// Offset of each tensor's first byte, and bytes of a row.
    places: Vec<(u64, u64)>,
}

impl RowWriter {
    /// Writes the header; `shapes` has the tensors, and what an example has of each.
    fn begin(mut file: AtomicFile, path: &Path, shapes: &[(&str, Vec<usize>)], ids: &[String]) -> anyhow::Result<Self> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({ "format": "pt", "ids": json!(ids).to_string() }));
        let mut rows = Vec::with_capacity(shapes.len());
        let mut end = 0;
        for (name, shape) in shapes {
            let row = shape.iter().product::<usize>() * size_of::<f32>();
            let begin = end;
            end += row * ids.len();
            let shape = [&[ids.len()], shape.as_slice()].concat();
            header.insert((*name).into(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, end] }));
            rows.push((begin as u64, row as u64));
        }
        let mut text = Value::Object(header).to_string();
        // The data begin at a multiple of eight bytes.
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
        let cannot = || format!("cannot write {}", path.display());
        file.write_all(&(text.len() as u64).to_le_bytes()).with_context(cannot)?;
        file.write_all(text.as_bytes()).with_context(cannot)?;
        let start = (size_of::<u64>() + text.len()) as u64;
        let places = rows.into_iter().map(|(begin, row)| (start + begin, row)).collect();
        Ok(Self { file, path: path.to_owned(), places })
    }

    fn write(&mut self, tensor: usize, row: usize, values: &[f32]) -> anyhow::Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (begin, length) = self.places[tensor];
        let cannot = || format!("cannot write {}", self.path.display());
        self.file.file().write_all_at(&bytes, begin + length * row as u64).with_context(cannot)
    }

    fn commit(self) -> anyhow::Result<()> {
        Ok(self.file.commit()?)
    }
}
