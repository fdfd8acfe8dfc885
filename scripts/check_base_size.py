# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.2", "transformers>=5.0", "safetensors>=0.5", "numpy"]
# ///
"""Holds the program against PyTorch at full size, outside CI, and prints a dated Markdown table.

  cargo build --release --features examples --example parity --bin clasp
  CLASP_TEST_DATA=... python scripts/check_base_size.py --write benches/PARITY.md

Five checks, the first four with random weights and a few seconds of real speech (CLASP_TEST_DATA/audio-formats) with text:

  encode    clasp_torch.py's base checkpoint through `clasp encode`: the twelve tensors
  gradients the same folder through `examples/parity DIR`: outputs, losses and the gradient of every parameter; the
            example prints one JSON object, name (as in expected.safetensors: output.*, loss.*, grad.*) to relative
            error, without any floor under the expected magnitude
  bf16      the same folder through `examples/parity DIR bf16`: the same in bf16 against PyTorch's f32, beside PyTorch's
            autocast; the limit is on the logits
  load      encoder folders saved by transformers as they are published, through `clasp train` with both encoders
            frozen: every encoder weight must come out to the bit; then the checkpoint that clasp wrote loads here
            (strict) and gives the twelve tensors that `clasp encode` gives; for base and for large
  demo      the built-in demo in f32 and in bf16 over three seeds: the test scores, without a limit

A relative error is the largest difference over the largest expected magnitude. Exit code 1 where one is over its
limit. Disk: 6 GB for base and 11 GB for large under --work; memory: about 7 GB. `--size tiny` tries the script itself.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import wave
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizerFast, Wav2Vec2Config, Wav2Vec2ForPreTraining

from clasp_torch import Clasp, load, losses, perturb, sizes, write

OUTPUTS = [
    "text", "speech", "text_invariant", "speech_invariant", "text_specific", "speech_specific", "text_reconstructed",
    "speech_reconstructed", "fused", "logits_text", "logits_speech", "logits_fusion",
]  # fmt: skip
BF16_LIMIT = 2e-2  # of the logits
OUTPUT_LIMIT, GRADIENT_LIMIT = 1e-4, 1e-3  # f32 on both sides; a few 1e-6 of it is the reference's own rounding

# (file, first second, seconds, text): lengths and texts uneven, one text empty
UTTERANCES = [
    ("jfk.wav", 0.0, 4.5, "And so, my fellow Americans: ask not what your country can do for you"),
    ("1272-141231-0002.wav", 0.5, 3.2, "THE CUT ON HIS CHEST STILL DRIPPING BLOOD"),
    ("jfk.wav", 7.1, 2.05, " caf\u00e9 na\u00efve \U0001f600 \u4f60\u597d  don't"),
    ("1272-141231-0002.wav", 6.0, 1.234, ""),
]  # fmt: skip
CHECKS = ["encode", "gradients", "bf16", "load", "demo"]
LABELS = ["angry", "happy", "neutral", "sad"]


def samples_of(path: Path, start: float, seconds: float) -> np.ndarray:
    with wave.open(str(path)) as f:
        assert (f.getframerate(), f.getnchannels(), f.getsampwidth()) == (16000, 1, 2), path
        f.setpos(int(start * 16000))
        return np.frombuffer(f.readframes(int(seconds * 16000)), "<i2").astype(np.float32) / 32768.0


def write_wav(path: Path, samples: np.ndarray) -> None:
    """32-bit float, mono, 16 kHz."""
    data = samples.astype("<f4").tobytes()
    fmt = struct.pack("<HHIIHH", 3, 1, 16000, 64000, 4, 32)
    chunks = b"".join(struct.pack("<4sI", k, len(v)) + v for k, v in ((b"fmt ", fmt), (b"data", data)))
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks)


class Inputs:
    """Real speech and text: as a manifest with its files, and as the reference's tensors."""

    def __init__(self, folder: Path, data: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.manifest = folder / "manifest.jsonl"
        waves, rows = [], []
        for number, (name, start, seconds, text) in enumerate(UTTERANCES):
            samples = samples_of(data / "audio-formats" / name, start, seconds)
            write_wav(folder / f"{number}.wav", samples)
            rows.append({"id": f"u{number}", "audio": f"{number}.wav", "text": text, "label": LABELS[number]})
            exact = samples.astype(np.float64)
            normalised = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-7)
            waves.append(torch.from_numpy(normalised.astype(np.float32)))
        self.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        tokenizer = RobertaTokenizerFast.from_pretrained(data / "roberta-bpe")
        tokens = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
        self.tensors = (
            tokens["input_ids"],
            tokens["attention_mask"],
            torch.nn.utils.rnn.pad_sequence(waves, batch_first=True),
            torch.tensor([len(w) for w in waves]),
            torch.arange(len(rows)) % len(LABELS),
        )


