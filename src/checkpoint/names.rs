//! The names of the parameters in a checkpoint. One kind of Transformer layer serves all places, each of which has names of
//! its own in the published files; these tables say which, and those of the families of speech encoders.
//!
//! | in the program | `text_encoder` (`RobertaModel`) | `speech_encoder` (`Wav2Vec2Model`) | `fusion` |
//! |---|---|---|---|
//! | `layers.N` | `encoder.layer.N` | `encoder.layers.N` | `layers.N` |
//! | `attention.query` | `attention.self.query` | `attention.q_proj` | `self_attn.q_proj` |
//! | `attention.output` | `attention.output.dense` | `attention.out_proj` | `self_attn.out_proj` |
//! | `attention_norm` | `attention.output.LayerNorm` | `layer_norm` | `norm1` |
//! | `feed_forward.up` | `intermediate.dense` | `feed_forward.intermediate_dense` | `linear1` |
//! | `feed_forward.down` | `output.dense` | `feed_forward.output_dense` | `linear2` |
//! | `output_norm` | `output.LayerNorm` | `final_layer_norm` | `norm2` |

use crate::encoder::speech;

/// Replacements on a path, in this order.
type Table = &'static [(&'static str, &'static str)];

const TEXT: Table = &[
    ("embeddings.word.", "embeddings.word_embeddings."),
    ("embeddings.position.", "embeddings.position_embeddings."),
    ("embeddings.token_type.", "embeddings.token_type_embeddings."),
    ("embeddings.norm.", "embeddings.LayerNorm."),
    ("text_encoder.layers.", "text_encoder.encoder.layer."),
    (".attention.query.", ".attention.self.query."),
    (".attention.key.", ".attention.self.key."),
    (".attention.value.", ".attention.self.value."),
    (".attention.output.", ".attention.output.dense."),
    (".attention_norm.", ".attention.output.LayerNorm."),
    (".feed_forward.up.", ".intermediate.dense."),
    (".feed_forward.down.", ".output.dense."),
    (".output_norm.", ".output.LayerNorm."),
];

const FUSION: Table = &[
    (".attention.query.", ".self_attn.q_proj."),
    (".attention.key.", ".self_attn.k_proj."),
    (".attention.value.", ".self_attn.v_proj."),
    (".attention.output.", ".self_attn.out_proj."),
    (".attention_norm.", ".norm1."),
    (".feed_forward.up.", ".linear1."),
    (".feed_forward.down.", ".linear2."),
    (".output_norm.", ".norm2."),
];

/// The checkpoint name of the parameter at a path of fields, as in `text_encoder.layers.0.attention.query.weight`.
///
/// What is at `head.Variant` lies under the method's name, but for classifiers; CLASP's is at the top.
pub fn checkpoint_name(path: &str) -> String {
    let Some((variant, own)) = path.strip_prefix("head.").and_then(|head| head.split_once('.')) else {
        return in_published_words(path);
    };
    let own = in_published_words(own);
    if own.starts_with("classifier.") || variant == "Clasp" { own } else { format!("{}.{own}", words(variant)) }
}

/// The words of a name that are told apart by capital letters: `LateFusion` is `late_fusion`.
fn words(variant: &str) -> String {
    let mut words = String::new();
    for letter in variant.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

fn in_published_words(path: &str) -> String {
    let table = match path.split('.').next() {
        Some("text_encoder") => TEXT,
        Some("speech_encoder") => return speech_name(path),
        Some("fusion") => FUSION,
        _ => &[],
    };
    table.iter().fold(path.to_owned(), |name, (from, to)| name.replacen(from, to, 1))
}

/// The name of a parameter at `speech_encoder.Family.path`, where the family says what it is called.
fn speech_name(path: &str) -> String {
    let mut parts = path.splitn(3, '.');
    let (Some(encoder), Some(names), Some(own)) = (parts.next(), parts.next().and_then(speech::names), parts.next())
    else {
        return path.to_owned();
    };
    let renamed = names.parameters.iter().fold(own.to_owned(), |name, (from, to)| {
        if from.starts_with('.') {
            return name.replacen(from, to, 1);
        }
        name.strip_prefix(from).map(|rest| format!("{to}{rest}")).unwrap_or(name)
    });
    format!("{encoder}.{renamed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_the_documented_names() {
        for (path, name) in [
            (
                "text_encoder.layers.11.attention.output.weight",
                "text_encoder.encoder.layer.11.attention.output.dense.weight",
            ),
            (
                "text_encoder.layers.0.attention_norm.bias",
                "text_encoder.encoder.layer.0.attention.output.LayerNorm.bias",
            ),
            ("text_encoder.embeddings.norm.weight", "text_encoder.embeddings.LayerNorm.weight"),
            (
                "speech_encoder.Wav2Vec2.feature_encoder.conv_layers.0.layer_norm.weight",
                "speech_encoder.feature_extractor.conv_layers.0.layer_norm.weight",
            ),
            (
                "speech_encoder.Wav2Vec2.layers.3.output_norm.weight",
                "speech_encoder.encoder.layers.3.final_layer_norm.weight",
            ),
            ("speech_encoder.Whisper.layers.3.output_norm.weight", "speech_encoder.layers.3.final_layer_norm.weight"),
            ("speech_encoder.Whisper.norm.bias", "speech_encoder.layer_norm.bias"),
            ("speech_encoder.Wav2Vec2.norm.weight", "speech_encoder.encoder.layer_norm.weight"),
            ("fusion.layers.1.attention.key.weight", "fusion.layers.1.self_attn.k_proj.weight"),
            ("fusion.layers.1.feed_forward.down.bias", "fusion.layers.1.linear2.bias"),
            ("projection.invariant.weight", "projection.invariant.weight"),
            ("head.Clasp.fusion.layers.1.attention.key.weight", "fusion.layers.1.self_attn.k_proj.weight"),
            ("text_encoder.layers.0.output_norm.bias", "text_encoder.encoder.layer.0.output.LayerNorm.bias"),
            ("adapter.speech.weight", "adapter.speech.weight"),
            ("head.Text.classifier.text.weight", "classifier.text.weight"),
            ("head.Misa.fusion.feed_forward.up.bias", "misa.fusion.linear1.bias"),
            ("head.Lfmim.text.blocks.0.attention_norm.bias", "lfmim.text.blocks.0.attention_norm.bias"),
            ("head.Clasp.fusion.layers.0.output_norm.bias", "fusion.layers.0.norm2.bias"),
            ("head.SomeOther.map.bias", "some_other.map.bias"),
        ] {
            assert_eq!(checkpoint_name(path), name);
        }
    }
}
