//! Keys of Hugging Face's configs of text and speech encoders that nothing here reads: they are accepted in `[text.config]`
//! and `[speech.config]`, so that a `config.json` can be copied over. Those that are read are declared in
//! [`crate::encoder`].

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
    "begin_suppress_tokens",
    "bos_token_id",
    "classifier_proj_size",
    "codevector_dim",
    "contrastive_logits_temperature",
    "ctc_loss_reduction",
    "ctc_zero_infinity",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "decoder_layerdrop",
    "decoder_layers",
    "decoder_start_token_id",
    "diversity_loss_weight",
    "do_normalize",
    "eos_token_id",
    "feat_quantizer_dropout",
    "final_dropout",
    "forced_decoder_ids",
    "is_decoder",
    "mask_channel_length",
    "mask_channel_min_space",
    "mask_channel_other",
    "mask_channel_prob",
    "mask_channel_selection",
    "mask_time_min_space",
    "mask_time_other",
    "mask_time_selection",
    "max_length",
    "max_target_positions",
    "median_filter_length",
    "num_adapter_layers",
    "num_codevector_groups",
    "num_codevectors_per_group",
    "num_feat_extract_layers",
    "num_negatives",
    "output_hidden_size",
    "pad_token_id",
    "proj_codevector_dim",
    "num_ctc_classes",
    "replace_prob",
    "scale_embedding",
    "suppress_tokens",
    "tdnn_dilation",
    "tdnn_dim",
    "tdnn_kernel",
    "use_weighted_layer_sum",
    "vocab_size",
    "xvector_output_dim",
];

/// Whether a path is a key that Hugging Face writes and nothing here reads.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_both_read_and_unused() {
        for key in super::super::table::all() {
            assert!(!is_unused(key.path), "{}", key.path);
        }
        assert!(is_unused("text.config.id2label.0") && is_unused("speech.config.vocab_size"));
        assert!(!is_unused("train.vocab_size"));
    }
}
