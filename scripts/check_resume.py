# /// script
# requires-python = ">=3.10"
# ///
"""Kills a training run at random moments, resumes it each time, and holds the weights and the log against those of a
run that was left alone. Dropout, SpecAugment, accumulation, early stopping and saving between epochs are on.

    uv run scripts/check_resume.py target/release/clasp --kills 30
"""

import argparse
import hashlib
import json
import pathlib
import random
import signal
import subprocess
import tempfile
import time

CONFIG = """
[data.demo]
utterances = 160
[text]
tokenizer = "train"
vocab_size = 300
[text.config]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
[speech]
freeze_feature_encoder = false
[speech.config]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
conv_dim = [16, 16, 16, 16, 16, 16, 16]
num_conv_pos_embeddings = 8
num_conv_pos_embedding_groups = 2
mask_time_prob = 0.2
[model.fusion]
layers = 1
feed_forward = 32
[train]
epochs = 8
patience = 6
batch_size = 4
accumulation_steps = 3
save_every_steps = 2
learning_rate = 1e-3
schedule = "cosine"
warmup_steps = 5
[run]
device = "cpu"
"""

TIMES = ("examples_per_second", "seconds", "data_wait", "resident_memory", "device_memory")


def state(run: pathlib.Path) -> dict:
    """What must be the same: the bytes of the checkpoints, and the log without times."""
    found = {}
    for name in ("best/model.safetensors", "last/model.safetensors", "last/optimizer.safetensors", "last/state.json"):
        found[name] = hashlib.sha256((run / name).read_bytes()).hexdigest()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    found["log.jsonl"] = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    program, moments = arguments.program.resolve(), random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        (folder / "config.toml").write_text(CONFIG)

        def command(run: str, *flags: str) -> list:
            return [program, "train", "--config", "config.toml", "--quiet", "--set", f"run.dir={run}", *flags]

        begun = time.monotonic()
        subprocess.run(command("alone"), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        alone, whole = state(folder / "alone"), time.monotonic() - begun
        print(f"left alone: {whole:.1f} s, {sum(line['event'] == 'step' for line in alone['log.jsonl'])} steps")
        kills = runs = 0
        while kills < arguments.kills:
            runs += 1
            run = f"killed{runs}"
            while True:
                process = subprocess.Popen(command(run, "--resume"), cwd=folder, stdout=subprocess.DEVNULL)
                try:
                    process.wait(moments.uniform(0.02, 0.6 * whole))
                    if process.returncode != 0:
                        raise SystemExit(f"a resumed run ended with exit code {process.returncode}")
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL if kills % 5 else signal.SIGTERM)
                    process.wait()
                    kills += 1
            killed = state(folder / run)
            for name, value in alone.items():
                if killed[name] != value:
                    raise SystemExit(f"run {runs}: {name} differs from that of the run that was left alone")
        print(f"{kills} kills in {runs} runs: weights, moments, state and log are the same to the bit")


if __name__ == "__main__":
    main()
