//! What must hold for any bytes: nothing panics, and what is read is sound. The fuzz targets run these on what they make
//! up, `tests/suite/fuzz.rs` on the corpus.

use std::collections::HashSet;
use std::path::Path;

use clasp::checkpoint::source::TensorSource;
use clasp::data::manifest::{self, Row};
use clasp::data::{MIN_SAMPLES, audio};
use tempfile::TempDir;

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir().expect("the folder for temporary files can be written to");
}

/// Every line that is a row is, written and read, the same row.
pub fn manifest(bytes: &[u8]) {
    FOLDER.with(|folder| {
        let path = folder.path().join("rows.jsonl");
        let mut rows: Vec<Row> = Vec::new();
        let mut ids = HashSet::new();
        for (line, text) in manifest::lines(bytes) {
            let id = manifest::id_of_line(text);
            if let Ok(row) = manifest::parse_line(text, line, folder.path()) {
                assert_eq!(Some(&row.id), id.as_ref());
                if ids.insert(row.id.clone()) {
                    rows.push(row);
                }
            }
        }
        std::fs::write(&path, bytes).expect("a file can be written");
        if let Ok(read) = manifest::read(&path) {
            assert_eq!(read, rows);
        }
        if rows.is_empty() {
            return;
        }
        let once = written_and_read(&path, &rows);
        let twice = written_and_read(&path, &once);
        assert_eq!(once, twice);
        // The path of the audio may be another one to the same file, and the rows lie on other lines.
        for (row, again) in rows.iter().zip(&once) {
            assert_eq!(row.audio.is_some(), again.audio.is_some());
            assert_eq!(&Row { audio: again.audio.clone(), line: again.line, ..row.clone() }, again);
        }
    });
}

fn written_and_read(path: &Path, rows: &[Row]) -> Vec<Row> {
    manifest::write(path, rows).expect("rows can be written");
    let read = manifest::read(path).expect("what was written is a manifest");
    assert_eq!(read.len(), rows.len());
    read
}

/// A waveform has enough samples for a model, all of them finite; a length is a number.
pub fn audio(bytes: &[u8]) {
    for (start, end) in [(None, None), (Some(0.01), Some(0.04))] {
        if let Ok(waveform) = audio::from_bytes(bytes.to_vec(), start, end) {
            assert!(waveform.samples.len() >= MIN_SAMPLES);
            assert!(waveform.samples.iter().all(|sample| sample.is_finite()));
            assert!(waveform.channels > 0 && waveform.source_rate > 0);
        }
    }
    FOLDER.with(|folder| {
        let path = folder.path().join("audio");
        std::fs::write(&path, bytes).expect("a file can be written");
        if let Ok(seconds) = audio::probe(&path) {
            assert!(seconds.is_finite() && seconds >= 0.0);
        }
    });
}

/// A tensor has the shape that the file was said to have, a value for each of its places, and no more values than the
/// file has bytes.
pub fn tensors(bytes: &[u8]) {
    FOLDER.with(|folder| {
        for name in ["tensors.safetensors", "tensors.bin"] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).expect("a file can be written");
            let Ok(source) = TensorSource::open_file(&path) else { continue };
            for (name, shape) in source.shapes() {
                let Ok(mut tensors) = source.read([name]) else { continue };
                let tensor = tensors.remove(name).expect("the source has named it");
                assert_eq!(tensor.shape.to_vec(), shape);
                let values = tensor.as_slice::<f32>().expect("real numbers come as f32").len();
                assert_eq!(values, shape.iter().product::<usize>());
                assert!(values <= bytes.len());
            }
        }
    });
}
