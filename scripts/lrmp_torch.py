# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.2", "safetensors>=0.5", "numpy"]
# ///
"""The network of LRMP (Kang et al. 2022) in PyTorch, as it is fine-tuned: the numerical reference of `lrmp-arch`.

Two encoder-decoder models, each given both modalities: one encodes speech and decodes text, the other encodes text and
decodes speech. Both decoders see their whole sequence. Their states are pooled and classified. The pre-training of the
published system is no part of this: what this network gives is not LRMP's result.

  python lrmp_torch.py export [DIR]     # tests/fixtures/methods/lrmp-arch: parameters, inputs, outputs, gradients

All is computed in float64 from values that float32 holds exactly, without dropout, and stored in float32.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

# --- speech features --------------------------------------------------------------------------------------------------

RATE, WINDOW, HOP, FFT, BANDS, EMPHASIS, FLOOR, DELTA = 16_000, 800, 200, 2048, 80, 0.97, 1e-6, 4


def mel_filters() -> np.ndarray:
    """[bands, FFT / 2 + 1]: triangles of equal area on Slaney's mel scale, from 0 to half the rate."""

    def to_mel(hz):
        hz = np.asarray(hz, dtype=float)
        return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1000) / 1000) * 27 / math.log(6.4))

    def to_hz(mel):
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(math.log(6.4) / 27 * (mel - 15)))

    edges = to_hz(np.linspace(0, to_mel(RATE / 2), BANDS + 2))
    bins = np.arange(FFT // 2 + 1) * RATE / FFT
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    return triangles * 2 / (high - low)


def features(wave: np.ndarray) -> np.ndarray:
    """[samples] -> [samples // HOP + 1, 2 * BANDS]: log mel energies and their slopes, each normalised over the frames."""
    wave = np.append(wave[:1], wave[1:] - EMPHASIS * wave[:-1]).astype(float)
    padded = np.pad(wave, WINDOW // 2)
    count = len(wave) // HOP + 1
    frames = np.stack([padded[i * HOP : i * HOP + WINDOW] for i in range(count)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * window, FFT)) ** 2
    mel = np.log(power @ mel_filters().T + FLOOR)
    # The slope of the line that fits a frame and its neighbours best; the ends are repeated.
    around = np.pad(mel, ((DELTA, DELTA), (0, 0)), mode="edge")
    slope = sum(n * (around[DELTA + n :][:count] - around[DELTA - n :][:count]) for n in range(1, DELTA + 1))
    slope /= 2 * sum(n * n for n in range(1, DELTA + 1))
    both = np.concatenate([mel, slope], axis=1)
    return (both - both.mean(0)) / np.sqrt(both.var(0) + 1e-8)


# --- network ----------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.heads = heads

    def forward(self, x: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
        """x [batch, n, width] attends to memory [batch, m, width]; padding [batch, m] is true where there is none."""
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = split(self.query(x)), split(self.key(memory)), split(self.value(memory))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(padding[:, None, None], -torch.inf).softmax(-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Layer(nn.Module):
    """Post-norm. With `memory` it is a decoder's: it attends to the encoder's states between the two blocks."""

    def __init__(self, o: dict, is_decoder: bool):
        super().__init__()
        norm = lambda: nn.LayerNorm(o["width"], eps=1e-5)
        self.attention, self.attention_norm = Attention(o["width"], o["attention_heads"]), norm()
        if is_decoder:
            self.cross_attention, self.cross_norm = Attention(o["width"], o["attention_heads"]), norm()
        self.feed_forward, self.output_norm = FeedForward(o["width"], o["feed_forward"]), norm()

    def forward(self, x: Tensor, padding: Tensor, memory: tuple[Tensor, Tensor] | None = None) -> Tensor:
        x = self.attention_norm(x + self.attention(x, x, padding))
        if memory is not None:
            x = self.cross_norm(x + self.cross_attention(x, *memory))
        return self.output_norm(x + self.feed_forward(x))


class TextEmbedding(nn.Module):
    """Factorised as ALBERT's: a small vector a token, mapped to the width."""

    def __init__(self, o: dict):
        super().__init__()
        self.token = nn.Embedding(o["vocab_size"], o["embedding"])
        self.projection = nn.Linear(o["embedding"], o["width"])
        self.position = nn.Embedding(o["text_positions"], o["width"])
        self.norm = nn.LayerNorm(o["width"], eps=1e-5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.projection(self.token(tokens)) + self.position.weight[: tokens.shape[1]])


class SpeechEmbedding(nn.Module):
    def __init__(self, o: dict):
        super().__init__()
        self.projection = nn.Linear(2 * BANDS, o["width"])
        self.position = nn.Embedding(o["speech_positions"], o["width"])
        self.norm = nn.LayerNorm(o["width"], eps=1e-5)

    def forward(self, frames: Tensor) -> Tensor:
        return self.norm(self.projection(frames) + self.position.weight[: frames.shape[1]])


class Stack(nn.Module):
    def __init__(self, o: dict, embedding: type, is_decoder: bool):
        super().__init__()
        self.embedding = embedding(o)
        self.layers = nn.ModuleList(Layer(o, is_decoder) for _ in range(o["layers"]))

    def forward(self, x: Tensor, padding: Tensor, memory: tuple[Tensor, Tensor] | None = None) -> Tensor:
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x, padding, memory)
        return x


class Translator(nn.Module):
    def __init__(self, o: dict, source: type, target: type):
        super().__init__()
        self.encoder, self.decoder = Stack(o, source, False), Stack(o, target, True)

    def forward(self, source: Tensor, source_padding: Tensor, target: Tensor, target_padding: Tensor) -> Tensor:
        """The vector [batch, width] of the target: mean plus maximum over its real positions."""
        memory = (self.encoder(source, source_padding), source_padding)
        states = self.decoder(target, target_padding, memory)
        real = ~target_padding[..., None]
        mean = (states * real).sum(1) / real.sum(1)
        return mean + states.masked_fill(~real, -torch.inf).amax(1)


class LrmpArch(nn.Module):
    def __init__(self, labels: int, o: dict):
        super().__init__()
        self.speech_to_text = Translator(o, SpeechEmbedding, TextEmbedding)
        self.text_to_speech = Translator(o, TextEmbedding, SpeechEmbedding)
        w = o["width"]
        self.joint_head = nn.ModuleList([nn.Linear(2 * w, w), nn.Linear(w, w), nn.Linear(w, labels)])

    def forward(self, tokens: Tensor, text_padding: Tensor, frames: Tensor, speech_padding: Tensor) -> dict[str, Tensor]:
        text = self.speech_to_text(frames, speech_padding, tokens, text_padding)
        speech = self.text_to_speech(tokens, text_padding, frames, speech_padding)
        fused = torch.cat([text, speech], dim=1)
        x = fused
        for layer in self.joint_head[:-1]:
            x = layer(x).relu()
        return {"text_decoded": text, "speech_decoded": speech, "fused": fused, "logits": self.joint_head[-1](x)}


# --- fixture ----------------------------------------------------------------------------------------------------------

OPTIONS = {
    "width": 8, "attention_heads": 2, "feed_forward": 12, "layers": 2, "embedding": 4, "text_positions": 9,
    "speech_positions": 16, "vocab_size": 11, "dropout": 0.1, "head_dropout": 0.2,
}  # fmt: skip
TEXT_LENGTHS, SAMPLES = [4, 7, 2], [2600, 1500, 4000]  # the last is 21 frames, cut to 16


def export(args) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    labels, y = 3, torch.tensor([2, 0, 1])
    net = LrmpArch(labels, OPTIONS).eval()
    for p in net.parameters():  # norms start at ones and zeros, biases at zero
        p.data = (p.data + 0.1 * torch.randn_like(p)).float().double()
    tokens = torch.ones(3, max(TEXT_LENGTHS), dtype=torch.long)
    text_padding = torch.arange(max(TEXT_LENGTHS))[None] >= torch.tensor(TEXT_LENGTHS)[:, None]
    tokens = torch.where(text_padding, tokens, torch.randint(2, OPTIONS["vocab_size"], tokens.shape))
    waves = torch.zeros(3, max(SAMPLES))
    rows = []
    for i, n in enumerate(SAMPLES):
        # A tone that rises, in noise: every band has energy of its own.
        t = torch.arange(n) / RATE
        waves[i, :n] = torch.sin(2 * math.pi * (300 + 200 * i + 4000 * t) * t) + 0.3 * torch.randn(n)
        rows.append(torch.from_numpy(features(waves[i, :n].numpy()))[: OPTIONS["speech_positions"]])
    longest = max(len(row) for row in rows)
    frames = torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows]).double()
    speech_padding = torch.arange(longest)[None] >= torch.tensor([len(row) for row in rows])[:, None]
    out = net(tokens, text_padding, frames, speech_padding)
    task = F.cross_entropy(out["logits"], y)
    task.backward()
    f32 = lambda x: x.detach().float().clone().contiguous()
    expected = {
        "input.labels": y,
        "input.tokens": tokens,
        "input.text_lengths": torch.tensor(TEXT_LENGTHS),
        "input.waveforms": waves,
        "input.speech_lengths": torch.tensor(SAMPLES),
        "features": f32(torch.cat(rows)),
        **{f"output.{k}": f32(v) for k, v in out.items()},
        "loss.task_fusion": f32(task)[None],
        **{f"grad.lrmp_arch.{k}": f32(p.grad) for k, p in net.named_parameters() if p.grad is not None},
    }  # fmt: skip
    args.output.mkdir(parents=True, exist_ok=True)
    save_file(expected, args.output / "expected.safetensors")
    parameters = {f"lrmp_arch.{k}": f32(p) for k, p in net.named_parameters()}
    save_file(parameters, args.output / "model.safetensors", metadata={"format": "pt"})
    config = {"method": "lrmp-arch", "labels": labels, "options": OPTIONS}
    (args.output / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    print({k: tuple(v.shape) for k, v in out.items()}, task.item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    e = sub.add_parser("export", help="write parameters, inputs, features, outputs and gradients")
    default = Path(__file__).parents[1] / "tests" / "fixtures" / "methods" / "lrmp-arch"
    e.add_argument("output", type=Path, nargs="?", default=default)
    e.set_defaults(run=export)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
