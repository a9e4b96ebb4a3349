"""Models scored in windows and in one pass: how far apart the two are, case by case. It says how good, not how fast.

    python benchmarks/one_pass.py DATA MODEL [MODEL ...] [--window 96] [--cases ID,ID,...] [--convention brats2021]

DATA holds labelled cases that the models have not seen (or name those with --cases); one pass over a brain takes some GB.
See docs/adr/0009, and train.whole_share for a training that ends on whole cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

import numpy as np

from brainunet.config import ValidationConfig
from brainunet.data.cases import find_cases, parse_convention
from brainunet.data.preprocess import prepare
from brainunet.inference.predictor import predict_labels
from brainunet.labels import REGIONS
from brainunet.metrics.overlap import dice
from brainunet.model import default_device, load
from brainunet.modelfile import read_model
from brainunet.records import Case
from brainunet.settings import load as load_settings

NAMES = ("WT", "TC", "ET")
Pair: TypeAlias = tuple[float, float]  # Dice in windows, Dice in one pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--window", type=int, default=96)
    parser.add_argument("--cases")
    parser.add_argument("--convention")
    asked = parser.parse_args()
    sides = load_settings(ValidationConfig, overrides=[f"window=[{asked.window}, {asked.window}, {asked.window}]"]).window
    wanted = None if asked.cases is None else {name.strip() for name in asked.cases.split(",")}
    found = find_cases(asked.data, modalities=(), convention=parse_convention(asked.convention))
    cases = [case for case in found.cases if wanted is None or case.case_id in wanted]
    if not cases:
        raise SystemExit("none of these cases is there with a segmentation")
    for path in asked.models:
        print(f"{path}: Dice in windows of {asked.window} -> in one pass", flush=True)
        per_case = {}
        for case in cases:
            per_case[case.case_id] = scored(path, case, sides)
            print(f"  {case.case_id}: {in_words(per_case[case.case_id])}", flush=True)
        print("\n".join(summed_up(per_case)), flush=True)


def scored(path: Path, case: Case, window: tuple[int, int, int] | None) -> dict[str, Pair]:
    _, card = read_model(path)
    network = load(path).to(default_device())
    prepared = prepare(case, card.model.modalities, card.preprocess)
    assert prepared.label is not None
    both = [predict_labels(network, prepared.image, way) for way in (window, None)]
    pairs = {}
    for name in NAMES:
        labels = REGIONS[name]  # type: ignore[index] # the regions are their names
        truth = np.isin(prepared.label, labels)
        in_windows, in_one = (dice(np.isin(predicted, labels), truth) for predicted in both)
        pairs[name] = (in_windows, in_one)
    return pairs


def in_words(pairs: Mapping[str, Pair]) -> str:
    return ", ".join(f"{name} {a:.3f} -> {b:.3f} ({b - a:+.3f})" for name, (a, b) in pairs.items())


def summed_up(per_case: Mapping[str, Mapping[str, Pair]]) -> Sequence[str]:
    lines = [f"  mean of {len(per_case)}: {in_words({name: _mean([p[name] for p in per_case.values()]) for name in NAMES})}"]
    for name in NAMES:
        gaps = {case: pairs[name][1] - pairs[name][0] for case, pairs in per_case.items()}
        worst = max(gaps, key=lambda case: abs(gaps[case]))
        lines.append(
            f"  furthest apart in {name}: {gaps[worst]:+.3f} ({worst}); mean distance {fmean(map(abs, gaps.values())):.3f}"
        )
    return lines


def _mean(pairs: Sequence[Pair]) -> Pair:
    return fmean(a for a, _ in pairs), fmean(b for _, b in pairs)


if __name__ == "__main__":
    main()
