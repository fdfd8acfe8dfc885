# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.2", "transformers>=4.57", "safetensors>=0.5", "numpy"]
# ///
"""The methods that CLASP is compared with, in PyTorch: the numerical reference of their heads and losses.

Each is what follows the two encoders, for speech and text alone (no video): the classifiers `text`, `speech`,
`late-fusion` and `concat`, low-rank multimodal fusion `lmf` (Liu et al. 2018), `misa` (Hazarika et al. 2020) and
`lfmim` (Sun et al. 2023); and the ablation `raw-only` of the paper's own system. Parameter names and layouts are those
of the checkpoints.

  python baselines_torch.py export [DIR]     # tests/fixtures/methods: parameters, inputs, outputs, losses, gradients
  python baselines_torch.py check DIR        # load a checkpoint folder strictly

All is computed in float64 from values that float32 holds exactly, without dropout, and stored in float32.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass
class Sizes:
    """What a head is told of the encoders and the task."""

    labels: int = 3
    hidden: int = 8  # width of the two utterance vectors
    text: int = 8  # width of the text encoder's states
    speech: int = 8  # width of the speech encoder's states
    classifier_dropout: float = 0.1


@dataclass
class Inputs:
    """What the encoders give: the utterance vectors [batch, hidden], and the states [batch, time, width] with lengths."""

    text: Tensor | None = None
    speech: Tensor | None = None
    text_states: Tensor | None = None
    speech_states: Tensor | None = None
    text_lengths: list[int] = field(default_factory=list)
    speech_lengths: list[int] = field(default_factory=list)


Named = dict[str, Tensor]


# --- one linear classifier a vector -----------------------------------------------------------------------------------


class Text(nn.Module):
    """The text encoder alone."""

    def __init__(self, s: Sizes, _: dict):
        super().__init__()
        self.classifier = nn.ModuleDict({"text": nn.Linear(s.hidden, s.labels)})
        self.dropout = nn.Dropout(s.classifier_dropout)

    def forward(self, x: Inputs) -> Named:
        return {"text": x.text, "logits": self.classifier["text"](self.dropout(x.text))}

    def losses(self, out: Named, y: Tensor) -> Named:
        task = F.cross_entropy(out["logits"], y)
        return {"total": task, "task_text": task}


class Speech(nn.Module):
    """The speech encoder alone."""

    def __init__(self, s: Sizes, _: dict):
        super().__init__()
        self.classifier = nn.ModuleDict({"speech": nn.Linear(s.hidden, s.labels)})
        self.dropout = nn.Dropout(s.classifier_dropout)

    def forward(self, x: Inputs) -> Named:
        return {"speech": x.speech, "logits": self.classifier["speech"](self.dropout(x.speech))}

    def losses(self, out: Named, y: Tensor) -> Named:
        task = F.cross_entropy(out["logits"], y)
        return {"total": task, "task_speech": task}


class LateFusion(nn.Module):
    """Two systems that share nothing, and the mean of their probabilities. Its logits are the log of that mean."""

    def __init__(self, s: Sizes, _: dict):
        super().__init__()
        self.classifier = nn.ModuleDict({m: nn.Linear(s.hidden, s.labels) for m in ("text", "speech")})
        self.dropout = nn.Dropout(s.classifier_dropout)

    def forward(self, x: Inputs) -> Named:
        text = self.classifier["text"](self.dropout(x.text))
        speech = self.classifier["speech"](self.dropout(x.speech))
        mean = (text.softmax(-1) + speech.softmax(-1)) / 2
        return {"text": x.text, "speech": x.speech, "logits": mean.log(), "logits_text": text, "logits_speech": speech}

    def losses(self, out: Named, y: Tensor) -> Named:
        text, speech = (F.cross_entropy(out[f"logits_{m}"], y) for m in ("text", "speech"))
        return {"total": text + speech, "task_text": text, "task_speech": speech}


class Concat(nn.Module):
    """Early fusion: one linear classifier on both vectors side by side."""

    def __init__(self, s: Sizes, _: dict):
        super().__init__()
        self.classifier = nn.ModuleDict({"fusion": nn.Linear(2 * s.hidden, s.labels)})
        self.dropout = nn.Dropout(s.classifier_dropout)

    def forward(self, x: Inputs) -> Named:
        fused = torch.cat([x.speech, x.text], dim=1)
        logits = self.classifier["fusion"](self.dropout(fused))
        return {"text": x.text, "speech": x.speech, "fused": fused, "logits": logits}

    def losses(self, out: Named, y: Tensor) -> Named:
        task = F.cross_entropy(out["logits"], y)
        return {"total": task, "task_fusion": task}


# --- low-rank multimodal fusion ---------------------------------------------------------------------------------------


class SpeechReduction(nn.Module):
    """A norm and three layers. The published one is a batch norm, which batches of four make noisy."""

    def __init__(self, inputs: int, size: int, dropout: float):
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(inputs), nn.Dropout(dropout)
        self.layers = nn.ModuleList(nn.Linear(a, size) for a in (inputs, size, size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x).relu()
        return x


class LowRankFusion(nn.Module):
    """y = sum_k w_k (z_speech F_speech[k]) * (z_text F_text[k]) + b, with z = [1 ; x]: straight to the logits."""

    def __init__(self, speech: int, text: int, rank: int, labels: int):
        super().__init__()
        self.speech_factor = nn.Parameter(nn.init.xavier_normal_(torch.empty(rank, speech + 1, labels)))
        self.text_factor = nn.Parameter(nn.init.xavier_normal_(torch.empty(rank, text + 1, labels)))
        self.weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, rank)))
        self.bias = nn.Parameter(torch.zeros(1, labels))

    def forward(self, speech: Tensor, text: Tensor) -> Tensor:
        with_one = lambda x: F.pad(x, (1, 0), value=1.0)
        by_rank = torch.einsum("bi,kic->bkc", with_one(speech), self.speech_factor)
        by_rank = by_rank * torch.einsum("bi,kic->bkc", with_one(text), self.text_factor)
        return torch.einsum("ok,bkc->bc", self.weights, by_rank) + self.bias


class Lmf(nn.Module):
    def __init__(self, s: Sizes, o: dict):
        super().__init__()
        self.speech = SpeechReduction(s.hidden, o["speech_size"], o["speech_dropout"])
        self.text, self.dropout = nn.Linear(s.hidden, o["text_size"]), nn.Dropout(o["text_dropout"])
        self.fusion = LowRankFusion(o["speech_size"], o["text_size"], o["rank"], s.labels)

    def forward(self, x: Inputs) -> Named:
        speech, text = self.speech(x.speech), self.text(self.dropout(x.text))
        logits = self.fusion(speech, text)
        return {"text": x.text, "speech": x.speech, "text_reduced": text, "speech_reduced": speech, "logits": logits}

    def losses(self, out: Named, y: Tensor) -> Named:
        task = F.cross_entropy(out["logits"], y)
        return {"total": task, "task_fusion": task}


# --- MISA -------------------------------------------------------------------------------------------------------------

EPSILON = 1e-12  # under the root of a distance, whose derivative at zero is infinite


def central_moment_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The distances of the means and of the central moments 2 to 5 over the batch."""
    distance = lambda a, b: ((a - b).square().sum() + EPSILON).sqrt()
    mean_x, mean_y = x.mean(0), y.mean(0)
    moment = lambda v, mean, k: (v - mean).pow(k).mean(0)
    return distance(mean_x, mean_y) + sum(
        distance(moment(x, mean_x, k), moment(y, mean_y, k)) for k in range(2, 6)
    )