def add_tokenizer(folder: Path, data: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copyfile(data / "roberta-bpe" / name, folder / name)


def add_feature_extractor(folder: Path) -> None:
    values = {
        "do_normalize": True, "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1,
        "padding_side": "right", "padding_value": 0.0, "return_attention_mask": False, "sampling_rate": 16000,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=2) + "\n")


def run(command: list) -> str:
    print("$", *command, file=sys.stderr)
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    if got.shape != expected.shape:
        raise SystemExit(f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
    return ((got.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-30)).item()


class Table:
    def __init__(self):
        self.lines, self.failed = [], False

    def section(self, title: str) -> None:
        self.lines += ["", f"## {title}", "", "| tensor | relative error | limit |", "|---|---|---|"]

    def row(self, name: str, error: float, limit: float) -> None:
        bad = not error <= limit  # also for NaN
        self.failed |= bad
        self.lines.append(f"| {name} | {error:.1e}{' **over**' if bad else ''} | {limit:.0e} |")

    def note(self, text: str) -> None:
        self.lines += ["", text]


def compare_encoded(table: Table, file: Path, expected: dict[str, torch.Tensor]) -> None:
    got = load_file(file)
    if sorted(got) != sorted(OUTPUTS):
        raise SystemExit(f"{file}: tensors {sorted(got)}, expected {sorted(OUTPUTS)}")
    for name in OUTPUTS:
        table.row(f"`{name}`", relative(got[name], expected[name]), OUTPUT_LIMIT)


def export(args, inputs: Inputs) -> Path:
    folder = args.work / f"export-{args.size}"
    torch.manual_seed(0)
    config, text, speech = sizes(args.size, len(LABELS))
    if args.size != "base":
        text.vocab_size = 50265  # the tokenizer's
    model = Clasp(config, text, speech).eval()
    perturb(model)
    write(folder, model, inputs.tensors)
    add_tokenizer(folder, args.data)
    add_feature_extractor(folder)
    return folder


def check_encode(args, table: Table, inputs: Inputs, folder: Path) -> None:
    result = args.work / "encoded.safetensors"
    run([args.clasp, "encode", "--checkpoint", folder, "--manifest", inputs.manifest, "--output", result, "--device", "cpu"])
    table.section(f"`clasp encode`, {args.size} size, on a checkpoint written by PyTorch")
    expected = load_file(folder / "expected.safetensors")
    compare_encoded(table, result, {name: expected[f"output.{name}"] for name in OUTPUTS})


def check_gradients(args, table: Table, folder: Path) -> None:
    errors = json.loads(run([args.parity, folder]))
    expected = load_file(folder / "expected.safetensors")
    names = [k for k in expected if not k.startswith("input.")]
    if missing := sorted(set(names) - set(errors)):
        raise SystemExit(f"{args.parity} left out {len(missing)} tensors: {missing[:10]}")
    table.section(f"Outputs, losses and gradients, {args.size} size")
    for name in (n for kind in ("output.", "loss.") for n in names if n.startswith(kind)):
        table.row(f"`{name}`", errors[name], OUTPUT_LIMIT)
    gradients = [n for n in names if n.startswith("grad.")]
    groups = OrderedDict()
    size_of = lambda name: expected[name].abs().max().item()
    for name in sorted(gradients):
        query = name.replace("key.bias", "query.bias").replace("k_proj.bias", "q_proj.bias")
        scale = 1.0 if query == name else size_of(name) / size_of(query)
        groups.setdefault(re.sub(r"\.\d+\.", ".N.", name), []).append(errors[name] * scale)
    for group, values in groups.items():
        worst = max(values, key=lambda v: v if v == v else float("inf"))
        table.row(f"`{group}`" + (f" (worst of {len(values)})" if len(values) > 1 else ""), worst, GRADIENT_LIMIT)
    table.note(
        f"{len(gradients)} gradients. A key bias has none but for rounding (softmax is blind to it): its error is "
        "measured against the gradient of the query bias beside it."
    )


def autocast_errors(folder: Path) -> dict[str, float]:
    """What PyTorch's own bf16 makes of the same outputs, losses and gradients."""
    expected = load_file(folder / "expected.safetensors")
    model = load(folder).eval()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(*(expected[f"input.{name}"] for name in ("ids", "mask", "wav", "lengths")))
    out = {name: value.float() for name, value in out.items()}
    parts = losses(out, expected["input.labels"], model.config.loss)
    parts["total"].backward()
    found = {f"output.{k}": v for k, v in out.items()} | {f"loss.{k}": v for k, v in parts.items()}
    found |= {f"grad.{k}": v.grad for k, v in model.named_parameters() if v.grad is not None}
    return {name: relative(value, expected[name]) for name, value in found.items()}


def check_bf16(args, table: Table, folder: Path) -> None:
    ours, theirs = json.loads(run([args.parity, folder, "bf16"])), autocast_errors(folder)
    table.lines += ["", f"## bf16 against PyTorch's f32, {args.size} size", ""]
    table.lines += ["| tensor | clasp, bf16 | limit | PyTorch, bf16 autocast |", "|---|---|---|---|"]
    for name in [f"output.{name}" for name in OUTPUTS] + sorted(n for n in ours if n.startswith("loss.")):
        is_limited = name.startswith("output.logits")
        bad = is_limited and not ours[name] <= BF16_LIMIT
        table.failed |= bad
        cells = f"{ours[name]:.1e}{' **over**' if bad else ''} | {f'{BF16_LIMIT:.0e}' if is_limited else ''} | {theirs[name]:.1e}"
        table.lines.append(f"| `{name}` | {cells} |")
    gradients = [n for n in ours if n.startswith("grad.") and not n.endswith(("key.bias", "k_proj.bias"))]
    for label, place in (("median", 0.5), ("nine tenths are below", 0.9), ("largest", 1.0)):
        at = min(int(len(gradients) * place), len(gradients) - 1)
        cells = [f"{sorted(errors[n] for n in gradients)[at]:.1e}" for errors in (ours, theirs)]
        table.lines.append(f"| {len(gradients)} gradients: {label} | {cells[0]} | | {cells[1]} |")
    table.note(
        "clasp's bf16 is emulated on the CPU. The gradients are without the key biases, which have none but for rounding; "
        f"the largest error is that of `{max(gradients, key=ours.__getitem__).removeprefix('grad.')}`."
    )


def check_demo(args, table: Table) -> None:
    table.lines += ["", "## The demo in f32 and in bf16", ""]
    table.lines += ["| seed | precision | text only | speech only | fusion | fusion, weighted F1 | best dev weighted F1 | s |"]
    table.lines += ["|---|---|---|---|---|---|---|---|"]
    for seed in (1, 2, 3):
        for precision in ("f32", "bf16"):
            folder = args.work / f"demo-{precision}-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            sets = [f"train.seed={seed}", f"run.precision={precision}", f"run.dir={folder}"]
            started = time.monotonic()
            run([args.clasp, "train", "--config", "demo", "--device", "cpu", "--quiet", *(w for s in sets for w in ("--set", s))])
            seconds = time.monotonic() - started
            report = json.loads((folder / "report-test.json").read_text())
            result = json.loads((folder / "manifest.json").read_text())["result"]
            cells = [f"{report[name]['accuracy']['value']:.4f}" for name in ("text_only", "speech_only", "fusion")]
            cells += [f"{report['fusion']['weighted_f1']['value']:.4f}", f"{result['dev_weighted_f1']:.4f}", f"{seconds:.0f}"]
            table.lines.append(f"| {seed} | {precision} | {' | '.join(cells)} |")
    table.note(
        f"Test accuracy of the three classifiers, {report['examples']} utterances; trained in the precision of the row, "
        "scored in f32; on the CPU, which emulates bf16."
    )


def encoder_configs(size: str) -> tuple[RobertaConfig, Wav2Vec2Config]:
    if size != "large":
        _, text, speech = sizes(size, len(LABELS))
        text.vocab_size = 50265
        if size == "tiny":
            speech.codevector_dim = speech.proj_codevector_dim = 16
        return text, speech
    text = RobertaConfig(
        vocab_size=50265, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
    )  # fmt: skip
    speech = Wav2Vec2Config(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, conv_bias=True,
        feat_extract_norm="layer", do_stable_layer_norm=True, codevector_dim=768, proj_codevector_dim=768,
    )  # fmt: skip
    return text, speech


def old_bin(model, folder: Path) -> None:
    """pytorch_model.bin as before safetensors: the prefix, the heads, weight_g and weight_v."""
    names = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    state = OrderedDict()
    for name, value in model.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        state[name] = value
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    torch.save(state, folder / "pytorch_model.bin")


def save_encoders(args, size: str) -> tuple[Path, Path]:
    """Base: text as safetensors, speech as an old .bin; large the other way round, speech in shards."""
    folders = args.work / f"roberta-{size}", args.work / f"wav2vec2-{size}"
    torch.manual_seed(1)
    for folder, kind, config in zip(folders, (RobertaForMaskedLM, Wav2Vec2ForPreTraining), encoder_configs(size)):
        model = kind(config).eval()
        perturb(model)
        if (kind is RobertaForMaskedLM) == (size == "large"):
            old_bin(model, folder)
        else:
            model.save_pretrained(folder, max_shard_size="600MB")
        del model
        gc.collect()
    add_tokenizer(folders[0], args.data)
    add_feature_extractor(folders[1])
    return folders


def encoder_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The folder's tensors under the names of a checkpoint; heads left out."""
    files = sorted(folder.glob("*.safetensors"))
    state = {}
    for file in files:
        state |= load_file(file)
    if not files:
        state = torch.load(folder / "pytorch_model.bin", mmap=True)
    new = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
    result = {}
    for name, value in state.items():
        prefix, _, rest = name.partition(".")
        if prefix in ("roberta", "wav2vec2"):
            for old, current in new.items():
                rest = re.sub(re.escape(old) + "$", current, rest)
            result[rest] = value
    return result


def check_load(args, table: Table, inputs: Inputs, size: str) -> None:
    text, speech = save_encoders(args, size)
    directory, result = args.work / f"run-{size}", args.work / f"encoded-{size}.safetensors"
    shutil.rmtree(directory, ignore_errors=True)
    config = args.work / f"load-{size}.toml"
    quoted = lambda path: json.dumps(str(path))
    config.write_text(
        f"[data]\ntrain = {quoted(inputs.manifest)}\nlabels = {json.dumps(LABELS)}\n\n"
        f"[text]\ncheckpoint = {quoted(text)}\nfreeze = true\n\n[speech]\ncheckpoint = {quoted(speech)}\nfreeze = true\n\n"
        f"[train]\nepochs = 1\nbatch_size = 2\nseed = 1\n\n[run]\ndir = {quoted(directory)}\ndevice = \"cpu\"\n"
    )  # fmt: skip
    run([args.clasp, "train", "--config", config])
    checkpoint = directory / "best"
    run([args.clasp, "encode", "--checkpoint", checkpoint, "--manifest", inputs.manifest, "--output", result, "--device", "cpu"])

    written = load_file(checkpoint / "model.safetensors")
    equal = 0
    for encoder, folder in (("text_encoder", text), ("speech_encoder", speech)):
        source = encoder_tensors(folder)
        ours = {k.removeprefix(f"{encoder}."): v for k, v in written.items() if k.startswith(f"{encoder}.")}
        if source.keys() != ours.keys():
            raise SystemExit(f"{folder}: names differ: {sorted(source.keys() ^ ours.keys())[:10]}")
        changed = [k for k in source if not torch.equal(source[k], ours[k])]
        if changed:
            raise SystemExit(f"{folder}: {len(changed)} of {len(source)} frozen tensors differ: {changed[:10]}")
        equal += len(source)
    del written, source, ours
    gc.collect()
    model = load(checkpoint)
    with torch.inference_mode():
        expected = model(*inputs.tensors[:4])
    table.section(f"Encoders saved by transformers, {size} size, through `clasp train`, then into PyTorch (strict)")
    compare_encoded(table, result, expected)
    table.note(f"{equal} encoder tensors came through to the bit.")
    if not args.keep:
        for folder in (text, speech, directory):
            shutil.rmtree(folder)


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clasp", type=Path, default=root / "target/release/clasp")
    parser.add_argument("--parity", type=Path, default=root / "target/release/examples/parity")
    parser.add_argument("--data", type=Path, default=os.environ.get("CLASP_TEST_DATA"), help="default: CLASP_TEST_DATA")
    parser.add_argument("--work", type=Path, help="folder for the models; default: a temporary one, removed at the end")
    parser.add_argument("--keep", action="store_true", help="leave the encoder folders and runs in --work")
    parser.add_argument("--write", type=Path, help="also write the table here (benches/PARITY.md)")
    parser.add_argument("--size", default="base", choices=["base", "tiny"], help="of encode and gradients")
    parser.add_argument("--load-sizes", nargs="*", default=None, choices=["tiny", "base", "large"])
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=CHECKS)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if not args.data:
        raise SystemExit("set CLASP_TEST_DATA or give --data")
    if args.threads:
        torch.set_num_threads(args.threads)
    args.clasp, args.parity = args.clasp.resolve(), args.parity.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        args.work = (args.work or Path(temporary)).resolve()
        inputs, table = Inputs(args.work / "inputs", args.data), Table()
        if {"encode", "gradients", "bf16"} & set(args.only):
            folder = export(args, inputs)
            gc.collect()
            if "encode" in args.only:
                check_encode(args, table, inputs, folder)
            if "gradients" in args.only:
                check_gradients(args, table, folder)
            if "bf16" in args.only:
                check_bf16(args, table, folder)
            if not args.keep:
                shutil.rmtree(folder)
        if "load" in args.only:
            for size in args.load_sizes or (["base", "large"] if args.size == "base" else ["tiny"]):
                check_load(args, table, inputs, size)
        if "demo" in args.only:
            check_demo(args, table)
    version = run([args.clasp, "--version"]).strip()
    lengths = ", ".join(f"{s:g} s" for _, _, s, _ in UTTERANCES)
    head = [
        "# Parity with PyTorch",
        "",
        f"{datetime.date.today().isoformat()}, {version}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {platform.machine()} CPU, f32 where nothing else is said. Written by `scripts/check_base_size.py`: random "
        f"weights, {len(UTTERANCES)} utterances of real speech ({lengths}) with text. A relative error is the largest "
        "difference over the largest expected magnitude of the tensor.",
    ]
    report = "\n".join([*head, *table.lines]) + "\n"
    print(report, end="")
    if args.write:
        args.write.parent.mkdir(parents=True, exist_ok=True)
        args.write.write_text(report)
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
