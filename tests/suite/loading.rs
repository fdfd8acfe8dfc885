//! Encoder folders as they are published (`scripts/make_fixtures.py`) give the hidden states that Hugging Face's classes
//! give; what does not fit is listed; what is damaged is an error; what is saved is loaded again to the bit.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::{backend::flex::FlexDevice, module::Module, tensor::backend::Backend};
use clasp::{
    checkpoint::{
        self, CheckpointConfig, CheckpointError,
        feature_extractor::FeatureExtractor,
        parameters,
        published::{EncoderKind, LoadReport, load_encoder, read_config},
    },
    data::text::Tokenizer,
    encoder::{RobertaConfig, SpeechEncoder, SpeechEncoderConfig, TextEncoder, Wanted, Wav2Vec2Config},
    nn::Init,
    ops::{Lengths, Mode},
};
use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use serde_json::{Value, json};

use crate::reference::{Cpu, relative_error, values};

/// Single precision over a layer or two.
const TOLERANCE: f64 = 1e-5;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn published(name: &str) -> PathBuf {
    fixtures().join("loading").join(name)
}

#[derive(Module, Debug)]
struct TextOnly<B: Backend> {
    text_encoder: TextEncoder<B>,
}

#[derive(Module, Debug)]
struct SpeechOnly<B: Backend> {
    speech_encoder: SpeechEncoder<B>,
}

fn load_text(folder: &Path) -> Result<(TextOnly<Cpu>, LoadReport), CheckpointError> {
    let config = RobertaConfig::from_json(&read_config(folder)?)?;
    let text_encoder = TextEncoder::new(&config, &mut Init::empty(&FlexDevice));
    load_encoder(TextOnly { text_encoder }, EncoderKind::Text, folder)
}

fn load_speech(folder: &Path) -> Result<(SpeechOnly<Cpu>, LoadReport), CheckpointError> {
    let config = SpeechEncoderConfig::from_json(&read_config(folder)?)?;
    let speech_encoder = SpeechEncoder::new(&config, &mut Init::empty(&FlexDevice));
    load_encoder(SpeechOnly { speech_encoder }, EncoderKind::Speech, folder)
}

/// Loads either; the report alone.
fn load(folder: &Path, kind: EncoderKind) -> Result<LoadReport, CheckpointError> {
    match kind {
        EncoderKind::Text => load_text(folder).map(|(_, report)| report),
        EncoderKind::Speech => load_speech(folder).map(|(_, report)| report),
    }
}

/// The folder's kind by its name.
fn kind_of(name: &str) -> EncoderKind {
    if name.starts_with("roberta") || name.starts_with("bert") { EncoderKind::Text } else { EncoderKind::Speech }
}

/// The hidden states of the encoder of a folder, and those of Hugging Face.
fn hidden_states(name: &str) -> (Vec<f32>, Vec<f32>, LoadReport) {
    let device = FlexDevice;
    let family = match kind_of(name) {
        EncoderKind::Text if name.starts_with("bert") => "bert",
        EncoderKind::Text => "roberta",
        EncoderKind::Speech if name.starts_with("wav2vec2-layer") => "wav2vec2-layer",
        EncoderKind::Speech if name.starts_with("wav2vec2") => "wav2vec2-group",
        EncoderKind::Speech => name.strip_suffix("-ctc").or(name.strip_suffix("-generation")).unwrap(),
    };
    let bytes = std::fs::read(published(&format!("{family}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let expected = reals(&file, "last_hidden_state");
    let (hidden, report) = match kind_of(name) {
        EncoderKind::Text => {
            let (model, report) = load_text(&published(name)).unwrap();
            let tokens: Vec<i64> = file.tensor("input.ids").unwrap().data().chunks_exact(8).map(integer).collect();
            let lengths = Lengths::full(1, tokens.len());
            (model.text_encoder.forward(&tokens, &lengths, Wanted::Last, Mode::evaluation(), &device).hidden, report)
        }
        EncoderKind::Speech => {
            let (model, report) = load_speech(&published(name)).unwrap();
            let samples = reals(&file, "input.wav");
            let lengths = Lengths::full(1, samples.len());
            (model.speech_encoder.forward(&samples, &lengths, Wanted::Last, Mode::evaluation(), &device).hidden, report)
        }
    };
    (values(hidden.into_data()), expected, report)
}

fn integer(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().unwrap())
}

fn reals(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = file.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::F32);
    view.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

// --- what is published ------------------------------------------------------------------------------------------------

#[test]
fn every_published_form_gives_the_same_hidden_states() {
    let mut count = 0;
    for entry in std::fs::read_dir(published("")).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_type().unwrap().is_dir() {
            continue;
        }
        let name = entry.file_name().into_string().unwrap();
        let (found, expected, report) = hidden_states(&name);
        let error = relative_error(&found, &expected, 1e-12);
        assert!(error < TOLERANCE, "{name}: off by {error:e}");
        assert!(report.unused.is_empty(), "{name}: {:?}", report.unused);
        count += 1;
    }
    // 8 of RoBERTa, 9 of wav2vec 2.0 with group norm and 2 with layer norm, 6 of other families.
    assert_eq!(count, 25);
}

/// A tensor's type, shape and bytes by its name.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors.map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))).collect()
}