def difference(x: Tensor, y: Tensor) -> Tensor:
    """The mean square of the correlations of features: rows are centred and scaled, their norms constants."""
    x, y = x - x.mean(0), y - y.mean(0)
    x = x / (x.norm(dim=1, keepdim=True).detach() + 1e-6)
    y = y / (y.norm(dim=1, keepdim=True).detach() + 1e-6)
    return (x.T @ y).square().mean()


class Projection(nn.Module):
    def __init__(self, inputs: int, size: int):
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, size), nn.LayerNorm(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x).relu())


class Modality(nn.Module):
    """What each modality has for itself."""

    def __init__(self, inputs: int, size: int):
        super().__init__()
        self.projection = Projection(inputs, size)
        self.specific, self.reconstruction = nn.Linear(size, size), nn.Linear(size, size)


class Misa(nn.Module):
    def __init__(self, s: Sizes, o: dict):
        super().__init__()
        self.options, d = o, o["size"]
        self.text, self.speech = Modality(s.hidden, d), Modality(s.hidden, d)
        self.invariant = nn.Linear(d, d)
        self.fusion = nn.TransformerEncoderLayer(
            d, o["attention_heads"], o["feed_forward"], o["fusion_dropout"], batch_first=True
        )
        self.hidden, self.output = nn.Linear(4 * d, 2 * d), nn.Linear(2 * d, s.labels)
        self.dropout = nn.Dropout(o["dropout"])

    def forward(self, x: Inputs) -> Named:
        out = {"text": x.text, "speech": x.speech}
        for m, parts in (("text", self.text), ("speech", self.speech)):
            projected = parts.projection(out[m])
            specific, invariant = parts.specific(projected).sigmoid(), self.invariant(projected).sigmoid()
            out[f"{m}_projected"], out[f"{m}_specific"], out[f"{m}_invariant"] = projected, specific, invariant
            out[f"{m}_reconstructed"] = parts.reconstruction(specific + invariant)
        tokens = [out[f"{m}_{kind}"] for kind in ("specific", "invariant") for m in ("text", "speech")]
        out["fused"] = self.fusion(torch.stack(tokens, dim=1)).flatten(1)
        out["logits"] = self.output(self.dropout(self.hidden(out["fused"])).relu())
        return out

    def losses(self, out: Named, y: Tensor) -> Named:
        invariant, specific = ([out[f"{m}_{kind}"] for m in ("text", "speech")] for kind in ("invariant", "specific"))
        zero = out["logits"].sum() * 0.0
        several = y.shape[0] > 1
        parts = {
            "task_fusion": F.cross_entropy(out["logits"], y),
            "similarity": central_moment_discrepancy(*invariant) if several else zero,
            "difference": (
                difference(specific[0], invariant[0]) + difference(specific[1], invariant[1]) + difference(*specific)
            ) if several else zero,
            "reconstruction": 0.5 * sum(
                F.mse_loss(out[f"{m}_reconstructed"], out[f"{m}_projected"]) for m in ("text", "speech")
            ),
        }  # fmt: skip
        weighted = [self.options[k] * parts[k] for k in ("similarity", "difference", "reconstruction")]
        return {"total": parts["task_fusion"] + sum(weighted), **parts}


