# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.2", "transformers>=5.0", "safetensors>=0.5", "numpy", "soundfile"]
# ///
"""Writes tests/fixtures: small random models with what PyTorch and Hugging Face make of them.

  python scripts/make_fixtures.py [--only parity|loading|tokenizer|real] [--output tests/fixtures]

parity/NAME      a checkpoint folder with inputs, outputs, losses and gradients, and ten Adam steps (clasp_torch.py)
loading/NAME     encoder folders as they are published, over one set of weights an encoder
real             what real weights make of texts and utterances; read from CLASP_TEST_MODELS (scripts/real_weights.py)
tokenizer.json   texts with the ids of Hugging Face's RoBERTa tokenizer; read from CLASP_TEST_DATA/roberta-bpe

All is computed in float64 from weights and inputs that float32 holds exactly, and stored in float32, so that the
expected values carry no rounding of their own and do not depend on the machine. Files are the same from run to run,
but for the two in torch.save's legacy format, which names storages by their address.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    CamembertConfig,
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    HubertConfig,
    HubertForCTC,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    UniSpeechSatConfig,
    UniSpeechSatForCTC,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
    XLMRobertaConfig,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from clasp_torch import (
    WHISPER_FRAME,
    Clasp,
    ClaspConfig,
    FusionConfig,
    LossConfig,
    batch,
    log_mel,
    perturb,
    trajectory,
    write,
)

# --- parity -----------------------------------------------------------------------------------------------------------


def text_config(family=RobertaConfig, **other) -> RobertaConfig:
    values = dict(
        vocab_size=96, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40,
        max_position_embeddings=34, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, initializer_range=0.25,
    )  # fmt: skip
    return family(**{**values, **other})


def speech_config(family=Wav2Vec2Config, **other) -> Wav2Vec2Config:
    values = dict(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, conv_dim=(16,) * 7,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, initializer_range=0.25,
    )  # fmt: skip
    return family(**{**values, **other})


def whisper_config(**other) -> WhisperConfig:
    values = dict(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24, num_mel_bins=12,
        max_source_positions=12, init_std=0.25, decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=1,
    )  # fmt: skip
    return WhisperConfig(**{**values, **other})


def parity_cases() -> dict[str, tuple[ClaspConfig, RobertaConfig, Wav2Vec2Config, list[tuple[int, int]]]]:
    """Name -> configs, and the tokens and samples of each example."""
    fusion = dict(hidden_size=16, layers=2, attention_heads=4, feed_forward=32)
    four = [(12, 4000), (7, 2600), (9, 3300), (5, 1800)]
    return {
        # wav2vec2-base's kind, and everything else as the paper has it
        "group-norm": (
            ClaspConfig(hidden_size=24, fusion=FusionConfig(split_heads=4, **fusion)),
            text_config(), speech_config(), four,
        ),
        # wav2vec2-large-lv60's kind; mean over tokens, slot embeddings, no masked_spec_embed
        "layer-norm": (
            ClaspConfig(
                hidden_size=24, text_pooling="mean",
                fusion=FusionConfig(split_heads=2, slot_embeddings=True, **fusion),
            ),
            text_config(),
            speech_config(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True, mask_time_prob=0.0),
            four,
        ),
        # encoders of other widths, uneven conv_dim, an odd positional kernel, large epsilons, the ablation's fusion,
        # other losses, an empty text (two tokens) and a single frame (400 samples)
        "adapters": (
            ClaspConfig(
                num_labels=3, hidden_size=24,
                fusion=FusionConfig(
                    kind="attention", split_heads=4, hidden_size=24, layers=1, attention_heads=2, feed_forward=32
                ),
                loss=LossConfig(
                    temperature=0.5, similarity="dot", negatives="cross_modal", detach_target=True,
                    kl_direction="unimodal_to_fusion", kl_detach=True, label_smoothing=0.1,
                ),
            ),
            text_config(hidden_size=16, intermediate_size=24, layer_norm_eps=1e-2),
            speech_config(
                hidden_size=20, intermediate_size=24, conv_dim=(8, 8, 12, 12, 16, 16, 16), num_conv_pos_embeddings=7,
                layer_norm_eps=1e-3,
            ),
            [(10, 3000), (2, 2200), (6, 400)],
        ),
        # BERT's positions from 0 and padding 0; HuBERT without the norm before its projection
        "bert-hubert": (
            ClaspConfig(hidden_size=16, fusion=FusionConfig(split_heads=2, **fusion)),
            text_config(
                BertConfig, hidden_size=16, intermediate_size=24, type_vocab_size=2, layer_norm_eps=1e-12,
                pad_token_id=0, bos_token_id=2, eos_token_id=3,
            ),
            speech_config(
                HubertConfig, hidden_size=16, intermediate_size=24, conv_dim=(8,) * 7, feat_proj_layer_norm=False
            ),
            four,
        ),
        # data2vec's five positional convolutions
        "xlm-roberta-data2vec": (
            ClaspConfig(hidden_size=16, fusion=FusionConfig(split_heads=2, **fusion)),
            text_config(XLMRobertaConfig, hidden_size=16, intermediate_size=24),
            speech_config(
                Data2VecAudioConfig, hidden_size=16, intermediate_size=24, conv_dim=(8,) * 7,
                num_conv_pos_embeddings=5, conv_pos_kernel_size=5,
            ),
            four,
        ),
        # the norms of UniSpeech-SAT large; its mask embedding is there although nothing is masked
        "roberta-unispeech-sat": (
            ClaspConfig(hidden_size=16, fusion=FusionConfig(split_heads=2, **fusion)),
            text_config(hidden_size=16, intermediate_size=24),
            speech_config(
                UniSpeechSatConfig, hidden_size=16, intermediate_size=24, conv_dim=(8,) * 7,
                feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True, mask_time_prob=0.0,
            ),
            four,
        ),
        # WavLM's gated relative positions
        "camembert-wavlm": (
            ClaspConfig(hidden_size=16, fusion=FusionConfig(split_heads=2, **fusion)),
            text_config(CamembertConfig, hidden_size=16, intermediate_size=24),
            speech_config(
                WavLMConfig, hidden_size=16, intermediate_size=24, conv_dim=(8,) * 7, num_buckets=16,
                max_bucket_distance=20,
            ),
            four,
        ),
        # Whisper over an utterance's own frames, one of them longer than it hears (12 positions are 3,840 samples)
        "roberta-whisper": (
            ClaspConfig(hidden_size=16, fusion=FusionConfig(split_heads=2, **fusion)),
            text_config(hidden_size=16, intermediate_size=24), whisper_config(), four,
        ),
        # and as it is published, with the silence behind
        "roberta-whisper-padded": (
            ClaspConfig(hidden_size=16, fusion=FusionConfig(split_heads=2, **fusion)),
            text_config(hidden_size=16, intermediate_size=24), whisper_config(padded=True), four,
        ),
        # states below the last layer, mixed and alone, pooled by attention
        "layers": (
            ClaspConfig(
                hidden_size=16, text_pooling="attention", speech_pooling="attention", text_layers="mix",
                speech_layers=1, fusion=FusionConfig(split_heads=2, **fusion),
            ),
            text_config(hidden_size=16, intermediate_size=24),
            speech_config(hidden_size=16, intermediate_size=24, conv_dim=(8,) * 7, mask_time_prob=0.0), four,
        ),
        # and with the norm behind the layers, which is a part of the last state alone
        "layers-whisper": (
            ClaspConfig(
                hidden_size=16, text_pooling="mean", text_layers=1, speech_layers="mix",
                fusion=FusionConfig(split_heads=2, **fusion),
            ),
            text_config(hidden_size=16, intermediate_size=24), whisper_config(), four,
        ),
    }  # fmt: skip


def make_parity(folder: Path) -> None:
    for seed, (name, (config, text, speech, shapes)) in enumerate(parity_cases().items()):
        torch.manual_seed(seed)
        model = Clasp(config, text, speech).eval()
        perturb(model)
        for key, parameter in model.speech_encoder.named_parameters():
            if key == "encoder.pos_conv_embed.conv.parametrizations.weight.original0":
                parameter.data *= 3  # GELU's bend
        model.double()
        ids, mask, wav, lengths, labels = batch(text, shapes, config.num_labels, seed + 100)
        inputs = (ids, mask, wav.double(), lengths, labels)
        write(folder / name, model, inputs)
        trajectory(model, inputs, 10, 1e-3, folder / name / "trajectory.jsonl")


# --- loading ----------------------------------------------------------------------------------------------------------


def representable(model: nn.Module) -> None:
    """Rounds every weight to a value that f16 and bf16 hold exactly, so that all variants share their results."""
    perturb(model)
    for p in model.parameters():
        p.data = p.data.bfloat16().float()
        p.data[p.data.abs() < 2.0**-14] = 0.0


def old_weight_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    return OrderedDict(
        (re.sub("|".join(map(re.escape, names)), lambda m: names[m[0]], k), v) for k, v in state.items()
    )


def gamma_beta(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return OrderedDict(
        (re.sub(r"(?i)(layer_?norm)\.weight$", r"\1.gamma", re.sub(r"(?i)(layer_?norm)\.bias$", r"\1.beta", k)), v)
        for k, v in state.items()
    )


# Hugging Face name -> fairseq name, in order; as fairseq's wav2vec2.py builds its modules.
FAIRSEQ = [
    (r"^wav2vec2\.", ""),
    (r"^masked_spec_embed$", "mask_emb"),
    (r"^feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"^encoder\.pos_conv_embed\.conv\.", "encoder.pos_conv.0."),
    (r"\.attention\.(q|k|v|out)_proj\.", r".self_attn.\1_proj."),
    (r"^(encoder\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
    (r"^quantizer\.codevectors$", "quantizer.vars"),
    (r"^project_hid\.", "final_proj."),
]


def fairseq(state: dict[str, Tensor], norm: str) -> dict[str, Tensor]:
    place = "2" if norm == "group" else "2.1"  # the layer norm sits between two transpositions
    rules = [*FAIRSEQ, (r"^feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", rf"feature_extractor.conv_layers.\1.{place}.")]
    result = OrderedDict()
    for name, value in old_weight_norm(state).items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        result[name] = value
    return result


def short_config(path: Path, config, architecture: str, keys: list[str]) -> None:
    """A config.json with the keys that early uploads had; the rest are Hugging Face's defaults."""
    values = {"architectures": [architecture], "model_type": config.model_type}
    values |= {k: v for k, v in config.to_dict().items() if k in keys}
    path.write_text(json.dumps(dict(sorted(values.items())), indent=2) + "\n")


