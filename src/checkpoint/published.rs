//! Encoder folders as they are published: which names their tensors have, and which tensors are no part of an encoder.

use std::{collections::BTreeMap, path::Path};

use burn::{module::Module, tensor::backend::Backend};
use serde_json::{Map, Value};

use super::{CheckpointError, Mismatch, parameters, source::TensorSource};
use crate::encoder::{SpeechEncoderConfig, speech::PublishedNames};
use crate::files;

/// One of the two encoders of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderKind {
    /// `RoBERTa`.
    Text,
    /// wav2vec 2.0 or Whisper.
    Speech,
}

impl EncoderKind {
    /// The prefix of its parameters in a checkpoint.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Text => "text_encoder",
            Self::Speech => "speech_encoder",
        }
    }

    /// How the files of a folder call things.
    fn published_names(self, folder: &Path) -> Result<PublishedNames, CheckpointError> {
        match self {
            Self::Text => Ok(TEXT_NAMES),
            Self::Speech => Ok(SpeechEncoderConfig::from_json(&read_config(folder)?)?.names()),
        }
    }
}

/// Those of `RoBERTa` and BERT; what the parameters are called: `names`.
const TEXT_NAMES: PublishedNames = PublishedNames {
    parameters: &[],
    feature_encoder: &[],
    fixed: &[],
    prefixes: &["roberta.", "bert."],
    others: &["lm_head.", "cls.", "pooler.", "classifier.", "embeddings.position_ids", "qa_outputs."],
};

/// Endings that other versions of the libraries give the same tensors.
const ENDINGS: [(&str, &str); 4] = [
    (".gamma", ".weight"),
    (".beta", ".bias"),
    (".weight_g", ".parametrizations.weight.original0"),
    (".weight_v", ".parametrizations.weight.original1"),
];

/// fairseq's names of wav2vec 2.0, most specific first.
const FAIRSEQ_SPEECH: [(&str, &str); 8] = [
    ("post_extract_proj.", "feature_projection.projection."),
    ("mask_emb", "masked_spec_embed"),
    ("encoder.pos_conv.0.", "encoder.pos_conv_embed.conv."),
    (".self_attn.", ".attention."),
    (".self_attn_layer_norm.", ".layer_norm."),
    (".fc1.", ".feed_forward.intermediate_dense."),
    (".fc2.", ".feed_forward.output_dense."),
    ("mask_time_emb_vector", "masked_spec_embed"),
];

/// No config is longer.
const LONGEST_CONFIG: u64 = 4 << 20;

/// What modules that wrap a model put in front of its names: `DataParallel`, `torch.compile`, and classes of one's own.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// What was read beside the weights.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Tensors of the file that are neither the encoder's nor a known head's.
    pub unused: Vec<String>,
    /// What stood in front of all names and was left out.
    pub wrapper: String,
    /// Whether the vector for masked frames is not of the file: the folder's config masks nothing, the model's does.
    pub is_mask_fresh: bool,
}

/// Reads the `config.json` of an encoder folder.
///
/// # Errors
/// The file is missing or no JSON object.
pub fn read_config(folder: &Path) -> Result<Value, CheckpointError> {
    read_json(&folder.join("config.json")).map(Value::Object)
}

/// Reads a file that holds a JSON object.
pub(super) fn read_json(path: &Path) -> Result<Map<String, Value>, CheckpointError> {
    let path = path.to_owned();
    let text =
        files::read_text(&path, LONGEST_CONFIG).map_err(|cause| CheckpointError::Read { path: path.clone(), cause })?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(CheckpointError::Damaged { path, problem: "it is not a JSON object".into() }),
        Err(problem) => Err(CheckpointError::Damaged { path, problem: problem.to_string() }),
    }
}