# --- LFMIM ------------------------------------------------------------------------------------------------------------


def sinusoids(length: int, width: int) -> Tensor:
    """Vaswani et al. (2017): sines at even places, cosines at odd ones."""
    angle = torch.arange(length).double()[:, None] / 10000 ** (torch.arange(0, width, 2).double() / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


class Block(nn.Module):
    """A pre-norm layer with a second norm on each branch's output."""

    def __init__(self, width: int, o: dict):
        super().__init__()
        self.attention_norm, self.attention_output_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, o["attention_heads"], o["attention_dropout"], batch_first=True)
        self.feed_forward_norm, self.feed_forward_output_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = nn.ModuleDict({"up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width)})
        self.dropout = nn.Dropout(o["feed_forward_dropout"])
        nn.init.normal_(self.attention.in_proj_weight, std=width**-0.5)
        nn.init.normal_(self.attention.out_proj.weight, std=(2 * o["stages"] * width) ** -0.5)
        nn.init.normal_(self.feed_forward["up"].weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.feed_forward["down"].weight, std=(2 * o["stages"] * width) ** -0.5)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        y = self.attention_norm(x)
        y = self.attention(y, y, y, key_padding_mask=padding, need_weights=False)[0]
        x = x + self.attention_output_norm(y)
        y = self.feed_forward["up"](self.feed_forward_norm(x)).relu()
        return x + self.feed_forward_output_norm(self.feed_forward["down"](self.dropout(y)))


class Stream(nn.Module):
    """A sequence of fixed length behind learned tokens, its blocks, and one vector that is read from it."""

    def __init__(self, inputs: int | None, tokens: int, length: int, width: int, o: dict):
        super().__init__()
        self.input = nn.Linear(inputs, width) if inputs else None
        self.tokens = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.scaled_norm, self.input_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, o) for _ in range(o["stages"]))
        self.output_norm = nn.LayerNorm(width)
        self.position_weights = nn.Parameter(torch.rand(length) * length**-0.5)
        self.dropout = nn.Dropout(o["input_dropout"])

    def prepare(self, batch: int, x: Tensor | None = None) -> Tensor:
        tokens = self.tokens.expand(batch, -1, -1)
        x = tokens if x is None else torch.cat([tokens, self.input(x)], dim=1)
        x = self.scaled_norm(x * math.sqrt(x.shape[-1]))
        x = x + sinusoids(x.shape[1], x.shape[2]).to(x)
        return self.input_norm(self.dropout(x))

    def read(self, x: Tensor, padding: Tensor) -> Tensor:
        x = self.output_norm(x).masked_fill(padding[:, :, None], 0.0)
        return torch.einsum("l,bld->bd", self.position_weights, x)