TEXT_KEYS = """attention_probs_dropout_prob bos_token_id eos_token_id hidden_act hidden_dropout_prob hidden_size
initializer_range intermediate_size layer_norm_eps max_position_embeddings num_attention_heads num_hidden_layers
pad_token_id type_vocab_size vocab_size""".split()
SPEECH_KEYS = """activation_dropout apply_spec_augment attention_dropout bos_token_id conv_bias conv_dim conv_kernel
conv_stride do_stable_layer_norm eos_token_id feat_extract_activation feat_extract_dropout feat_extract_norm
feat_proj_dropout final_dropout freeze_feat_extract_train hidden_act hidden_dropout hidden_size initializer_range
intermediate_size layer_norm_eps layerdrop mask_time_length mask_time_prob num_attention_heads
num_conv_pos_embedding_groups num_conv_pos_embeddings num_feat_extract_layers num_hidden_layers
pad_token_id vocab_size""".split()


def make_loading(folder: Path) -> None:
    make_roberta(folder)
    make_wav2vec2(folder)
    make_families(folder)


def make_families(folder: Path) -> None:
    """Each other family as a class with a head saves it."""
    torch.manual_seed(30)
    small = dict(hidden_size=16, num_hidden_layers=1, intermediate_size=24)
    config = text_config(
        BertConfig, vocab_size=40, max_position_embeddings=18, type_vocab_size=2, layer_norm_eps=1e-12,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, **small,
    )  # fmt: skip
    masked = BertForMaskedLM(config).eval()
    representable(masked)
    masked.save_pretrained(folder / "bert-masked-lm")
    (folder / "bert-masked-lm" / "generation_config.json").unlink(missing_ok=True)
    ids, mask, *_ = batch(config, [(9, 400)], 2, 31)
    hidden = masked.bert.double()(input_ids=ids, attention_mask=mask).last_hidden_state.detach().float()
    save_file({"input.ids": ids, "last_hidden_state": hidden}, folder / "bert.safetensors")
    families = {
        "hubert": (HubertForCTC, HubertConfig, {}),
        "data2vec-audio": (Data2VecAudioForCTC, Data2VecAudioConfig, dict(num_conv_pos_embeddings=5)),
        "unispeech-sat": (UniSpeechSatForCTC, UniSpeechSatConfig, dict(mask_time_prob=0.0)),
        "wavlm": (WavLMForCTC, WavLMConfig, dict(num_buckets=8, max_bucket_distance=9)),
    }
    for seed, (name, (model, family, other)) in enumerate(families.items()):
        torch.manual_seed(31 + seed)
        ctc = model(speech_config(family, conv_dim=(8,) * 7, vocab_size=6, **{**small, **other})).eval()
        representable(ctc)
        ctc.save_pretrained(folder / f"{name}-ctc")
        _, _, wav, *_ = batch(text_config(), [(4, 2400)], 2, 21)
        hidden = ctc.base_model.double()(wav.double()).last_hidden_state.detach().float()
        save_file({"input.wav": wav, "last_hidden_state": hidden}, folder / f"{name}.safetensors")
    torch.manual_seed(40)
    config = whisper_config(
        padded=True, vocab_size=8, max_target_positions=4, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    whisper = WhisperForConditionalGeneration(config).eval()
    representable(whisper)
    whisper.save_pretrained(folder / "whisper-generation")
    (folder / "whisper-generation" / "generation_config.json").unlink(missing_ok=True)
    _, _, wav, *_ = batch(text_config(), [(4, 2400)], 2, 21)
    mel = log_mel(wav.double(), config.num_mel_bins, config.max_source_positions * WHISPER_FRAME)
    hidden = whisper.model.encoder.double()(mel).last_hidden_state.detach().float()
    own = hidden[:, : -(-wav.shape[1] // WHISPER_FRAME)].contiguous()
    save_file({"input.wav": wav, "last_hidden_state": own}, folder / "whisper.safetensors")


def new(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    return folder / name


def make_roberta(folder: Path) -> None:
    torch.manual_seed(10)
    config = text_config(vocab_size=40, hidden_size=16, num_hidden_layers=1, intermediate_size=24, max_position_embeddings=18)
    masked = RobertaForMaskedLM(config).eval()
    representable(masked)
    base = masked.roberta
    pooled = RobertaModel(config).eval()
    pooled.load_state_dict({**pooled.state_dict(), **base.state_dict()})
    representable_pooler = pooled.pooler.dense.weight.data
    representable_pooler.copy_(representable_pooler.bfloat16().float())
    ids, mask, *_ = batch(config, [(9, 400)], 2, 11)
    hidden = base.double()(input_ids=ids, attention_mask=mask).last_hidden_state.detach().float()
    base.float()
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"input.ids": ids, "last_hidden_state": hidden}, folder / "roberta.safetensors")

    masked.save_pretrained(folder / "roberta-masked-lm")
    pooled.save_pretrained(folder / "roberta-pooler")
    (folder / "roberta-masked-lm" / "generation_config.json").unlink(missing_ok=True)

    # as uploads of 2019 and 2020: buffers, the tied decoder twice, both formats of torch.save
    state = OrderedDict(masked.state_dict())
    state["lm_head.decoder.weight"] = state["roberta.embeddings.word_embeddings.weight"]
    state["lm_head.decoder.bias"] = state["lm_head.bias"]
    state["roberta.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    for name, zipped in (("roberta-bin", True), ("roberta-bin-legacy", False)):
        here = new(folder, name)
        short_config(here / "config.json", config, "RobertaForMaskedLM", TEXT_KEYS)
        torch.save(state, here / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)

    here = new(folder, "roberta-bin-shards")
    short_config(here / "config.json", config, "RobertaForMaskedLM", TEXT_KEYS)
    names = list(state)
    where = {n: f"pytorch_model-{1 if i < len(names) // 2 else 2:05}-of-00002.bin" for i, n in enumerate(names)}
    for shard in sorted(set(where.values())):
        torch.save(OrderedDict((n, state[n].clone()) for n in names if where[n] == shard), here / shard)
    total = sum(v.numel() * v.element_size() for v in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (here / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")

    here = new(folder, "roberta-gamma-beta")
    short_config(here / "config.json", config, "RobertaForMaskedLM", TEXT_KEYS)
    save_file({k: v.clone() for k, v in gamma_beta(state).items()}, here / "model.safetensors", {"format": "pt"})

    for name, kind in (("roberta-f16", torch.float16), ("roberta-bf16", torch.bfloat16)):
        here = new(folder, name)
        short_config(here / "config.json", config, "RobertaModel", TEXT_KEYS)
        save_file({k: v.to(kind) for k, v in base.state_dict().items()}, here / "model.safetensors", {"format": "pt"})


def make_wav2vec2(folder: Path) -> None:
    small = dict(
        hidden_size=16, num_hidden_layers=1, intermediate_size=24, conv_dim=(8,) * 7, vocab_size=6,
        num_codevectors_per_group=4, codevector_dim=8, proj_codevector_dim=8,
    )  # fmt: skip
    kinds = {"group": {}, "layer": dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)}
    for seed, (norm, other) in enumerate(kinds.items()):
        torch.manual_seed(20 + seed)
        config = speech_config(**small, **other)
        pretraining = Wav2Vec2ForPreTraining(config).eval()
        representable(pretraining)
        base = pretraining.wav2vec2
        ctc = Wav2Vec2ForCTC(config).eval()
        ctc.wav2vec2.load_state_dict(base.state_dict())
        _, _, wav, *_ = batch(text_config(), [(4, 2400)], 2, 21)
        hidden = base.double()(wav.double()).last_hidden_state.detach().float()
        base.float()
        save_file({"input.wav": wav, "last_hidden_state": hidden}, folder / f"wav2vec2-{norm}.safetensors")

        pretraining.save_pretrained(folder / f"wav2vec2-{norm}-pretraining")
        here = new(folder, f"wav2vec2-{norm}-fairseq{'-ctc' if norm == 'layer' else ''}")
        short_config(here / "config.json", config, "Wav2Vec2Model", SPEECH_KEYS)
        if norm == "layer":  # fine-tuned: the encoder within, and a head
            inner = {f"w2v_encoder.w2v_model.{k}": v for k, v in fairseq(base.state_dict(), norm).items()}
            head = {f"w2v_encoder.proj.{k}": v for k, v in ctc.lm_head.state_dict().items()}
            torch.save({"model": OrderedDict({**inner, **head})}, here / "wav2vec_fine_tuned.pt")
            continue
        state = fairseq(pretraining.state_dict(), norm)
        torch.save({"model": state}, here / "wav2vec_small.pt")
        here = new(folder, "wav2vec2-group-fairseq-args")  # as fairseq writes it: legacy format, Namespace, history
        short_config(here / "config.json", config, "Wav2Vec2Model", SPEECH_KEYS)
        history = [{"optimizer_name": "FairseqAdam", "lr_scheduler_state": {"best": None}, "num_updates": 400000}]
        whole = {"args": Namespace(arch="wav2vec2", lr=[0.0005]), "model": state, "optimizer_history": history}
        whole |= {"extra_state": {"epoch": 1}, "last_optimizer_state": None}
        torch.save(whole, here / "wav2vec_small.pt", _use_new_zipfile_serialization=False)

        ctc.save_pretrained(folder / "wav2vec2-group-ctc")
        bare = Wav2Vec2Model(config).eval()
        bare.load_state_dict(base.state_dict())
        bare.save_pretrained(folder / "wav2vec2-group-shards", max_shard_size="12KB")
        old = old_weight_norm(pretraining.state_dict())
        here = new(folder, "wav2vec2-group-bin")
        short_config(here / "config.json", config, "Wav2Vec2ForPreTraining", SPEECH_KEYS)
        torch.save(old, here / "pytorch_model.bin")
        here = new(folder, "wav2vec2-group-weight-g")
        short_config(here / "config.json", config, "Wav2Vec2Model", SPEECH_KEYS)
        save_file(old_weight_norm(base.state_dict()), here / "model.safetensors", {"format": "pt"})
        for name, kind in (("f16", torch.float16), ("bf16", torch.bfloat16)):
            here = new(folder, f"wav2vec2-group-{name}")
            short_config(here / "config.json", config, "Wav2Vec2Model", SPEECH_KEYS)
            state = {k: v.to(kind) for k, v in base.state_dict().items()}
            save_file(state, here / "model.safetensors", {"format": "pt"})


# --- tokenizer --------------------------------------------------------------------------------------------------------

TEXTS = [
    "Hello world!", "hello world", " hello world", "  hello   world  ", "hello world ", "HELLO WORLD", "a", " ", "  ", "",
    "\t", "\n", "a\tb", "a\nb", "a\n\nb", "a\r\nb", " \n\t x  ", "trailing newline\n", "one\u00a0two", "one\u2003two",
    "one\u200btwo", "\u3000full width space", "\ufeffbyte order mark",
    "I'm sure they've said we'll go, but you'd know it's Tom's and he don't.", "I'LL we'Ve DON'T", "'s 't 're", "o'clock",
    "rock 'n' roll", "it\u2019s a curly one", "'quoted' \"double\"",
    "0 1 23 456 7890 12345678901234567890", "3.14, 1,000,000 and 50%", "call 555-0199 at 10:45pm on 2024-01-31", "\u00bd \u00b2 \u2167 \u0664\u0665\u0666",
    "wait... what?! (really) -- yes; no: [a] {b} <c>", "!!!???...---___***///", "$5.00 & \u20ac6 \u00a37 #hash @name a_b c/d\\e ~`^|", "!", ".a", "a.", "\u00bfqu\u00e9?", "\u2014dash\u2014 \u2026",
    "na\u00efve caf\u00e9 \u00e0 la carte", "nai\u0308ve cafe\u0301", "Gr\u00fc\u00dfe aus M\u00fcnchen", "\u0130stanbul \u0131\u015f\u0131k", "\u017b\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144", "Tr\u1ea7n H\u01b0ng \u0110\u1ea1o",
    "I love it \U0001f600", "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family", "\U0001f44d\U0001f3fd ok\U0001f44d", "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea", "\u2764\ufe0f\u2764", "\u263a :-) \u00af\\_(\u30c4)_/\u00af",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u6211 love \u5317\u4eac", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5", "\u12a0\u121b\u122d\u129b", "\U00010330\U00010331 \U0001d4d0\U0001d4d1",
    "<s>", "</s>", "<pad>", "<unk>", "<mask>", "a <mask> b", "a  <mask> b", "a<mask>b", "x<s>y", "end </s> begin <s> more", "a <pad> b", "a<pad><pad>", "<MASK> <S> < s > <s", "unknown <unk> word",
    "antidisestablishmentarianism", "x" * 300, "supercalifragilistic" * 12, "ab" * 100, "\u00e9" * 40, "the " * 60, "1" * 50,
    "\x00\x01\x7f", "a\x00b", "\ufffd", "e\u0301\u0302\u0303\u0304", "\u202eright to left\u202c", "mixed\u0442\u0435xt\u6f22\u5b57123\U0001f600!",
    "CamelCase snake_case kebab-case", "http://example.org/a?b=c&d=e#f", "me@example.org", "C++ & C# > D", "The quick brown fox jumps over the lazy dog.",
]  # fmt: skip


def make_tokenizer(folder: Path) -> None:
    """The folder has a tokenizer.json, and that is what counts: built from vocab.json and merges.txt alone,
    transformers 5 no longer lets `<mask>` take the space before it (4 does, and so does every published file)."""
    from transformers import RobertaTokenizerFast

    data = os.environ.get("CLASP_TEST_DATA")
    if not data:
        raise SystemExit("set CLASP_TEST_DATA to the folder that has roberta-bpe/")
    tokenizer = RobertaTokenizerFast.from_pretrained(Path(data) / "roberta-bpe")
    assert tokenizer("a <mask> b")["input_ids"] == [0, 102, 50264, 741, 2], "not from tokenizer.json"
    assert len(TEXTS) == len(set(TEXTS))
    rows = [{"text": t, "ids": tokenizer(t, truncation=False)["input_ids"]} for t in TEXTS]
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    (folder / "tokenizer.json").write_text(f"[\n{lines}\n]\n")


# --- real -------------------------------------------------------------------------------------------------------------

SENTENCES = [
    "Hello world!", "", "He hoped there would be stew for dinner, turnips and carrots and bruised potatoes.",
    "TURN OFF THE LIGHTS IN THE KITCHEN", "na\u00efve caf\u00e9 \u6771\u4eac \U0001f600", "it's 3.14, isn't it?",
]  # fmt: skip


UTTERANCES = {
    "whisper-tiny.en": ["audio-formats/jfk.wav", "audio-formats/1272-141231-0002.flac"],
    "whisper-base": ["audio-formats/1272-141231-0002.flac"],
}


def make_real(folder: Path) -> None:
    """MiniLM's tokens and first states and Whisper's mean states, from CLASP_TEST_MODELS and CLASP_TEST_DATA."""
    from transformers import AutoModel, AutoTokenizer

    source = Path(os.environ["CLASP_TEST_MODELS"]) / "minilm"
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source).double().eval()
    rows = []
    for text in SENTENCES:
        encoded = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            state = model(**encoded).last_hidden_state[0, 0]
        rows.append({"text": text, "ids": encoded["input_ids"][0].tolist(), "cls": [round(x, 7) for x in state.tolist()]})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "minilm.json").write_text(json.dumps(rows, separators=(",", ":")) + "\n")
    rows = [row for name in ("whisper-tiny.en", "whisper-base") for row in whisper_rows(name)]
    (folder / "whisper.json").write_text(json.dumps(rows, separators=(",", ":")) + "\n")


def whisper_rows(name: str) -> list[dict]:
    """Means over an utterance's own frames of Whisper's states, from CLASP_TEST_MODELS and CLASP_TEST_DATA: as published,
    by transformers' feature extractor and encoder, and of the cut form as clasp_torch.py states it."""
    import soundfile
    from transformers import AutoConfig, WhisperFeatureExtractor

    source = Path(os.environ["CLASP_TEST_MODELS"]) / name
    config = AutoConfig.from_pretrained(source)
    encoder = WhisperEncoder(config)
    state = {k.removeprefix("model.encoder."): v.float() for k, v in load_file(source / "model.safetensors").items()}
    encoder.load_state_dict(state)
    encoder.double().eval()
    extractor = WhisperFeatureExtractor.from_pretrained(source)
    rows = []
    for path in UTTERANCES[name]:
        wav, rate = soundfile.read(Path(os.environ["CLASP_TEST_DATA"]) / path, dtype="float32")
        assert rate == 16000
        frames = -(-len(wav) // WHISPER_FRAME)
        mel = extractor(wav, sampling_rate=rate, return_tensors="pt").input_features.double()
        cut = SimpleNamespace(speech_encoder=encoder)
        with torch.no_grad():
            padded = encoder(mel).last_hidden_state[0, :frames].mean(0)
            own = Clasp.encode_whisper(cut, torch.from_numpy(wav).double()[None], frames)[-1][0].mean(0)
        row = {"padded": padded, "own": own}
        rows.append({"model": name, "path": path, **{k: [round(x, 6) for x in v.tolist()] for k, v in row.items()}})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "tests" / "fixtures")
    parser.add_argument("--only", choices=["parity", "loading", "tokenizer", "real"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, make in (("parity", make_parity), ("loading", make_loading)):
        if args.only in (None, name):
            shutil.rmtree(args.output / name, ignore_errors=True)
            make(args.output / name)
    if args.only in (None, "tokenizer"):
        make_tokenizer(args.output)
    if args.only == "real" or (args.only is None and "CLASP_TEST_MODELS" in os.environ):
        make_real(args.output / "real")
    size = sum(p.stat().st_size for p in args.output.rglob("*") if p.is_file())
    print(f"{args.output}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
