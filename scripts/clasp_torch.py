# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.2", "transformers>=4.57", "safetensors>=0.5", "numpy"]
# ///
"""CLASP in PyTorch: the numerical reference and the speed peer.

It implements docs/model.md on top of Hugging Face's encoders (`RobertaModel`, `Wav2Vec2Model`), so that every
number of the Rust program can be compared with it:

  python clasp_torch.py export DIR --size tiny      # a checkpoint, inputs and expected outputs
  python clasp_torch.py bench --size base           # seconds per training step and prediction
  python clasp_torch.py check DIR                   # load a checkpoint folder strictly

`make_fixtures.py` and `check_base_size.py` import it.

Sizes: "tiny" (group norm, post-norm encoder, as wav2vec2-base), "tiny-large" (layer norm, pre-norm
encoder, as wav2vec2-large-lv60) and "base" (the paper's). Parameter names and layouts are those of
docs/formats.md (PyTorch layout: linear weights are [out, in]). Needs: torch, transformers, safetensors, numpy.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from transformers import MODEL_MAPPING, AutoConfig, PretrainedConfig, RobertaConfig, Wav2Vec2Config


@dataclass
class FusionConfig:
    kind: str = "multi_head"  # "multi_head" | "attention" (six tokens, the MISA-style ablation)
    split_heads: int = 12
    hidden_size: int = 768
    layers: int = 4
    attention_heads: int = 8
    feed_forward: int = 2048
    dropout: float = 0.1
    slot_embeddings: bool = False


@dataclass
class LossConfig:
    """Weights of the terms (the paper's alpha, beta, gamma, delta) and the options of the losses."""

    semantic: float = 0.01
    modality: float = 0.01
    reconstruction: float = 0.01
    kl: float = 0.05
    temperature: float = 0.1
    similarity: str = "cosine"  # "cosine" | "dot"
    negatives: str = "printed"  # "printed" | "with_positive" | "cross_modal"
    detach_target: bool = False
    kl_direction: str = "fusion_to_unimodal"  # "fusion_to_unimodal" | "unimodal_to_fusion"
    kl_detach: bool = False
    label_smoothing: float = 0.0


@dataclass
class ClaspConfig:
    num_labels: int = 4
    hidden_size: int = 768
    text_pooling: str = "cls"
    speech_pooling: str = "mean"
    text_layers: str | int = "last"
    speech_layers: str | int = "last"
    classifier_dropout: float = 0.1
    fusion: FusionConfig = field(default_factory=FusionConfig)
    loss: LossConfig = field(default_factory=LossConfig)


class FusionAttention(nn.Module):
    def __init__(self, d: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj, self.k_proj = nn.Linear(d, d), nn.Linear(d, d)
        self.v_proj, self.out_proj = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        split = lambda y: y.view(b, n, self.heads, d // self.heads).transpose(1, 2)
        y = F.scaled_dot_product_attention(
            split(self.q_proj(x)),
            split(self.k_proj(x)),
            split(self.v_proj(x)),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(y.transpose(1, 2).reshape(b, n, d))


class FusionLayer(nn.Module):
    """Post-norm Transformer encoder layer with ReLU, as in Vaswani et al. (2017)."""

    def __init__(self, c: FusionConfig, d: int):
        super().__init__()
        self.self_attn = FusionAttention(d, c.attention_heads, c.dropout)
        self.linear1, self.linear2 = nn.Linear(d, c.feed_forward), nn.Linear(c.feed_forward, d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attn(x)))
        h = self.linear2(self.dropout(F.relu(self.linear1(x))))
        return self.norm2(x + self.dropout(h))


class Fusion(nn.Module):
    """Six utterance vectors -> the outputs of all fusion tokens, concatenated.

    "multi_head" cuts each vector into `split_heads` tokens and maps every token to
    `hidden_size`; "attention" keeps the six whole vectors (the ablation without
    multi-head fusion) and adds no map.
    """

    def __init__(self, c: FusionConfig, d: int):
        super().__init__()
        self.split_heads = c.split_heads if c.kind == "multi_head" else 1
        hidden = c.hidden_size if c.kind == "multi_head" else d
        self.tokens, self.width = 6 * self.split_heads, d // self.split_heads
        self.input = nn.Linear(self.width, hidden) if c.kind == "multi_head" else None
        self.slot_embedding = nn.Parameter(torch.randn(self.tokens, hidden) * 0.02) if c.slot_embeddings else None
        self.layers = nn.ModuleList(FusionLayer(c, hidden) for _ in range(c.layers))
        self.output_size = self.tokens * hidden

    def forward(self, six: list[Tensor]) -> Tensor:
        m = torch.stack(six, dim=1)  # [batch, 6, d]
        x = m.view(m.shape[0], self.tokens, self.width)
        if self.input is not None:
            x = self.input(x)
        if self.slot_embedding is not None:
            x = x + self.slot_embedding
        for layer in self.layers:
            x = layer(x)
        return x.flatten(1)


class Projection(nn.Module):
    def __init__(self, d: int):
        super().__init__()
        self.invariant, self.text_specific, self.speech_specific = (nn.Linear(d, d) for _ in range(3))


class Reconstruction(nn.Module):
    def __init__(self, d: int):
        super().__init__()
        self.text, self.speech = nn.Linear(d, d), nn.Linear(d, d)


class Classifier(nn.Module):
    def __init__(self, d: int, fused: int, labels: int):
        super().__init__()
        self.text, self.speech = nn.Linear(d, labels), nn.Linear(d, labels)
        self.fusion = nn.Linear(fused, labels)


class Readout(nn.Module):
    """Which of an encoder's states the heads see, and how they become one vector."""

    def __init__(self, layers: str | int, pooling: str, count: int, width: int):
        super().__init__()
        self.layers, self.pooling, self.reads_all = layers, pooling, layers != "last"
        if layers == "mix":
            self.mix = nn.Parameter(torch.zeros(count + 1))
        if pooling == "attention":
            self.attention = nn.Parameter(torch.zeros(1, width))

    def forward(self, states: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """`states` [batch, time, width] each, all of transformers' `hidden_states` or the last alone; `mask` [batch, time]
        -> [batch, width]"""
        if self.layers == "mix":
            h = sum(w * s for w, s in zip(self.mix.softmax(0), states, strict=True))
        else:
            h = states[-1 if self.layers == "last" else self.layers]
        if self.pooling == "cls":
            return h[:, 0]
        if self.pooling == "attention":
            scores = (h @ self.attention.T).squeeze(-1).masked_fill(mask == 0, -math.inf)
            return (h * scores.softmax(-1).unsqueeze(-1)).sum(1)
        m = mask.unsqueeze(-1).to(h.dtype)
        return (h * m).sum(1) / m.sum(1)


class Clasp(nn.Module):
    exact_padding = True

    def __init__(self, config: ClaspConfig, text: PretrainedConfig, speech: PretrainedConfig):
        super().__init__()
        self.config = config
        self.text_encoder = MODEL_MAPPING[type(text)](text, add_pooling_layer=False)
        self.speech_encoder = WhisperEncoder(speech) if is_whisper(speech) else MODEL_MAPPING[type(speech)](speech)
        c, d = config, config.hidden_size
        self.text_readout = Readout(c.text_layers, c.text_pooling, text.num_hidden_layers, text.hidden_size)
        self.speech_readout = Readout(c.speech_layers, c.speech_pooling, speech.num_hidden_layers, speech.hidden_size)
        if (text.hidden_size, speech.hidden_size) != (d, d):
            self.adapter = nn.ModuleDict(
                {k: nn.Linear(w, d) for k, w in (("text", text.hidden_size), ("speech", speech.hidden_size)) if w != d}
            )
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.projection, self.reconstruction = Projection(d), Reconstruction(d)
        self.fusion = Fusion(config.fusion, d)
        self.classifier = Classifier(d, self.fusion.output_size, config.num_labels)

    def frames(self, samples: Tensor) -> Tensor:
        if is_whisper(self.speech_encoder.config):
            frames = torch.div(samples + WHISPER_FRAME - 1, WHISPER_FRAME, rounding_mode="floor")
            return frames.clamp(max=self.speech_encoder.config.max_source_positions)
        for k, s in zip(self.speech_encoder.config.conv_kernel, self.speech_encoder.config.conv_stride):
            samples = torch.div(samples - k, s, rounding_mode="floor") + 1
        return samples

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        reads_all = self.text_readout.reads_all
        encoded = self.text_encoder(input_ids=ids, attention_mask=mask, output_hidden_states=reads_all)
        return self.text_readout(encoded.hidden_states if reads_all else (encoded.last_hidden_state,), mask)

    def encode_speech(self, wav: Tensor, lengths: Tensor) -> Tensor:
        """`wav` [batch, samples] normalised and zero-padded; `lengths` [batch] valid samples.

        With `exact_padding`, every utterance is encoded alone, so that its representation does
        not depend on what it is batched with, as the program does in one pass (docs/model.md).
        Without it, padding reaches the first layer's group norm, as in Hugging Face's batching.
        """
        if self.exact_padding and bool((lengths < wav.shape[1]).any()):
            return torch.cat([self.encode_speech(w[None, :n], n[None]) for w, n in zip(wav, lengths)])
        n = self.frames(lengths)
        if is_whisper(self.speech_encoder.config):
            states = [h[:, : int(n.max())] for h in self.encode_whisper(wav, int(n.max()))]
            return self.speech_readout(states, torch.ones_like(states[0][..., 0]))
        mask = (torch.arange(wav.shape[1], device=wav.device)[None] < lengths[:, None]).long()
        mask, reads_all = mask if not mask.all() else None, self.speech_readout.reads_all
        encoded = self.speech_encoder(wav, attention_mask=mask, output_hidden_states=reads_all)
        states = encoded.hidden_states if reads_all else (encoded.last_hidden_state,)
        return self.speech_readout(states, torch.arange(states[0].shape[1], device=wav.device)[None] < n[:, None])

    def encode_whisper(self, wav: Tensor, frames: int) -> tuple[Tensor, ...]:
        """All states of Whisper of utterances of one length, [batch, frames, hidden] each.

        The log-mel spectrogram and the convolutions are those of the utterance with zeros behind it to 30 s. With
        `padded` in the encoder's config all frames go through the layers, as published; without, only the
        utterance's own: the convolutions' outputs are cut, positions count from 0, attention is over what is left.
        """
        encoder = self.speech_encoder
        c = encoder.config
        mel = log_mel(wav, c.num_mel_bins, c.max_source_positions * WHISPER_FRAME)
        if getattr(c, "padded", False):
            return encoder(mel, output_hidden_states=True).hidden_states
        h = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)[:, :frames]
        h = h + encoder.embed_positions.weight[:frames]
        states = [h]
        for layer in encoder.layers:
            h = layer(h, None)
            h = h[0] if isinstance(h, tuple) else h
            states.append(h)
        return (*states[:-1], encoder.layer_norm(h))

    def forward(self, ids, mask, wav, lengths) -> dict[str, Tensor]:
        r = {"text": self.encode_text(ids, mask), "speech": self.encode_speech(wav, lengths)}
        for name, layer in getattr(self, "adapter", {}).items():
            r[name] = layer(r[name])
        return self.heads(r["text"], r["speech"])

    def heads(self, r_t: Tensor, r_a: Tensor) -> dict[str, Tensor]:
        p, c = self.projection, self.classifier
        inv_a, inv_t = p.invariant(r_a), p.invariant(r_t)
        spe_a, spe_t = p.speech_specific(r_a), p.text_specific(r_t)
        fused = self.fusion([r_a, r_t, inv_a, inv_t, spe_a, spe_t])
        return {
            "text": r_t, "speech": r_a,
            "text_invariant": inv_t, "speech_invariant": inv_a,
            "text_specific": spe_t, "speech_specific": spe_a,
            "text_reconstructed": self.reconstruction.text(spe_t + inv_a),
            "speech_reconstructed": self.reconstruction.speech(spe_a + inv_t),
            "fused": fused,
            "logits_text": c.text(self.dropout(r_t)), "logits_speech": c.speech(self.dropout(r_a)),
            "logits_fusion": c.fusion(self.dropout(fused)),
        }  # fmt: skip


WHISPER_FRAME = 320  # samples of a frame of the layers


def is_whisper(config: PretrainedConfig) -> bool:
    return config.model_type == "whisper"


def log_mel(wav: Tensor, bins: int, samples: int) -> Tensor:
    """WhisperFeatureExtractor's [batch, bins, frames] of `wav` [batch, any], cut or with zeros to `samples`."""
    filters = mel_filter_bank(201, bins, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    wav = F.pad(wav[:, :samples], (0, max(0, samples - wav.shape[1])))
    window = torch.hann_window(400, dtype=wav.dtype, device=wav.device)
    power = torch.stft(wav, 400, 160, window=window, return_complex=True)[..., :-1].abs() ** 2
    mel = torch.from_numpy(filters).to(wav).T @ power
    log = mel.clamp(min=1e-10).log10()
    log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
    return (log + 4.0) / 4.0


def contrastive(a: Tensor, t: Tensor, c: LossConfig) -> Tensor:
    """The functional of eq. 1 on a, t: [batch, d]; eq. 2 is its negative.

    "printed": the sum runs over both modalities and all j != i (in-modality negatives), so it needs a
    batch of two or more; "with_positive" adds the matched score to that sum; "cross_modal" is InfoNCE,
    the mean of a -> t and t -> a.
    """
    if c.similarity == "cosine":
        a, t = F.normalize(a, dim=-1), F.normalize(t, dim=-1)
    if c.negatives == "cross_modal":
        scores, own = a @ t.T / c.temperature, torch.arange(a.shape[0], device=a.device)
        return 0.5 * (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own))
    matched = (a * t).sum(-1) / c.temperature
    off = ~torch.eye(a.shape[0], dtype=torch.bool, device=a.device)
    scores = [(x @ x.T / c.temperature).masked_fill(~off, -math.inf) for x in (a, t)]
    if c.negatives == "with_positive":
        scores.append(matched[:, None])
    return (torch.logsumexp(torch.cat(scores, dim=1), dim=1) - matched).mean()


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(student, -1), F.log_softmax(teacher, -1), reduction="batchmean", log_target=True)


def losses(
    out: dict[str, Tensor], labels: Tensor, c: LossConfig, class_weights: Tensor | None = None
) -> dict[str, Tensor]:
    zero = out["logits_fusion"].sum() * 0.0
    if labels.shape[0] > 1:
        semantic = contrastive(out["speech_invariant"], out["text_invariant"], c)
        modality = -contrastive(out["speech_specific"], out["text_specific"], c)
    else:
        semantic = modality = zero
    target = {m: out[m].detach() if c.detach_target else out[m] for m in ("text", "speech")}
    reconstruction = 0.5 * sum(F.mse_loss(out[f"{m}_reconstructed"], target[m]) for m in target)
    fusion = out["logits_fusion"].detach() if c.kl_detach else out["logits_fusion"]
    pairs = [(fusion, out["logits_text"]), (fusion, out["logits_speech"])]
    divergence = sum(kl(x, y) if c.kl_direction == "fusion_to_unimodal" else kl(y, x) for x, y in pairs)

    def task(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=c.label_smoothing)

    parts = {
        "task_text": task(out["logits_text"]),
        "task_speech": task(out["logits_speech"]),
        "task_fusion": task(out["logits_fusion"]),
        "semantic": semantic, "modality": modality, "reconstruction": reconstruction, "kl": divergence,
    }  # fmt: skip
    total = parts["task_text"] + parts["task_speech"] + parts["task_fusion"]
    total = total + c.semantic * semantic + c.modality * modality
    total = total + c.reconstruction * reconstruction + c.kl * divergence
    return {"total": total, **parts}


def sizes(name: str, num_labels: int) -> tuple[ClaspConfig, RobertaConfig, Wav2Vec2Config]:
    if name == "base":
        text = RobertaConfig(
            vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
            pad_token_id=1, bos_token_id=0, eos_token_id=2,
        )  # fmt: skip
        return ClaspConfig(num_labels=num_labels), text, Wav2Vec2Config()
    if name not in ("tiny", "tiny-large"):
        raise SystemExit(f"unknown size {name}")
    text = RobertaConfig(
        vocab_size=512, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0,
        eos_token_id=2,
    )  # fmt: skip
    speech = Wav2Vec2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        **(dict(feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True) if name == "tiny-large" else {}),
    )  # fmt: skip
    fusion = FusionConfig(split_heads=4, hidden_size=48, layers=2, attention_heads=4, feed_forward=64)
    return ClaspConfig(num_labels=num_labels, hidden_size=48, fusion=fusion), text, speech


def known(cls, values: dict):
    return cls(**{k: v for k, v in values.items() if k in cls.__dataclass_fields__})


def encoder_config(values: dict, default: str) -> PretrainedConfig:
    """The config of the family that `model_type` names."""
    return AutoConfig.for_model(values.get("model_type", default), **{k: v for k, v in values.items() if k != "model_type"})


def load(folder: str | Path) -> Clasp:
    """A checkpoint folder as docs/formats.md has it; every tensor must be there and used."""
    folder = Path(folder)
    c = json.loads((folder / "config.json").read_text())
    if (c.get("format"), c.get("method")) != ("clasp-1", "clasp"):
        raise SystemExit(f"{folder}: format {c.get('format')!r}, method {c.get('method')!r}; expected clasp-1, clasp")
    text, speech = encoder_config(c["text_encoder"], "roberta"), encoder_config(c["speech_encoder"], "wav2vec2")
    fusion, loss = known(FusionConfig, c["fusion"]), known(LossConfig, c["loss"])
    config = known(ClaspConfig, {**c, "num_labels": len(c["labels"]), "fusion": fusion, "loss": loss})
    model = Clasp(config, text, speech)
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return model.eval()


def batch(text: PretrainedConfig, sizes_: list[tuple[int, int]], labels: int, seed: int):
    """Random inputs: one (tokens, samples) pair per example; shorter ones are padded."""
    g = torch.Generator().manual_seed(seed)
    n, s = max(x for x, _ in sizes_), max(y for _, y in sizes_)
    ids = torch.full((len(sizes_), n), text.pad_token_id)
    wav = torch.zeros(len(sizes_), s)
    for i, (tokens, samples) in enumerate(sizes_):
        ids[i, :tokens] = torch.randint(4, text.vocab_size, (tokens,), generator=g)
        ids[i, 0], ids[i, tokens - 1] = text.bos_token_id, text.eos_token_id
        x = torch.randn(samples, generator=g)
        wav[i, :samples] = (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + 1e-7)
    lengths = torch.tensor([y for _, y in sizes_])
    target = torch.randint(0, labels, (len(sizes_),), generator=g)
    return ids, (ids != text.pad_token_id).long(), wav, lengths, target


def perturb(model: nn.Module) -> None:
    """Makes every vector matter (norms start at ones and zeros), and the length of weight norm too."""
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.data += 0.05 * torch.randn_like(p)
        elif name.endswith("parametrizations.weight.original0"):
            p.data *= 1 + 0.2 * torch.rand_like(p)


def export(args) -> None:
    torch.manual_seed(args.seed)
    config, text, speech = sizes(args.size, args.labels)
    model = Clasp(config, text, speech).eval()
    perturb(model)
    shapes = [tuple(map(int, s.split("x"))) for s in args.batch.split(",")]
    inputs = batch(text, shapes, args.labels, args.seed + 1)
    d = Path(args.dir)
    parts = write(d, model, inputs)
    print({k: round(v.item(), 6) for k, v in parts.items()})
    if args.steps:
        trajectory(model, inputs, args.steps, args.learning_rate, d / "trajectory.jsonl")
        save_weights(model, d / "trained.safetensors")


def save_weights(model: Clasp, path: Path) -> None:
    tensors = {k: v.detach().float().clone().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, path, metadata={"format": "pt"})


def write(d: Path, model: Clasp, inputs) -> dict[str, Tensor]:
    """A checkpoint folder, and expected.safetensors: inputs, outputs, losses and gradients (those that exist)."""
    ids, mask, wav, lengths, target = inputs
    config = model.config
    out = model(ids, mask, wav, lengths)
    parts = losses(out, target, config.loss)
    model.zero_grad(set_to_none=True)
    parts["total"].backward()
    grads = {f"grad.{k}": p.grad for k, p in model.named_parameters() if p.grad is not None}
    d.mkdir(parents=True, exist_ok=True)
    save_weights(model, d / "model.safetensors")
    config_ = {
        "format": "clasp-1", "method": "clasp", "labels": [f"label{i}" for i in range(config.num_labels)],
        **{k: v for k, v in asdict(config).items() if k != "num_labels"},
        "text_encoder": model.text_encoder.config.to_dict(), "speech_encoder": model.speech_encoder.config.to_dict(),
    }  # fmt: skip
    (d / "config.json").write_text(json.dumps(config_, indent=1, default=str) + "\n")
    f32 = lambda x: x.detach().float().clone().contiguous()
    expected = {
        "input.ids": ids, "input.mask": mask, "input.wav": f32(wav), "input.lengths": lengths, "input.labels": target,
        **{f"output.{k}": f32(v) for k, v in out.items()},
        **{f"loss.{k}": f32(v) for k, v in parts.items()},
        **{k: f32(v) for k, v in grads.items()},
    }  # fmt: skip
    save_file(expected, d / "expected.safetensors")
    return parts


def trajectory(model: Clasp, inputs, steps: int, learning_rate: float, path: Path) -> None:
    """Losses before each of `steps` full-batch Adam steps without dropout, one JSON line each."""
    model.zero_grad(set_to_none=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    with open(path, "w") as f:
        for step in range(1, steps + 1):
            parts = losses(model(*inputs[:4]), inputs[4], model.config.loss)
            optimizer.zero_grad(set_to_none=True)
            parts["total"].backward()
            optimizer.step()
            f.write(json.dumps({"step": step, **{k: v.item() for k, v in parts.items()}}) + "\n")


def peak_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def bench(args) -> None:
    device = torch.device(args.device)
    torch.manual_seed(0)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high" if args.precision == "tf32" else "highest")
    config, text, speech = sizes(args.size, 4)
    speech.layerdrop, speech.apply_spec_augment = 0.0, False  # the same work at every step
    model = Clasp(config, text, speech).to(device)
    model.exact_padding = False
    model.speech_encoder.freeze_feature_encoder()
    if args.lengths:  # a real-length epoch: neighbours in length share a batch
        shapes = sorted((tuple(x) for x in json.loads(Path(args.lengths).read_text())), key=lambda x: x[1])
        groups = [shapes[i : i + args.batch_size] for i in range(0, len(shapes), args.batch_size)]
    else:
        groups = [[(args.tokens, int(args.seconds * 16000))] * args.batch_size]
    batches = [[x.to(device) for x in batch(text, g, 4, i)] for i, g in enumerate(groups)]
    cast = torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16")
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-5)
    run = torch.compile(model) if args.compile else model

    def train() -> None:
        for *inputs, target in batches:
            optimizer.zero_grad(set_to_none=True)
            with cast:
                parts = losses(run(*inputs), target, config.loss)
            parts["total"].backward()
            optimizer.step()

    def predict() -> None:
        for *inputs, _ in batches:
            with torch.inference_mode(), cast:
                run(*inputs)["logits_fusion"].float().cpu()

    for name, step, mode in (("train", train, model.train), ("predict", predict, model.eval)):
        if args.only and args.only != name:
            continue
        mode()
        times = []
        for i in range(args.warmup + args.steps):
            if device.type == "cuda":
                torch.cuda.synchronize()
            t = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if i >= args.warmup:
                times.append(time.perf_counter() - t)
        row = {
            "implementation": "torch", "job": name, "device": args.device, "precision": args.precision,
            "compile": args.compile, "batch": args.batch_size, "batches": len(batches),
            "seconds_of_audio": args.seconds, "tokens": args.tokens, "median_s": statistics.median(times),
            "min_s": min(times), "steps": args.steps, "peak_gib": peak_gib(device),
        }  # fmt: skip
        print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    e = sub.add_parser("export", help="write model.safetensors, config.json and expected.safetensors")
    e.add_argument("dir")
    e.add_argument("--size", default="tiny")
    e.add_argument("--labels", type=int, default=4)
    e.add_argument("--seed", type=int, default=0)
    e.add_argument("--batch", default="12x16000,12x16000,12x16000,12x16000", help="tokens x samples of each example")
    e.add_argument("--steps", type=int, default=0, help="also train this many steps and write trajectory.jsonl")
    e.add_argument("--learning-rate", type=float, default=1e-3)
    e.set_defaults(run=export)
    b = sub.add_parser("bench", help="time a training step and a prediction, one JSON line each")
    b.add_argument("--size", default="base")
    b.add_argument("--device", default="cpu")
    b.add_argument("--precision", default="f32", choices=["f32", "tf32", "bf16"])
    b.add_argument("--compile", action="store_true")
    b.add_argument("--batch-size", type=int, default=4)
    b.add_argument("--seconds", type=float, default=4.5)
    b.add_argument("--tokens", type=int, default=20)
    b.add_argument("--steps", type=int, default=10)
    b.add_argument("--warmup", type=int, default=2)
    b.add_argument("--threads", type=int, default=0)
    b.add_argument("--only", choices=["train", "predict"])
    b.add_argument("--lengths", help="JSON list of [tokens, samples]: time an epoch over these instead of one batch")
    b.set_defaults(run=bench)
    o = sub.add_parser("check", help="load a checkpoint folder strictly and print how many tensors it has")
    o.add_argument("dir")
    o.set_defaults(run=lambda a: print(len(load(a.dir).state_dict())))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
