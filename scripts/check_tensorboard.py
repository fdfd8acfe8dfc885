# /// script
# requires-python = ">=3.10"
# dependencies = ["tensorboard"]
# ///
"""Holds the event file of a run against TensorBoard's own reader and against `log.jsonl`.

    uv run scripts/check_tensorboard.py runs/demo
"""

import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SCALARS = {"learning_rate": "train/learning_rate", "gradient_norm": "train/gradient_norm"}


def main(run: pathlib.Path) -> None:
    accumulator = EventAccumulator(str(run / "events.out.tfevents.clasp"), size_guidance={"scalars": 0})
    accumulator.Reload()
    found = {tag: {event.step: event.value for event in accumulator.Scalars(tag)} for tag in accumulator.Tags()["scalars"]}
    compared = 0
    for line in (run / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == "step":
            expected = {f"loss/{name}": value for name, value in entry["loss"].items()}
            expected |= {tag: entry[key] for key, tag in SCALARS.items()}
        else:
            dev = entry["dev"] or {}
            expected = {f"dev/{name}": dev[name] for name in ("accuracy", "weighted_f1") if name in dev}
        for tag, value in expected.items():
            if value is None:
                continue
            if not math.isclose(found[tag][entry["step"]], value, rel_tol=1e-6, abs_tol=1e-30):
                sys.exit(f"step {entry['step']}: {tag} is {found[tag][entry['step']]}, the log says {value}")
            compared += 1
    if compared == 0:
        sys.exit("nothing to compare: the log is empty")
    print(f"{compared} scalars agree in {len(found)} tags")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