/// Fills an encoder, which must be at the field `kind.prefix()` of `model`, from a published folder.
///
/// # Errors
/// Missing or damaged files; tensors that are missing or of another shape, all of them listed. `masked_spec_embed` may be
/// missing where the folder's own config masks nothing: it then stays as it is in `model`.
pub fn load_encoder<B: Backend, M: Module<B>>(
    model: M,
    kind: EncoderKind,
    folder: &Path,
) -> Result<(M, LoadReport), CheckpointError> {
    let mut source = TensorSource::open_folder(folder)?;
    let names = kind.published_names(folder)?;
    let wrapper = unwrap_names(&mut source, &names);
    rename(&mut source, kind, &names);
    let prefix = format!("{}.", kind.prefix());
    let expected: BTreeMap<String, Vec<usize>> = parameters::shapes(&model)
        .into_iter()
        .filter_map(|(name, shape)| Some((name.strip_prefix(&prefix)?.to_owned(), shape)))
        .collect();
    if let Some(shape) = expected.get(TOKEN_TYPES)
        && kind == EncoderKind::Text
        && source.shapes().any(|(name, _)| name == "encoder.layer.0.attention.self.query.weight")
        && !source.shapes().any(|(name, _)| name == TOKEN_TYPES)
    {
        // fairseq's RoBERTa has no token types; Hugging Face's conversion makes them zero.
        source.insert_zeros(TOKEN_TYPES, shape.clone());
    }
    let mut mismatch = Mismatch::between(&expected, &source);
    mismatch.unexpected.retain(|name| !names.others.iter().any(|other| name.starts_with(other)));
    let unused = mismatch.unexpected.clone();
    let is_mask_fresh =
        kind == EncoderKind::Speech && mismatch.missing.iter().any(|name| name == MASK) && !has_mask(folder);
    mismatch.missing.retain(|name| !is_mask_fresh || name != MASK);
    // What is there instead tells what the file is.
    if mismatch.missing.is_empty() {
        mismatch.unexpected.clear();
    }
    mismatch.into_result(source.files())?;
    let model = parameters::fill_from(model, &source, |name| name.strip_prefix(&prefix))?;
    Ok((model, LoadReport { unused, wrapper, is_mask_fresh }))
}

/// Leaves out what wrappers have put in front of all names, and returns it.
fn unwrap_names(source: &mut TensorSource, published: &PublishedNames) -> String {
    let mut wrapper = String::new();
    loop {
        let is_before_all = |prefix: &str| source.shapes().all(|(name, _)| name.starts_with(prefix));
        // What a published class puts in front is no wrapper.
        let is_published = |prefix: &str| published.prefixes.iter().any(|own| own.starts_with(prefix));
        let is_wrapper =
            |prefix: &&str| is_before_all(prefix) && !is_published(prefix) && source.shapes().next().is_some();
        let found = WRAPPERS.into_iter().find(is_wrapper);
        let Some(prefix) = found else { return wrapper };
        source.rename(|name| name.strip_prefix(prefix).map(str::to_owned));
        wrapper.push_str(prefix);
    }
}

/// Whether an encoder folder's own config masks anything in training.
fn has_mask(folder: &Path) -> bool {
    let config = read_config(folder).ok().and_then(|config| SpeechEncoderConfig::from_json(&config).ok());
    config.is_none_or(|config| config.has_mask_embedding())
}

const MASK: &str = "masked_spec_embed";

const TOKEN_TYPES: &str = "embeddings.token_type_embeddings.weight";

fn rename(source: &mut TensorSource, kind: EncoderKind, published: &PublishedNames) {
    let names: Vec<String> = source.shapes().map(|(name, _)| name.to_owned()).collect();
    let prefix = published
        .prefixes
        .iter()
        .find(|prefix| names.iter().any(|name| name.starts_with(**prefix)))
        .copied()
        .unwrap_or_default();
    let is_fairseq_speech = kind == EncoderKind::Speech && names.iter().any(|name| name.contains("post_extract_proj"));
    let is_fairseq_text = kind == EncoderKind::Text && names.iter().any(|name| name.contains("sentence_encoder."));
    source.rename(|name| {
        let mut name = name.strip_prefix(prefix).unwrap_or(name).to_owned();
        if is_fairseq_speech {
            name = fairseq_speech_name(&name);
        }
        if is_fairseq_text {
            name = fairseq_text_name(&name);
        }
        for (ending, replacement) in ENDINGS {
            if let Some(stem) = name.strip_suffix(ending) {
                name = format!("{stem}{replacement}");
            }
        }
        Some(name)
    });
}

