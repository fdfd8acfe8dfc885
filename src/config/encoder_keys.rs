//! The keys of `[text.config]` and `[speech.config]`: Hugging Face's `RobertaConfig` and `Wav2Vec2Config`, with Hugging
//! Face's defaults (transformers 4.57 and 5; wav2vec 2.0 defaults are those of the code, not of its docstring).
//!
//! With fresh weights every key may be set. Beside a checkpoint only the adjustable ones may: they change no shape.
//! Keys that Hugging Face writes and no encoder here reads are accepted, so that a `config.json` can be copied over.

use crate::keys::{DROPOUT, Key, Kind, Range};

const GELU: &[&str] = &["gelu"];
const ABSOLUTE: &[&str] = &["absolute"];
const NORMS: &[&str] = &["group", "layer"];

/// The keys of `[text.config]` that matter.
pub const TEXT: &[Key] = &[
    Key::fixed("text.config.vocab_size", Kind::Integer(1), "50265", "rows of the word embeddings"),
    Key::fixed("text.config.hidden_size", Kind::Integer(1), "768", "width of the text encoder"),
    Key::fixed("text.config.num_hidden_layers", Kind::Integer(1), "12", "layers"),
    Key::fixed("text.config.num_attention_heads", Kind::Integer(1), "12", "attention heads; divides hidden_size"),
    Key::fixed("text.config.intermediate_size", Kind::Integer(1), "3072", "inner width of a layer"),
    Key::fixed("text.config.hidden_act", Kind::Choice(GELU), "\"gelu\"", "activation"),
    Key::fixed("text.config.hidden_dropout_prob", DROPOUT, "0.1", "dropout of embeddings and layers"),
    Key::fixed("text.config.attention_probs_dropout_prob", DROPOUT, "0.1", "dropout of attention weights"),
    Key::fixed("text.config.max_position_embeddings", Kind::Integer(5), "512", "tokens, and two more"),
    Key::fixed("text.config.type_vocab_size", Kind::Integer(1), "2", "rows of the type embeddings (1 in RoBERTa base)"),
    Key::fixed("text.config.layer_norm_eps", Kind::Number(Range::Positive), "1e-12", "in layer norms (1e-5 in base)"),
    Key::fixed("text.config.initializer_range", Kind::Number(Range::NotNegative), "0.02", "deviation of fresh weights"),
    Key::fixed("text.config.pad_token_id", Kind::Integer(0), "1", "id of <pad>"),
    Key::fixed("text.config.bos_token_id", Kind::Integer(0), "0", "id of <s>"),
    Key::fixed("text.config.eos_token_id", Kind::Integer(0), "2", "id of </s>"),
    Key::fixed("text.config.position_embedding_type", Kind::Choice(ABSOLUTE), "\"absolute\"", "kind of positions"),
    Key::open("text.config.is_decoder", Kind::Boolean, "false", "only false: an encoder sees the whole text"),
    Key::open("text.config.add_cross_attention", Kind::Boolean, "false", "only false: there is no decoder here"),
];

/// The keys of `[speech.config]` that matter.
pub const SPEECH: &[Key] = &[
    Key::fixed("speech.config.hidden_size", Kind::Integer(1), "768", "width of the speech encoder"),
    Key::fixed("speech.config.num_hidden_layers", Kind::Integer(1), "12", "layers"),
    Key::fixed("speech.config.num_attention_heads", Kind::Integer(1), "12", "attention heads; divides hidden_size"),
    Key::fixed("speech.config.intermediate_size", Kind::Integer(1), "3072", "inner width of a layer"),
    Key::fixed("speech.config.hidden_act", Kind::Choice(GELU), "\"gelu\"", "activation of the layers"),
    Key::fixed("speech.config.hidden_dropout", DROPOUT, "0.1", "dropout of the layers"),
    Key::fixed("speech.config.activation_dropout", DROPOUT, "0.1", "dropout inside the feed-forward"),
    Key::fixed("speech.config.attention_dropout", DROPOUT, "0.1", "dropout of attention weights"),
    Key::fixed("speech.config.feat_proj_dropout", DROPOUT, "0.0", "dropout after the feature projection"),
    Key::fixed("speech.config.layerdrop", DROPOUT, "0.1", "chance that a layer is left out of a training step"),
    Key::fixed(
        "speech.config.initializer_range",
        Kind::Number(Range::NotNegative),
        "0.02",
        "deviation of fresh weights",
    ),
    Key::fixed("speech.config.layer_norm_eps", Kind::Number(Range::Positive), "1e-5", "in layer norms"),
    Key::fixed("speech.config.feat_extract_norm", Kind::Choice(NORMS), "\"group\"", "norm of the convolutions"),
    Key::fixed(
        "speech.config.feat_extract_activation",
        Kind::Choice(GELU),
        "\"gelu\"",
        "activation of the convolutions",
    ),
    Key::fixed("speech.config.conv_dim", Kind::Integers, "[512, 512, 512, 512, 512, 512, 512]", "channels"),
    Key::fixed("speech.config.conv_stride", Kind::Integers, "[5, 2, 2, 2, 2, 2, 2]", "strides"),
    Key::fixed("speech.config.conv_kernel", Kind::Integers, "[10, 3, 3, 3, 3, 2, 2]", "kernels"),
    Key::fixed("speech.config.conv_bias", Kind::Boolean, "false", "whether the convolutions have a bias"),
    Key::fixed(
        "speech.config.num_conv_pos_embeddings",
        Kind::Integer(1),
        "128",
        "kernel of the positional convolution",
    ),
    Key::fixed(
        "speech.config.num_conv_pos_embedding_groups",
        Kind::Integer(1),
        "16",
        "its groups; divides hidden_size",
    ),
    Key::fixed(
        "speech.config.do_stable_layer_norm",
        Kind::Boolean,
        "false",
        "norms before the layers, as in large-lv60",
    ),
    Key::fixed("speech.config.apply_spec_augment", Kind::Boolean, "true", "mask spans of frames in training"),
    Key::fixed("speech.config.mask_time_prob", Kind::Number(Range::Unit), "0.05", "share of masked frames; 0: none"),
    Key::fixed("speech.config.mask_time_length", Kind::Integer(1), "10", "frames a span"),
    Key::fixed("speech.config.mask_time_min_masks", Kind::Integer(0), "2", "spans at least"),
    Key::fixed("speech.config.mask_feature_prob", Kind::Number(Range::Unit), "0.0", "share of masked channels"),
    Key::fixed("speech.config.mask_feature_length", Kind::Integer(1), "10", "channels a span"),
    Key::fixed("speech.config.mask_feature_min_masks", Kind::Integer(0), "0", "channel spans at least"),
    Key::fixed("speech.config.add_adapter", Kind::Boolean, "false", "only false: there is no such adapter here"),
];

