"""How far a simulation's model is above the simplest rule there is: "tumour is where FLAIR is brighter than t".

    python benchmarks/flair_threshold.py OUT --data DIR

OUT is a finished simulation over the cases in DIR. The threshold t, on the normalised FLAIR of its cache, is the one with
the best mean whole-tumour Dice on the sites' training cases; it is then scored on their validation cases, as the model was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

import numpy as np

from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.labels import Modality
from brainunet.metrics.overlap import dice
from brainunet_sim.request import saved_request

THRESHOLDS = np.arange(-1.0, 4.01, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    asked = parser.parse_args()
    request = saved_request(asked.out)
    config = request.config
    modalities = config.model.modalities
    sides = {case: side for site in json.loads((asked.out / "sites.json").read_text()).values() for case, side in site.items()}
    cache = CaseCache(asked.out / "cache")
    curves: dict[str, list[list[float]]] = {"train": [], "validation": []}
    names: list[str] = []
    for case in find_cases(asked.data, modalities=modalities, convention=request.convention).cases:
        if case.case_id not in sides:
            continue
        prepared = cache.get(case, modalities, config.preprocess)
        flair = np.asarray(prepared.image[modalities.index(Modality.T2F)], np.float32)
        brain = np.any(prepared.image != 0, axis=0)
        assert prepared.label is not None
        tumour = prepared.label > 0
        curves[sides[case.case_id]].append([dice((flair > t) & brain, tumour) for t in THRESHOLDS])
        if sides[case.case_id] == "validation":
            names.append(case.case_id)
    best = int(np.argmax(np.mean(curves["train"], axis=0)))
    threshold = [curve[best] for curve in curves["validation"]]
    last = json.loads((asked.out / "summary.json").read_text())["rounds"][-1]
    model = float(last["mean_dice"]["WT"])
    print(f"threshold {THRESHOLDS[best]:.2f}, chosen on {len(curves['train'])} training cases")
    print("  " + ", ".join(f"{name} {value:.3f}" for name, value in zip(names, threshold, strict=True)))
    print(f"whole-tumour Dice on {len(threshold)} validation cases: threshold {fmean(threshold):.3f}, model {model:.3f}")
    print(f"model / threshold = {model / fmean(threshold):.2f}")


if __name__ == "__main__":
    main()
