//! `clasp encode`: every vector that a method makes of each utterance of a manifest, in a safetensors file.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{count, tell_counts};
use clasp::{
    cli::EncodeArguments,
    data::{DataError, manifest},
    device::{self, Task},
    error,
    eval::report::InputCounts,
    inference::predictor::{NOT_FINITE, Predictor},
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
    let chosen = device::choose(arguments.device)?;
    device::dispatch(chosen, Work(arguments))
}

struct Work<'a>(&'a EncodeArguments);

impl Task for Work<'_> {
    type Output = anyhow::Result<u8>;

    fn run<B: Ops>(self, device: &B::Device) -> Self::Output {
        let arguments = self.0;
        let named = || arguments.manifest.display().to_string();
        let rows = manifest::read(&arguments.manifest)?;
        // Before anything takes long.
        let mut opened = Some(Opened::new(&arguments.output)?);
        let predictor = Predictor::<B>::load(&arguments.checkpoint, device)?;
        let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
        let dataset = predictor.dataset(rows).with_context(named)?;
        let counted = dataset.counts().with_context(named)?;
        let pass = predictor.pass(count(arguments.batch_size), WORKERS);
        let mut progress = Progress::stderr(false);
        let mut writer: Option<RowWriter> = None;
        let (mut done, of) = (0, Some(ids.len()));
        let written = clasp::inference::pass::run::<B, anyhow::Error>(
            predictor.model(),
            device,
            &dataset,
            pass,
            |batch, output| {
                let tensors: Vec<(&str, usize, Vec<f32>)> = tensors(output)
                    .into_iter()
                    .map(|(name, tensor)| {
                        let [_, width] = tensor.dims();
                        let values = tensor.into_data().convert::<f32>().to_vec::<f32>();
                        Ok((name, width, values.map_err(|problem| anyhow::anyhow!("{problem:?}"))?))
                    })
                    .collect::<anyhow::Result<_>>()?;
                if let Some(opened) = opened.take() {
                    let widths: Vec<(&str, usize)> = tensors.iter().map(|(name, width, _)| (*name, *width)).collect();
                    writer = Some(opened.begin(&widths, &ids)?);
                }
                let Some(writer) = &mut writer else { return Ok(()) };
                for (place, (_, width, values)) in tensors.iter().enumerate() {
                    for (&row, values) in batch.indices.iter().zip(values.chunks(*width)) {
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
        tell_counts(&mut progress, &InputCounts { empty_texts, cut_texts, cut_audio }, dataset.len());
        Ok(error::SUCCESS)
    }
}

/// A file that is written beside its place, and is put there when it is complete.
struct Opened {
    file: File,
    path: PathBuf,
    end: End,
}

/// What becomes of a complete file.
enum End {
    /// It gets its name.
    Renamed(tempfile::TempPath),
    /// It is copied into what is no plain file: a device, a pipe.
    Copied(File),
}

/// A safetensors file of [examples, width] tensors whose rows arrive in any order; nothing is held in memory. The
/// file appears under its name when it is complete.
struct RowWriter {
    opened: Opened,
    /// Offset of each tensor's first byte, and bytes of a row.
    places: Vec<(u64, u64)>,
}

impl Opened {
    fn new(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("--output: cannot write {}", path.display());
        if path.is_dir() {
            return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory)).with_context(cannot);
        }
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let target = File::options().write(true).open(path).with_context(cannot)?;
            let file = tempfile::tempfile().with_context(cannot)?;
            return Ok(Self { file, path: path.to_owned(), end: End::Copied(target) });
        }
        // Where a link leads.
        let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Here for its message: the one below would name the temporary file, which says nothing to the user.
        std::fs::read_dir(folder).with_context(cannot)?;
        let plain = |error: std::io::Error| std::io::Error::from(error.kind());
        let file = tempfile::Builder::new().prefix(".clasp-").permissions(permissions()).tempfile_in(folder);
        let (file, temporary) = file.map_err(plain).with_context(cannot)?.into_parts();
        Ok(Self { file, path: path.clone(), end: End::Renamed(temporary) })
    }

    fn begin(mut self, widths: &[(&str, usize)], ids: &[String]) -> anyhow::Result<RowWriter> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({ "format": "pt", "ids": json!(ids).to_string() }));
        let mut rows = Vec::with_capacity(widths.len());
        let mut end = 0;
        for &(name, width) in widths {
            let row = width * size_of::<f32>();
            let begin = end;
            end += row * ids.len();
            header.insert(
                name.into(),
                json!({ "dtype": "F32", "shape": [ids.len(), width], "data_offsets": [begin, end] }),
            );
            rows.push((begin as u64, row as u64));
        }
        let mut text = Value::Object(header).to_string();
        // The data begin at a multiple of eight bytes.
        text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
        let cannot = || format!("cannot write {}", self.path.display());
        self.file.write_all(&(text.len() as u64).to_le_bytes()).with_context(cannot)?;
        self.file.write_all(text.as_bytes()).with_context(cannot)?;
        let start = (size_of::<u64>() + text.len()) as u64;
        let places = rows.into_iter().map(|(begin, row)| (start + begin, row)).collect();
        Ok(RowWriter { opened: self, places })
    }
}

/// What any file that a program creates has; the library's own default is closed to others.
fn permissions() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

impl RowWriter {
    fn write(&mut self, tensor: usize, row: usize, values: &[f32]) -> anyhow::Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (begin, length) = self.places[tensor];
        let cannot = || format!("cannot write {}", self.opened.path.display());
        self.opened.file.write_all_at(&bytes, begin + length * row as u64).with_context(cannot)
    }

    fn commit(self) -> anyhow::Result<()> {
        let Opened { mut file, path, end } = self.opened;
        let cannot = || format!("cannot write {}", path.display());
        match end {
            End::Renamed(temporary) => {
                file.sync_all().with_context(cannot)?;
                temporary.persist(&path).map_err(|problem| problem.error).with_context(cannot)
            }
            End::Copied(mut target) => {
                file.rewind().and_then(|()| io::copy(&mut file, &mut target)).map(|_| ()).with_context(cannot)
            }
        }
    }
}