class Lfmim(nn.Module):
    """Text cut or padded to a fixed length, speech pooled to one; the joint stream is [tokens ; speech ; text]."""

    def __init__(self, s: Sizes, o: dict):
        super().__init__()
        self.options, width = o, s.hidden
        text, speech = o["text_positions"] + 1, o["speech_positions"] + 1
        self.text = Stream(s.text, 1, text, width, o)
        self.speech = Stream(s.speech, 1, speech, width, o)
        self.joint = Stream(None, 4, 4 + speech + text, width, o)
        self.text_mixing, self.speech_mixing = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(2))
        head = lambda *sizes: nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.text_head = head(width, width // 2, o["unimodal_head"], s.labels)
        self.speech_head = head(width, width // 2, o["unimodal_head"], s.labels)
        self.joint_head = head(3 * width, 3 * width // 2, o["joint_head"], o["joint_head"] // 2, s.labels)

    @staticmethod
    def classify(head: nn.ModuleList, x: Tensor) -> Tensor:
        for layer in head[:-1]:
            x = layer(x).relu()
        return head[-1](x)

    def forward(self, inputs: Inputs) -> Named:
        o, batch = self.options, len(inputs.text_lengths)
        words = [x[: min(n, o["text_positions"])] for x, n in zip(inputs.text_states, inputs.text_lengths)]
        words = torch.stack([F.pad(x, (0, 0, 0, o["text_positions"] - len(x))) for x in words])
        frames = torch.stack([
            F.adaptive_avg_pool1d(x[:n].T[None], o["speech_positions"])[0].T
            for x, n in zip(inputs.speech_states, inputs.speech_lengths)
        ])  # fmt: skip
        real = torch.tensor([min(n, o["text_positions"]) for n in inputs.text_lengths])
        if not o["padding_mask"]:
            real = torch.full_like(real, o["text_positions"])
        text_padding = torch.arange(o["text_positions"] + 1)[None] > real[:, None]  # one more: the token in front
        speech_padding = torch.zeros(batch, o["speech_positions"] + 1, dtype=torch.bool)
        joint_padding = torch.cat([torch.zeros(batch, 4, dtype=torch.bool), speech_padding, text_padding], dim=1)

        text, speech = self.text.prepare(batch, words), self.speech.prepare(batch, frames)
        joint = torch.cat([self.joint.prepare(batch), speech, text], dim=1)
        sizes = [4, speech.shape[1], text.shape[1]]
        for stage in range(o["stages"]):
            if stage:
                tokens, joint_speech, joint_text = joint.split(sizes, dim=1)
                (p, q), (r, s) = self.speech_mixing, self.text_mixing
                joint = torch.cat([tokens, p * joint_speech + q * speech, r * joint_text + s * text], dim=1)
            text = self.text.blocks[stage](text, text_padding)
            speech = self.speech.blocks[stage](speech, speech_padding)
            joint = self.joint.blocks[stage](joint, joint_padding)

        text, speech = self.text.read(text, text_padding), self.speech.read(speech, speech_padding)
        fused = torch.cat([text, speech, self.joint.read(joint, joint_padding)], dim=1)
        return {
            "text_stream": text, "speech_stream": speech, "fused": fused,
            "logits": self.classify(self.joint_head, fused),
            "logits_text": self.classify(self.text_head, text),
            "logits_speech": self.classify(self.speech_head, speech),
        }  # fmt: skip

    def losses(self, out: Named, y: Tensor) -> Named:
        text, speech, joint = (F.cross_entropy(out[k], y) for k in ("logits_text", "logits_speech", "logits"))
        return {"total": text + speech + joint, "task_text": text, "task_speech": speech, "task_fusion": joint}


# --- the ablation raw-only --------------------------------------------------------------------------------------------


class RawFusion(nn.Module):
    """The paper's fusion of the two utterance vectors alone; of the auxiliary terms the divergence is left."""

    def __init__(self, s: Sizes, o: dict):
        super().__init__()
        multi_head = o["kind"] == "multi_head"
        self.pieces = o["split_heads"] if multi_head else 1
        layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                o["hidden_size"], o["attention_heads"], o["feed_forward"], o["dropout"], batch_first=True
            )
            for _ in range(o["layers"])
        )
        self.fusion = nn.ModuleDict({"layers": layers})
        if multi_head:
            self.fusion["input"] = nn.Linear(s.hidden // self.pieces, o["hidden_size"])
        sizes = {"text": s.hidden, "speech": s.hidden, "fusion": 2 * self.pieces * o["hidden_size"]}
        self.classifier = nn.ModuleDict({m: nn.Linear(size, s.labels) for m, size in sizes.items()})
        self.dropout, self.kl = nn.Dropout(s.classifier_dropout), 0.05

    def forward(self, x: Inputs) -> Named:
        tokens = torch.cat([x.speech, x.text], dim=1).view(x.text.shape[0], 2 * self.pieces, -1)
        if "input" in self.fusion:
            tokens = self.fusion["input"](tokens)
        for layer in self.fusion["layers"]:
            tokens = layer(tokens)
        out = {"text": x.text, "speech": x.speech, "fused": tokens.flatten(1)}
        out["logits"] = self.classifier["fusion"](self.dropout(out["fused"]))
        return out | {f"logits_{m}": self.classifier[m](self.dropout(out[m])) for m in ("text", "speech")}

    def losses(self, out: Named, y: Tensor) -> Named:
        parts = {
            "task_text": F.cross_entropy(out["logits_text"], y), "task_speech": F.cross_entropy(out["logits_speech"], y),
            "task_fusion": F.cross_entropy(out["logits"], y),
        }  # fmt: skip
        total = sum(parts.values())
        fusion = out["logits"].log_softmax(-1)
        parts["kl"] = sum(
            (fusion.exp() * (fusion - out[f"logits_{m}"].log_softmax(-1))).sum(-1).mean() for m in ("text", "speech")
        )
        return {"total": total + self.kl * parts["kl"], **parts}


# --- fixtures ---------------------------------------------------------------------------------------------------------

LMF = {"speech_size": 5, "text_size": 6, "rank": 3, "speech_dropout": 0.1, "text_dropout": 0.1}
MISA = {
    "size": 6, "attention_heads": 2, "feed_forward": 10, "fusion_dropout": 0.1, "dropout": 0.5,
    "difference": 0.3, "similarity": 1.0, "reconstruction": 0.7,
}  # fmt: skip
LFMIM = {
    "stages": 2, "attention_heads": 2, "text_positions": 5, "speech_positions": 4, "unimodal_head": 5, "joint_head": 6,
    "input_dropout": 0.25, "attention_dropout": 0.2, "feed_forward_dropout": 0.1, "padding_mask": True,
}  # fmt: skip

RAW = {
    "kind": "multi_head", "vectors": "raw", "split_heads": 2, "hidden_size": 6, "layers": 2, "attention_heads": 2,
    "feed_forward": 7, "dropout": 0.1, "slot_embeddings": False,
}  # fmt: skip

# Name -> method, head, options.
CASES = {
    "text": ("text", Text, {}),
    "speech": ("speech", Speech, {}),
    "late-fusion": ("late-fusion", LateFusion, {}),
    "concat": ("concat", Concat, {}),
    "lmf": ("lmf", Lmf, LMF),
    "misa": ("misa", Misa, MISA),
    "lfmim": ("lfmim", Lfmim, LFMIM),
    "lfmim-unmasked": ("lfmim", Lfmim, {**LFMIM, "padding_mask": False}),
    "raw-fusion": ("clasp", RawFusion, RAW),
}


def checkpoint_tensors(method: str, named: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of a checkpoint: PyTorch's packed attention is cut into its three maps, a method's own parts lie under
    its name."""
    tensors = {}
    for name, x in named.items():
        prefix = "" if method == "clasp" or name.startswith("classifier.") else f"{method}."
        module, _, leaf = name.rpartition(".")
        if leaf in ("in_proj_weight", "in_proj_bias"):
            query, key, value = ("query", "key", "value") if method == "lfmim" else ("q_proj", "k_proj", "v_proj")
            for part, cut in zip((query, key, value), x.chunk(3)):
                tensors[f"{prefix}{module}.{part}.{leaf.removeprefix('in_proj_')}"] = cut
        else:
            if method == "lfmim":
                name = name.replace(".out_proj.", ".output.")
            tensors[prefix + name] = x
    return tensors


def make_inputs(head: nn.Module, sizes: Sizes) -> Inputs:
    draw = lambda *shape: torch.randn(*shape).double().requires_grad_()
    if isinstance(head, Lfmim):
        # Shorter and longer than the fixed lengths.
        text_lengths, speech_lengths = [2, 5, 7, 4], [9, 3, 4, 11]
        return Inputs(
            text_states=draw(4, max(text_lengths), sizes.text), speech_states=draw(4, max(speech_lengths), sizes.speech),
            text_lengths=text_lengths, speech_lengths=speech_lengths,
        )  # fmt: skip
    text = None if isinstance(head, Speech) else draw(4, sizes.hidden)
    speech = None if isinstance(head, Text) else draw(4, sizes.hidden)
    return Inputs(text=text, speech=speech)


def write(folder: Path, method: str, head: nn.Module, sizes: Sizes, options: dict) -> dict[str, float]:
    inputs, labels = make_inputs(head, sizes), torch.tensor([2, 0, 1, 2])
    out = head(inputs)
    parts = head.losses(out, labels)
    parts["total"].backward()
    f32 = lambda x: x.detach().float().clone().contiguous()
    leaves = {k: v for k, v in vars(inputs).items() if isinstance(v, Tensor)}
    lengths = {k: torch.tensor(v) for k, v in vars(inputs).items() if isinstance(v, list) and v}
    gradients = checkpoint_tensors(method, {k: p.grad for k, p in head.named_parameters() if p.grad is not None})
    expected = {
        "input.labels": labels,
        **{f"input.{k}": v for k, v in lengths.items()},
        **{f"input.{k}": f32(v) for k, v in leaves.items()},
        **{f"output.{k}": f32(v) for k, v in out.items()},
        **{f"loss.{k}": f32(v) for k, v in parts.items()},
        **{f"grad.{k}": f32(v) for k, v in gradients.items()},
        **{f"grad.input.{k}": f32(v.grad) for k, v in leaves.items()},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_file(expected, folder / "expected.safetensors")
    parameters = {k: f32(v) for k, v in checkpoint_tensors(method, dict(head.named_parameters())).items()}
    save_file(parameters, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"method": method, "sizes": asdict(sizes), "options": options}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return {k: v.item() for k, v in parts.items()}


def export(args) -> None:
    torch.set_num_threads(1)
    for seed, (name, (method, make, options)) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        sizes = Sizes(text=6, speech=10) if make is Lfmim else Sizes()
        head = make(sizes, options).eval()
        for p in head.parameters():  # norms start at ones and zeros, biases at zero
            p.data = (p.data + 0.1 * torch.randn_like(p)).double()
        print(name, write(args.output / name, method, head, sizes, options))


# --- checkpoints ------------------------------------------------------------------------------------------------------


class Model(nn.Module):
    """The encoders that a method reads, and its head."""

    def __init__(self, config: dict):
        super().__init__()
        from clasp_torch import MODEL_MAPPING, encoder_config

        method = config["method"]
        _, make, _ = CASES["raw-fusion" if method == "clasp" else method]
        options = config["fusion"] if method == "clasp" else config.get(method, {})
        sizes = Sizes(len(config["labels"]), config["hidden_size"], 0, 0, config["classifier_dropout"])
        self.text_pooling, self.adapter = config["text_pooling"], nn.ModuleDict()
        if "text_encoder" in config:
            text = encoder_config(config["text_encoder"], "roberta")
            self.text_encoder = MODEL_MAPPING[type(text)](text, add_pooling_layer=False)
            sizes.text = self.text_encoder.config.hidden_size
        if "speech_encoder" in config:
            speech = encoder_config(config["speech_encoder"], "wav2vec2")
            self.speech_encoder = MODEL_MAPPING[type(speech)](speech)
            sizes.speech = self.speech_encoder.config.hidden_size
        for name, width in (("text", sizes.text), ("speech", sizes.speech)):
            if width not in (0, sizes.hidden) and make is not Lfmim:
                self.adapter[name] = nn.Linear(width, sizes.hidden)
        self.head, self.method = make(sizes, options), method
        if method == "clasp":
            self.head.kl = config["loss"]["kl"]

    def checkpoint_tensors(self) -> Named:
        state = self.state_dict()
        own = {k: v for k, v in state.items() if not k.startswith("head.")}
        head = {k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.")}
        return own | checkpoint_tensors(self.method, head)

    def forward(self, ids: Tensor | None, wav: list[Tensor]) -> Named:
        """`ids` [batch, tokens], padded; normalised waveforms, each encoded alone."""
        x = Inputs()
        if hasattr(self, "text_encoder"):
            mask = (ids != self.text_encoder.config.pad_token_id).long()
            x.text_states = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            x.text_lengths = mask.sum(1).tolist()
            mean = lambda: torch.stack([h[:n].mean(0) for h, n in zip(x.text_states, x.text_lengths)])
            x.text = x.text_states[:, 0] if self.text_pooling == "cls" else mean()
        if hasattr(self, "speech_encoder"):
            states = [self.speech_encoder(w[None]).last_hidden_state[0] for w in wav]
            x.speech_lengths = [len(h) for h in states]
            x.speech_states = nn.utils.rnn.pad_sequence(states, batch_first=True)
            x.speech = torch.stack([h.mean(0) for h in states])
        for name, layer in self.adapter.items():
            setattr(x, name, layer(getattr(x, name)))
        return self.head(x)


def load(folder: str | Path) -> Model:
    """A checkpoint folder of any of these methods; every tensor must be there and used."""
    folder = Path(folder)
    model = Model(json.loads((folder / "config.json").read_text()))
    stored, own = load_file(folder / "model.safetensors"), model.checkpoint_tensors()
    if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in own.items()}:
        raise SystemExit(f"{folder}: its tensors do not fit: {sorted(set(stored) ^ set(own))}")
    with torch.no_grad():
        for name, x in own.items():  # chunks of packed attention are views: they write through
            x.copy_(stored[name])
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    e = sub.add_parser("export", help="write parameters, inputs, outputs, losses and gradients of every method")
    default = Path(__file__).parents[1] / "tests" / "fixtures" / "methods"
    e.add_argument("output", type=Path, nargs="?", default=default)
    e.set_defaults(run=export)
    o = sub.add_parser("check", help="load a checkpoint folder strictly and print how many tensors it has")
    o.add_argument("dir")
    o.set_defaults(run=lambda a: print(len(load(a.dir).checkpoint_tensors())))
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
