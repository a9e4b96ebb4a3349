"""What tells, without a truth, that a prediction is poor: measures of doubt against the Dice of the whole tumour.

    python -m benchmarks.review_thresholds DATA MODEL [MODEL ...] [--cases ID,ID,...] [--convention brats2021]

For each model and case with a truth: Dice of the whole tumour, and what the network itself knows of its doubt. Printed under
them, for each measure: Spearman's rank correlation with Dice over all rows (-1: the more doubt the worse), and the share of
pairs of a good and a poor prediction that it puts in the right order (area under the ROC curve; 0.5 is guessing), where poor
is a Dice below ``POOR``. The threshold of the rule "unsure" in brainunet/prediction/review.py is set from this table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from brainunet.data.cases import find_cases, parse_convention
from brainunet.data.preprocess import read_label
from brainunet.data.volumes import read_volume
from brainunet.inference.prediction import Prediction
from brainunet.inference.segmenter import open_segmenter
from brainunet.labels import Label
from brainunet.prediction.grid import maps_on_files_grid, read_case
from brainunet.terminal import progress_bar

POOR: Final = 0.85


def _entropy_of_labels(prediction: Prediction) -> float:
    return float(prediction.entropy[prediction.labels != Label.BACKGROUND].mean())


def _entropy_of_tumour(prediction: Prediction) -> float:
    p = _tumour(prediction)[prediction.labels != Label.BACKGROUND].clip(1e-6, 1 - 1e-6)
    return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean())


def _expected_error(prediction: Prediction) -> float:
    """1 less the Dice to be expected if the probabilities were right."""
    p, mask = _tumour(prediction), prediction.labels != Label.BACKGROUND
    return float(1 - 2 * p[mask].sum(dtype=np.float64) / (p.sum(dtype=np.float64) + np.count_nonzero(mask)))


def _undecided(prediction: Prediction) -> float:
    return prediction.undecided or 0.0


def _tumour(prediction: Prediction) -> npt.NDArray[np.float32]:
    return np.asarray(1 - prediction.probabilities[Label.BACKGROUND], np.float32)


MEASURES: Final[Mapping[str, Callable[[Prediction], float]]] = {
    "entropy, four labels": _entropy_of_labels,
    "entropy, tumour or not": _entropy_of_tumour,
    "1 - expected Dice": _expected_error,
    "20 to 80 % / tumour": _undecided,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of cases with true segmentations")
    parser.add_argument("models", type=Path, nargs="+", help="model files")
    parser.add_argument("--cases", default="", help="ids with commas, where not all")
    parser.add_argument("--convention", help="brats2021 or brats2023, where file names don't tell")
    asked = parser.parse_args()
    wanted = {name.strip() for name in asked.cases.split(",") if name.strip()}
    found = find_cases(asked.data, convention=parse_convention(asked.convention)).cases
    cases = [case for case in found if not wanted or case.case_id in wanted]
    rows: list[list[float]] = []
    print(f"{'Dice':>6} " + " ".join(f"{name:>22}" for name in MEASURES))
    with progress_bar() as progress:
        task = progress.add_task("predicting", total=len(asked.models) * len(cases))
        for path in asked.models:
            segmenter = open_segmenter(path)
            for case in cases:
                progress.advance(task)
                read = read_case(case, segmenter.card.model.modalities, segmenter.card.preprocess)
                prediction = segmenter.predict(read.image)
                if case.label is None or not prediction.labels.any():
                    continue
                truth = read_label(case.label, read_volume(case.label), case.convention) != Label.BACKGROUND
                made = maps_on_files_grid(prediction.probabilities, read, uncertainty=False)[0] != Label.BACKGROUND
                dice = 2 * np.count_nonzero(truth & made) / (np.count_nonzero(truth) + np.count_nonzero(made))
                rows.append([dice, *(measure(prediction) for measure in MEASURES.values())])
                values = " ".join(f"{value:>22.3f}" for value in rows[-1][1:])
                print(f"{dice:>6.3f} {values}  {path.parent.name}/{path.stem} {case.case_id}", flush=True)
    if len(rows) < 3:
        sys.exit("too few predictions with a truth to say more")
    table = np.array(rows)
    poor = table[:, 0] < POOR
    print(f"\n{len(rows)} predictions, {np.count_nonzero(poor)} of them poor (Dice below {POOR})")
    for column, name in enumerate(MEASURES, start=1):
        against = spearmanr(table[:, 0], table[:, column]).statistic
        order = np.sign(table[poor, column][:, None] - table[~poor, column][None]) / 2 + 0.5
        print(f"{name:>22}: rank correlation {against:.2f}" + (f", in order {order.mean():.2f}" if order.size else ""))


if __name__ == "__main__":
    main()