fn write(tensors: &Tensors, path: &Path) {
    let views = tensors
        .iter()
        .map(|(name, (kind, shape, data))| (name.as_str(), TensorView::new(*kind, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

/// A copy of a folder.
fn copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// A copy of a folder with other tensors in its `model.safetensors`.
fn changed(folder: &Path, change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let copy = copy(folder);
    let path = copy.path().join("model.safetensors");
    let mut tensors = read(&path);
    change(&mut tensors);
    write(&tensors, &path);
    copy
}

/// A tensor of `rows` x 2 zeros.
fn zeros(rows: usize) -> (Dtype, Vec<usize>, Vec<u8>) {
    (Dtype::F32, vec![rows, 2], vec![0; 8 * rows])
}

#[track_caller]
fn assert_says(error: &dyn std::fmt::Display, parts: &[&str]) {
    let message = error.to_string();
    assert!(!message.contains('\n'), "more than one line: {message}");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

// --- what does not fit ------------------------------------------------------------------------------------------------

#[test]
fn all_that_is_missing_or_misshapen_in_an_encoder_is_listed_and_what_is_more_is_reported() {
    for (name, prefix, missing, misshapen, found) in [
        (
            "roberta-f16",
            "",
            ["embeddings.LayerNorm.bias", "encoder.layer.0.attention.self.key.weight"],
            "encoder.layer.0.output.dense.weight",
            "[3, 2] and should be [16, 24]",
        ),
        (
            "wav2vec2-group-ctc",
            "wav2vec2.",
            ["feature_extractor.conv_layers.3.conv.weight", "encoder.layer_norm.bias"],
            "feature_projection.projection.weight",
            "[3, 2] and should be [16, 8]",
        ),
    ] {
        let extra = format!("{prefix}encoder.surprise.weight");
        let folder = changed(&published(name), |tensors| {
            tensors.insert(extra.clone(), zeros(1));
        });
        let report = load(folder.path(), kind_of(name)).unwrap();
        assert_eq!(report.unused, ["encoder.surprise.weight"]);

        let folder = changed(&published(name), |tensors| {
            for missing in missing {
                tensors.remove(&format!("{prefix}{missing}")).unwrap();
            }
            assert!(tensors.insert(format!("{prefix}{misshapen}"), zeros(3)).is_some());
        });
        let error = load(folder.path(), kind_of(name)).unwrap_err();
        assert!(matches!(error, CheckpointError::Mismatch { .. }));
        let misshapen = format!("1 of another shape: {misshapen} is {found}");
        assert_says(&error, &["model.safetensors", "2 missing: ", missing[0], missing[1], &misshapen]);
    }
}

/// Hugging Face draws it anew, uniformly from 0 to 1, where a file holds none.
#[test]
fn masks_that_the_folder_does_not_ask_for_get_a_fresh_vector() {
    let folder = changed(&published("wav2vec2-group-f16"), |tensors| {
        tensors.retain(|name, _| !name.ends_with("masked_spec_embed"));
    });
    let mut config = read_config(folder.path()).unwrap();
    let masking = SpeechEncoderConfig::from_json(&config).unwrap();
    assert!(masking.has_mask_embedding());
    let load = || {
        let speech_encoder = SpeechEncoder::<Cpu>::new(&masking, &mut Init::empty(&FlexDevice));
        let speech_encoder = speech_encoder.with_fresh_mask(&mut Init::fresh(1, &FlexDevice));
        load_encoder(SpeechOnly { speech_encoder }, EncoderKind::Speech, folder.path())
    };
    assert_says(&load().unwrap_err(), &["1 missing: masked_spec_embed"]);
    config["mask_time_prob"] = 0.into();
    config["mask_feature_prob"] = 0.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let (model, report) = load().unwrap();
    assert!(report.is_mask_fresh && report.unused.is_empty());
    let path = folder.path().join("saved.safetensors");
    clasp::checkpoint::save_module(&model, &path).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let mask = reals(&SafeTensors::deserialize(&bytes).unwrap(), "speech_encoder.masked_spec_embed");
    assert!(mask.iter().all(|value| (0.0..1.0).contains(value)), "{mask:?}");
    assert!(mask.iter().any(|value| *value > 0.5) && mask.iter().any(|value| *value < 0.5), "{mask:?}");
}

#[test]
fn a_long_list_is_whole() {
    let folder = changed(&published("roberta-f16"), |tensors| {
        tensors.retain(|name, _| name.starts_with("encoder.layer.0.attention.self."));
        tensors.remove("encoder.layer.0.attention.self.key.bias");
    });
    // The 21 of a layer and the embeddings less 5 that are left and the token types, which may be missing.
    let error = load_text(folder.path()).unwrap_err();
    let last = ["encoder.layer.0.output.LayerNorm.weight", "encoder.layer.0.output.dense.weight"];
    assert_says(&error, &["15 missing: embeddings.LayerNorm.bias, ", last[0], last[1]]);
    assert_eq!(error.to_string().matches(", ").count(), 14);
}

/// The file of another model: none of its names fit, and no token types are made up for it.
#[test]
fn the_weights_of_another_kind_of_model_are_all_missing() {
    for (from, into) in [("wav2vec2-group-f16", "roberta-f16"), ("roberta-f16", "wav2vec2-group-f16")] {
        let folder = copy(&published(into));
        std::fs::copy(published(from).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let error = load(folder.path(), kind_of(into)).unwrap_err();
        assert!(matches!(&error, CheckpointError::Mismatch { mismatch, .. } if mismatch.missing.len() > 10), "{error}");
    }
}

#[test]
fn a_checkpoint_must_have_every_tensor_and_no_other() {
    let folder = changed(&fixtures().join("parity/group-norm"), |tensors| {
        tensors.remove("classifier.text.bias").unwrap();
        assert!(tensors.insert("projection.invariant.weight".into(), zeros(3)).is_some());
        tensors.insert("text_encoder.pooler.dense.weight".into(), zeros(1));
    });
    let error = checkpoint::load::<Cpu>(folder.path(), &FlexDevice).unwrap_err();
    assert_says(
        &error,
        &[
            "1 missing: classifier.text.bias",
            "1 of another shape: projection.invariant.weight is [3, 2] and should be [24, 24]",
            "1 not expected: text_encoder.pooler.dense.weight",
        ],
    );
}

#[test]
fn tensors_of_whole_numbers_are_no_weights() {
    let folder = changed(&fixtures().join("parity/group-norm"), |tensors| {
        let (kind, _, _) = tensors.get_mut("classifier.text.bias").unwrap();
        *kind = Dtype::I32;
    });
    let error = checkpoint::load::<Cpu>(folder.path(), &FlexDevice).unwrap_err();
    assert_says(&error, &["classifier.text.bias", "floating-point"]);
}

// --- what is damaged --------------------------------------------------------------------------------------------------

/// The one file of weights in a folder.
fn weights(folder: &Path) -> PathBuf {
    let names = ["model.safetensors", "pytorch_model.bin", "wav2vec_small.pt", "wav2vec_fine_tuned.pt"];
    names.iter().map(|name| folder.join(name)).find(|path| path.is_file()).unwrap()
}

/// Every format, cut at twenty places: an error that names the file, never a panic and never half a model.
#[test]
fn a_file_that_is_cut_is_an_error() {
    for name in [
        "roberta-f16",
        "roberta-masked-lm",
        "roberta-bin",
        "roberta-bin-legacy",
        "wav2vec2-group-bf16",
        "wav2vec2-group-bin",
        "wav2vec2-group-fairseq",
        "wav2vec2-group-fairseq-args",
        "wav2vec2-layer-fairseq-ctc",
    ] {
        let folder = copy(&published(name));
        let path = weights(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let places = (0..20).map(|part| whole.len() * part / 20);
        for length in places.chain([1, 7, 8, 9, 10, whole.len() - 1]) {
            std::fs::write(&path, &whole[..length]).unwrap();
            match load(folder.path(), kind_of(name)) {
                Ok(_) => panic!("{name} cut to {length} of {} bytes was loaded", whole.len()),
                Err(error) => assert_says(&error, &[path.file_name().unwrap().to_str().unwrap()]),
            }
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = load(folder.path(), kind_of(name)).unwrap_err();
        assert_says(&error, &["is damaged", "copy it again"]);
    }
}

/// No byte that is wrong ends in a panic. Weights that are read all the same are those of a flipped bit in the numbers.
#[test]
fn a_file_with_a_wrong_byte_is_no_panic() {
    for name in ["roberta-f16", "roberta-bin", "roberta-bin-legacy", "wav2vec2-group-fairseq-args"] {
        let folder = copy(&published(name));
        let path = weights(folder.path());
        let whole = std::fs::read(&path).unwrap();
        // The beginning, where the formats have their sizes, and places all over the file.
        for place in (0..64).chain((64..whole.len()).step_by(whole.len() / 300)) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0xa5;
            std::fs::write(&path, &bytes).unwrap();
            let _ = load(folder.path(), kind_of(name));
        }
    }
}

#[test]
fn something_else_under_the_name_of_weights_is_an_error() {
    for (name, content) in [
        ("model.safetensors", &b"<html>Not found</html>"[..]),
        ("pytorch_model.bin", b"{}"),
        ("pytorch_model.bin", b"\x80\x02}q\x00."), // an empty dictionary
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(published("roberta-f16").join("config.json"), folder.path().join("config.json")).unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        let error = load_text(folder.path()).unwrap_err();
        assert!(matches!(error, CheckpointError::Damaged { .. }), "{name}: {error}");
        assert_says(&error, &[name, "is damaged"]);
    }
}

#[test]
fn no_weights_no_config_and_no_folder_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    assert_says(&load_text(folder.path()).unwrap_err(), &["cannot read", "config.json"]);
    std::fs::copy(published("roberta-f16").join("config.json"), folder.path().join("config.json")).unwrap();
    let error = load_text(folder.path()).unwrap_err();
    assert_says(&error, &["holds no weights: put model.safetensors or pytorch_model.bin"]);
    for (content, part) in [("{\"hidden_size\": ", "is damaged"), ("[1]", "not a JSON object"), ("", "is damaged")] {
        std::fs::write(folder.path().join("config.json"), content).unwrap();
        assert_says(&load_text(folder.path()).unwrap_err(), &["config.json", part]);
    }
    let nowhere = folder.path().join("nowhere");
    assert_says(&load_text(&nowhere).unwrap_err(), &["cannot read", "nowhere"]);
    assert_says(&checkpoint::load::<Cpu>(&nowhere, &FlexDevice).unwrap_err(), &["cannot read", "nowhere"]);
}

#[test]
fn shards_that_are_missing_or_elsewhere_are_named() {
    for (name, shard, index) in [
        ("roberta-bin-shards", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"),
        ("wav2vec2-group-shards", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    ] {
        let folder = copy(&published(name));
        std::fs::remove_file(folder.path().join(shard)).unwrap();
        let error = load(folder.path(), kind_of(name)).unwrap_err();
        assert!(matches!(error, CheckpointError::Read { .. }));
        assert_says(&error, &["cannot read", shard]);

        let index = folder.path().join(index);
        let text = std::fs::read_to_string(&index).unwrap();
        std::fs::write(&index, text.replace(shard, &format!("../{shard}"))).unwrap();
        assert_says(&load(folder.path(), kind_of(name)).unwrap_err(), &["index.json is damaged", "another folder"]);
        for content in [&text[..text.len() / 2], "{}", "[]"] {
            std::fs::write(&index, content).unwrap();
            assert_says(&load(folder.path(), kind_of(name)).unwrap_err(), &["index.json is damaged"]);
        }
        // An index that knows of the first shard alone.
        let first = shard.replace("00002-of", "00001-of");
        std::fs::write(&index, json!({"weight_map": {"some": first}}).to_string()).unwrap();
        let error = load(folder.path(), kind_of(name)).unwrap_err();
        assert!(matches!(error, CheckpointError::Mismatch { .. }), "{error}");
    }
}

/// The same tensors behind what a wrapper puts in front of their names.
fn prefixed(folder: &Path, prefix: &str) -> tempfile::TempDir {
    changed(folder, |tensors| {
        *tensors =
            std::mem::take(tensors).into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
    })
}

#[test]
fn names_behind_those_of_a_wrapper_are_found_and_told() {
    for name in ["roberta-f16", "wav2vec2-group-ctc"] {
        let folder = published(name);
        assert_eq!(load(&folder, kind_of(name)).unwrap().wrapper, "");
        for prefix in ["module.", "_orig_mod.", "model.", "module._orig_mod."] {
            let report = load(prefixed(&folder, prefix).path(), kind_of(name)).unwrap();
            assert_eq!(report.wrapper, prefix, "{name}");
        }
        // Any other is told, with the names that are there.
        let error = load(prefixed(&folder, "net.").path(), kind_of(name)).unwrap_err();
        assert_says(&error, &["its names begin with \"net.", "save the model itself"]);
    }
    let checkpoint = fixtures().join("parity/group-norm");
    let error = checkpoint::load::<Cpu>(prefixed(&checkpoint, "module.").path(), &FlexDevice).unwrap_err();
    assert_says(&error, &["model.safetensors", "its names begin with \"module.\"", "save the model itself"]);
}

const LFS_POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 4711\n";

#[test]
fn a_git_lfs_pointer_is_told_as_what_it_is() {
    for (name, file) in [
        ("roberta-f16", "model.safetensors"),
        ("roberta-f16", "config.json"),
        ("roberta-bin", "pytorch_model.bin"),
        ("roberta-bin-shards", "pytorch_model-00002-of-00002.bin"),
        ("roberta-bin-shards", "pytorch_model.bin.index.json"),
        ("wav2vec2-group-shards", "model-00001-of-00002.safetensors"),
    ] {
        let folder = copy(&published(name));
        std::fs::write(folder.path().join(file), LFS_POINTER).unwrap();
        let error = match file {
            "config.json" => read_config(folder.path()).map(|_| ()).unwrap_err(),
            _ => load(folder.path(), kind_of(name)).map(|_| ()).unwrap_err(),
        };
        assert_says(&error, &["cannot read", file, "Git LFS pointer", "git lfs pull"]);
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), LFS_POINTER).unwrap();
    let error = Tokenizer::load(folder.path()).map(|_| ()).unwrap_err();
    assert_says(&error, &["tokenizer.json", "Git LFS pointer", "git lfs pull"]);
}

#[test]
fn a_feature_extractor_is_kept_or_refused() {
    let original = fixtures().join("parity/group-norm");
    let folder = copy(&original);
    let write = |file: &str, value: &Value| std::fs::write(folder.path().join(file), value.to_string()).unwrap();
    let encoder = SpeechEncoderConfig::Wav2Vec2(Wav2Vec2Config::default());
    let read = || FeatureExtractor::read(folder.path(), &encoder);
    let refused = |value: Value, parts: &[&str]| {
        write("preprocessor_config.json", &value);
        assert_says(&read().unwrap_err(), &[&["preprocessor_config.json"], parts].concat());
    };
    refused(json!({"sampling_rate": 8000}), &["sampling_rate = 8000 is not supported; it must be 16000"]);
    refused(json!({"feature_extractor_type": "WhisperFeatureExtractor"}), &["WhisperFeatureExtractor"]);
    refused(json!({"do_normalize": "no"}), &["do_normalize = \"no\""]);
    refused(json!({"feature_size": 80}), &["feature_size = 80"]);
    refused(json!([]), &["not a JSON object"]);
    let own = json!({
        "do_normalize": false, "feature_size": 1, "return_attention_mask": false, "sampling_rate": 16000, "other": [1],
    });
    write("preprocessor_config.json", &own);
    let loaded = checkpoint::load::<Cpu>(folder.path(), &FlexDevice).unwrap();
    assert!(!loaded.config.feature_extractor.do_normalize());
    let saved = tempfile::tempdir().unwrap();
    checkpoint::save(&loaded.model, &loaded.config, saved.path()).unwrap();
    let written = std::fs::read_to_string(saved.path().join("preprocessor_config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), own);
    // transformers 5 prefers what a processor's file says, alone or beside the other (AutoFeatureExtractor, 5.24).
    write("preprocessor_config.json", &json!({"do_normalize": true}));
    write("processor_config.json", &json!({"feature_extractor": {"do_normalize": false}}));
    assert!(!read().unwrap().do_normalize());
    std::fs::remove_file(folder.path().join("preprocessor_config.json")).unwrap();
    assert!(!read().unwrap().do_normalize());
    std::fs::remove_file(folder.path().join("processor_config.json")).unwrap();
    assert!(read().unwrap().do_normalize());
}

// --- what is saved ----------------------------------------------------------------------------------------------------

#[test]
fn a_saved_checkpoint_is_the_loaded_one_to_the_bit() {
    for name in ["group-norm", "layer-norm", "adapters"] {
        let original = fixtures().join("parity").join(name);
        let loaded = checkpoint::load::<Cpu>(&original, &FlexDevice).unwrap();
        let folder = tempfile::tempdir().unwrap();
        checkpoint::save(&loaded.model, &loaded.config, folder.path()).unwrap();
        // The names, types, shapes and bits of what PyTorch wrote.
        let saved = folder.path().join("model.safetensors");
        assert_eq!(read(&saved), read(&original.join("model.safetensors")), "{name}");
        let bytes = std::fs::read(&saved).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");

        let again = checkpoint::load::<Cpu>(folder.path(), &FlexDevice).unwrap();
        assert_eq!(parameters::shapes(&again.model), parameters::shapes(&loaded.model));
        assert_eq!(json!(again.config), json!(loaded.config));
        let second = tempfile::tempdir().unwrap();
        checkpoint::save(&again.model, &again.config, second.path()).unwrap();
        for file in ["model.safetensors", "config.json", "preprocessor_config.json"] {
            let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(file)).unwrap();
            assert_eq!(read(&folder), read(&second), "{name}: {file}");
        }
        // Every key of the reference's config is there with its value.
        let original: Value = read_config(&original).unwrap();
        let saved = read_config(folder.path()).unwrap();
        for (key, value) in original.as_object().unwrap() {
            for (inner, value) in value.as_object().into_iter().flatten() {
                assert_eq!(&saved[key][inner], value, "{name}: {key}.{inner}");
            }
            assert!(value.is_object() || &saved[key] == value, "{name}: {key}");
        }
    }
}

// --- what is asked for and not there ----------------------------------------------------------------------------------

#[test]
fn an_encoder_that_asks_for_what_we_do_not_have_is_refused() {
    for (name, key, value, part) in [
        ("roberta-f16", "hidden_act", json!("relu"), "hidden_act = relu is not supported; it must be gelu"),
        ("roberta-f16", "hidden_act", json!("gelu_new"), "hidden_act = gelu_new"),
        ("roberta-f16", "position_embedding_type", json!("relative_key"), "position_embedding_type = relative_key"),
        ("roberta-f16", "model_type", json!("deberta-v2"), "one of roberta, xlm-roberta, camembert, bert"),
        ("roberta-f16", "num_attention_heads", json!(3), "num_attention_heads = 3 must divide hidden_size = 16"),
        ("roberta-f16", "hidden_size", json!("wide"), "text encoder config: "),
        ("roberta-f16", "hidden_size", json!(-16), "text encoder config: "),
        ("wav2vec2-group-f16", "hidden_act", json!("relu"), "hidden_act = relu"),
        ("wav2vec2-group-f16", "feat_extract_activation", json!("relu"), "feat_extract_activation = relu"),
        ("wav2vec2-group-f16", "feat_extract_norm", json!("batch"), "feat_extract_norm = batch"),
        ("wav2vec2-group-f16", "add_adapter", json!(true), "add_adapter = true is not supported; it must be false"),
        ("wav2vec2-group-f16", "adapter_attn_dim", json!(16), "adapter_attn_dim"),
        ("wav2vec2-group-f16", "model_type", json!("wav2vec2-conformer"), "model_type = wav2vec2-conformer"),
        (
            "wav2vec2-group-f16",
            "model_type",
            json!("wav2vec2-bert"),
            "one of wav2vec2, hubert, data2vec-audio, unispeech-sat, wavlm, whisper",
        ),
        ("wav2vec2-group-f16", "conv_stride", json!([5, 2]), "conv_dim, conv_kernel and conv_stride"),
        ("wav2vec2-group-f16", "conv_stride", json!([5, 2, 2, 0, 2, 2, 2]), "must be from 1 to 1000000"),
        ("wav2vec2-group-f16", "num_conv_pos_embedding_groups", json!(3), "must divide hidden_size = 16"),
    ] {
        let folder = copy(&published(name));
        let mut config = read_config(folder.path()).unwrap();
        config[key] = value.clone();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let error = load(folder.path(), kind_of(name)).unwrap_err();
        let encoder = if kind_of(name) == EncoderKind::Text { "text encoder" } else { "speech encoder" };
        assert_says(&error, &[encoder, part]);
    }
}

#[test]
fn a_checkpoint_that_asks_for_what_we_do_not_have_is_refused() {
    let original = read_config(&fixtures().join("parity/group-norm")).unwrap();
    for (pointer, value, part) in [
        ("/format", json!("clasp-2"), "format is \"clasp-2\"; this program reads \"clasp-1\""),
        ("/format", json!(null), "no `format`"),
        ("/method", json!("lmf"), "lmf: missing field `speech_size`"),
        ("/method", json!("mlf"), "mlf"),
        ("/labels", json!([]), "labels is empty"),
        ("/hidden_size", json!("24"), "expected usize"),
        ("/fusion/split_heads", json!(5), "fusion.split_heads = 5 must divide hidden_size = 24"),
        ("/fusion/attention_heads", json!(0), "fusion.attention_heads = 0 must divide fusion.hidden_size = 16"),
        ("/fusion/kind", json!("sum"), "sum"),
        ("/text_encoder/hidden_act", json!("relu"), "text encoder config: hidden_act = relu"),
        ("/speech_encoder/add_adapter", json!(true), "speech encoder config: add_adapter = true"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = original.clone();
        *config.pointer_mut(pointer).unwrap() = value;
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        assert_says(&CheckpointConfig::read(folder.path()).unwrap_err(), &["config.json", part]);
    }
    // Keys that nobody knows are ignored.
    let folder = tempfile::tempdir().unwrap();
    let mut config = original;
    config["made_by"] = json!("somebody");
    config["fusion"]["colour"] = json!("blue");
    config["loss"]["mood"] = json!(1);
    config["text_encoder"]["torch_dtype"] = json!("float32");
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    CheckpointConfig::read(folder.path()).unwrap();
}
