"""One model, scored in one pass and in windows: whole-tumour Dice and seconds on the validation cases of a simulation.

    python benchmarks/validation_window.py OUT --data DIR [--round K] [--windows 64 96]

OUT is a simulation over the cases in DIR; without --round its last model is scored. See docs/adr/0009.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import fmean

from brainunet.config import Window
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.inference.predictor import predict_labels
from brainunet.metrics.overlap import dice
from brainunet.model import default_device, load
from brainunet_sim.request import saved_request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--round", type=int)
    parser.add_argument("--windows", type=int, nargs="+", default=[64, 96])
    asked = parser.parse_args()
    request = saved_request(asked.out)
    models = sorted((asked.out / "models").glob("round-*.safetensors"))
    network = load(models[-1 if asked.round is None else asked.round]).to(default_device())
    ways: dict[str, Window | None] = {"one pass": None, **{f"{side}^3": (side, side, side) for side in asked.windows}}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    sites = json.loads((asked.out / "sites.json").read_text()).values()
    held_out = {case for cases in sites for case, side in cases.items() if side == "validation"}
    modalities, cache = request.config.model.modalities, CaseCache(asked.out / "cache")
    for case in find_cases(asked.data, modalities=modalities, convention=request.convention).cases:
        if case.case_id not in held_out:
            continue
        prepared = cache.get(case, modalities, request.config.preprocess)
        assert prepared.label is not None
        for name, window in ways.items():
            started = time.perf_counter()
            labels = predict_labels(network, prepared.image, window)
            found[name].append((dice(labels > 0, prepared.label > 0), time.perf_counter() - started))
        print(f"{case.case_id}: " + ", ".join(f"{name} {pairs[-1][0]:.3f}" for name, pairs in found.items()), flush=True)
    base_dice, base_s = (fmean(column) for column in zip(*found["one pass"], strict=True))
    for name, pairs in found.items():
        mean, seconds = (fmean(column) for column in zip(*pairs, strict=True))
        print(f"{name:>8}: mean WT Dice {mean:.3f} ({mean - base_dice:+.3f}), {seconds / base_s:.1f} x the time of one pass")


if __name__ == "__main__":
    main()