fn fairseq_speech_name(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("layer_norm.") {
        return format!("feature_projection.layer_norm.{rest}");
    }
    if let Some(rest) = name.strip_prefix("feature_extractor.conv_layers.") {
        // `N.0` is the convolution, `N.2` (group norm) or `N.2.1` (layer norm) its norm.
        let parts: Vec<&str> = rest.split('.').collect();
        return match parts.as_slice() {
            [layer, "0", kind] => format!("feature_extractor.conv_layers.{layer}.conv.{kind}"),
            [layer, "2", kind] | [layer, "2", "1", kind] => {
                format!("feature_extractor.conv_layers.{layer}.layer_norm.{kind}")
            }
            _ => name.to_owned(),
        };
    }
    FAIRSEQ_SPEECH.iter().fold(name.to_owned(), |name, (from, to)| name.replacen(from, to, 1))
}

fn fairseq_text_name(name: &str) -> String {
    const TABLE: [(&str, &str); 12] = [
        ("embed_tokens.", "embeddings.word_embeddings."),
        ("embed_positions.", "embeddings.position_embeddings."),
        ("emb_layer_norm.", "embeddings.LayerNorm."),
        ("layernorm_embedding.", "embeddings.LayerNorm."),
        (".self_attn.q_proj.", ".attention.self.query."),
        (".self_attn.k_proj.", ".attention.self.key."),
        (".self_attn.v_proj.", ".attention.self.value."),
        (".self_attn.out_proj.", ".attention.output.dense."),
        (".self_attn_layer_norm.", ".attention.output.LayerNorm."),
        (".fc1.", ".intermediate.dense."),
        (".fc2.", ".output.dense."),
        (".final_layer_norm.", ".output.LayerNorm."),
    ];
    let name = name.split_once("sentence_encoder.").map_or(name, |(_, rest)| rest);
    let name = name.strip_prefix("encoder.lm_head.").map_or(name.to_owned(), |rest| format!("lm_head.{rest}"));
    let name = match name.strip_prefix("layers.") {
        Some(rest) => format!("encoder.layer.{rest}"),
        None => name,
    };
    TABLE.iter().fold(name, |name, (from, to)| name.replacen(from, to, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of `wav2vec_small.pt` and what `transformers` calls the same tensors.
    #[test]
    fn fairseq_names_become_those_of_hugging_face() {
        for (fairseq, expected) in [
            ("feature_extractor.conv_layers.0.0.weight", "feature_extractor.conv_layers.0.conv.weight"),
            ("feature_extractor.conv_layers.0.2.bias", "feature_extractor.conv_layers.0.layer_norm.bias"),
            ("feature_extractor.conv_layers.3.2.1.weight", "feature_extractor.conv_layers.3.layer_norm.weight"),
            ("layer_norm.weight", "feature_projection.layer_norm.weight"),
            ("post_extract_proj.bias", "feature_projection.projection.bias"),
            ("mask_emb", "masked_spec_embed"),
            ("encoder.pos_conv.0.weight_g", "encoder.pos_conv_embed.conv.weight_g"),
            ("encoder.layers.4.self_attn.out_proj.weight", "encoder.layers.4.attention.out_proj.weight"),
            ("encoder.layers.4.self_attn_layer_norm.weight", "encoder.layers.4.layer_norm.weight"),
            ("encoder.layers.4.fc1.weight", "encoder.layers.4.feed_forward.intermediate_dense.weight"),
            ("encoder.layers.4.final_layer_norm.bias", "encoder.layers.4.final_layer_norm.bias"),
            ("encoder.layer_norm.bias", "encoder.layer_norm.bias"),
        ] {
            assert_eq!(fairseq_speech_name(fairseq), expected);
        }
    }
}