/// The text keys that change no shape.
const ADJUSTABLE_TEXT: &[&str] = &["hidden_dropout_prob", "attention_probs_dropout_prob"];

/// The speech keys that change no shape.
const ADJUSTABLE_SPEECH: &[&str] = &[
    "hidden_dropout",
    "activation_dropout",
    "attention_dropout",
    "feat_proj_dropout",
    "layerdrop",
    "apply_spec_augment",
    "mask_time_prob",
    "mask_time_length",
    "mask_time_min_masks",
    "mask_feature_prob",
    "mask_feature_length",
    "mask_feature_min_masks",
];

/// The text keys that `model.dropout` sets.
pub const DROPOUTS_TEXT: &[&str] = ADJUSTABLE_TEXT;

/// The speech keys that `model.dropout` sets. Layer drop is not a dropout: it leaves whole layers out.
pub const DROPOUTS_SPEECH: &[&str] =
    &["hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout"];

/// Keys of both configs that Hugging Face writes and that change nothing here.
const UNUSED: &[&str] = &[
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "chunk_size_feed_forward",
    "dtype",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

/// Keys of one of the two configs that change nothing here: heads, pre-training and decoding.
const UNUSED_TEXT: &[&str] = &["classifier_dropout"];
const UNUSED_SPEECH: &[&str] = &[
    "adapter_attn_dim",
    "adapter_kernel_size",
    "adapter_stride",
    "add_cross_attention",
    "bos_token_id",
    "classifier_proj_size",
    "codevector_dim",
    "contrastive_logits_temperature",
    "ctc_loss_reduction",
    "ctc_zero_infinity",
    "diversity_loss_weight",
    "do_normalize",
    "eos_token_id",
    "feat_quantizer_dropout",
    "final_dropout",
    "is_decoder",
    "mask_channel_length",
    "mask_channel_min_space",
    "mask_channel_other",
    "mask_channel_prob",
    "mask_channel_selection",
    "mask_time_min_space",
    "mask_time_other",
    "mask_time_selection",
    "num_adapter_layers",
    "num_codevector_groups",
    "num_codevectors_per_group",
    "num_feat_extract_layers",
    "num_negatives",
    "output_hidden_size",
    "pad_token_id",
    "proj_codevector_dim",
    "tdnn_dilation",
    "tdnn_dim",
    "tdnn_kernel",
    "use_weighted_layer_sum",
    "vocab_size",
    "xvector_output_dim",
];

/// Whether a path is a key that Hugging Face writes and nothing here reads.
#[must_use]
pub fn is_unused(path: &str) -> bool {
    let (rest, own) = if let Some(rest) = path.strip_prefix("text.config.") {
        (rest, UNUSED_TEXT)
    } else if let Some(rest) = path.strip_prefix("speech.config.") {
        (rest, UNUSED_SPEECH)
    } else {
        return false;
    };
    let name = rest.split('.').next().unwrap_or(rest);
    UNUSED.contains(&name) || own.contains(&name)
}

/// Whether a key of an encoder's config changes no shape, so that it may be set beside a checkpoint.
#[must_use]
pub fn is_adjustable(path: &str) -> bool {
    path.strip_prefix("text.config.").is_some_and(|name| ADJUSTABLE_TEXT.contains(&name))
        || path.strip_prefix("speech.config.").is_some_and(|name| ADJUSTABLE_SPEECH.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjustable_and_dropout_keys_are_keys() {
        for (section, keys, names) in [
            ("text.config", TEXT, ADJUSTABLE_TEXT),
            ("speech.config", SPEECH, ADJUSTABLE_SPEECH),
            ("speech.config", SPEECH, DROPOUTS_SPEECH),
        ] {
            for name in names {
                assert!(keys.iter().any(|key| key.split() == (section, *name)), "{section}.{name}");
            }
        }
        assert!(is_adjustable("speech.config.layerdrop") && !is_adjustable("text.config.hidden_size"));
    }

    #[test]
    fn no_key_is_both_read_and_unused() {
        for key in TEXT.iter().chain(SPEECH) {
            assert!(!is_unused(key.path), "{}", key.path);
        }
        assert!(is_unused("text.config.id2label.0") && is_unused("speech.config.vocab_size"));
        assert!(!is_unused("train.vocab_size"));
    }
}
