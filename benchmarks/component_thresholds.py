"""Which small components a prediction is better without: lesion-wise Dice by threshold, of models and cases with a truth.

    python -m benchmarks.component_thresholds DATA MODEL [MODEL ...] [--cases ID,ID,...] [--convention brats2021] [--write]

Prints a table for each region, and the choice as content of ``brainunet/prediction/components.toml``; ``--write`` puts it
there. The regions are chosen from the largest to the smallest, each with those before it cleared, as a prediction clears them.
Of thresholds up to 50 mm3 the smallest is taken whose mean lesion-wise Dice is within ``CLOSE`` of the best: larger parts may
be lesions that count (the challenge leaves smaller ones out), and cases with one large lesion each can't tell what would be
lost; larger thresholds are printed to be seen. Name cases that the models were not trained on (``--cases``): on others there
are too few false components.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

import numpy as np
import numpy.typing as npt

from brainunet.data.cases import find_cases, parse_convention
from brainunet.data.preprocess import read_label
from brainunet.data.volumes import read_volume
from brainunet.inference.segmenter import open_segmenter
from brainunet.labels import LABELS, REGIONS, Region
from brainunet.metrics.lesions import SMALLEST_MM3, lesion_scores
from brainunet.metrics.pair import pair_of
from brainunet.prediction.components import BECOMES, FILE, without_small_components
from brainunet.prediction.grid import labels_on_files_grid, read_case
from brainunet.records import Case
from brainunet.terminal import progress_bar

CANDIDATES: Final = (0.0, 10.0, 25.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
CLOSE: Final = 0.002


@dataclass(frozen=True, eq=False)
class Pair:
    """What a model made of a case before anything was removed, and the truth: label numbers (X, Y, Z)."""

    predicted: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """Means over all pairs at one threshold."""

    mm3: float
    dice: float
    standard_error: float
    missed: float
    false_positives: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of cases with true segmentations")
    parser.add_argument("models", type=Path, nargs="+", help="model files; several are taken together")
    parser.add_argument("--cases", default="", help="ids with commas, where not all")
    parser.add_argument("--convention", help="brats2021 or brats2023, where file names don't tell")
    parser.add_argument("--write", action="store_true", help="put the choice into brainunet/prediction/components.toml")
    asked = parser.parse_args()
    wanted = {name.strip() for name in asked.cases.split(",") if name.strip()}
    found = find_cases(asked.data, convention=parse_convention(asked.convention)).cases
    cases = [case for case in found if not wanted or case.case_id in wanted]
    if not cases:
        sys.exit("no case with a truth")
    pairs = pairs_of(asked.models, cases)
    thresholds: dict[Region, float] = dict.fromkeys(BECOMES, 0.0)
    for region in BECOMES:
        rows = [row(region, mm3, {**thresholds, region: mm3}, pairs) for mm3 in CANDIDATES]
        harmless = [each for each in rows if each.mm3 <= SMALLEST_MM3]
        best = max(each.dice for each in harmless)
        thresholds[region] = min(each.mm3 for each in harmless if each.dice >= best - CLOSE)
        print(f"\n{region}: lesion-wise over {len(pairs)} predictions")
        print(f"{'up to mm3':>10} {'Dice':>7} {'+-':>7} {'missed':>7} {'false':>7}")
        for each in rows:
            mark = "  <- chosen" if each.mm3 == thresholds[region] else ""
            of_dice = f"{each.dice:>7.3f} {each.standard_error:>7.3f}"
            print(f"{each.mm3:>10g} {of_dice} {each.missed:>7.2f} {each.false_positives:>7.2f}{mark}")
    text = toml_of(thresholds, f"{len(cases)} cases of {asked.data.resolve().name}, {len(asked.models)} model(s)")
    print(f"\n{text}")
    if asked.write:
        FILE.write_text(text, encoding="utf-8")


def pairs_of(models: Sequence[Path], cases: Sequence[Case]) -> list[Pair]:
    made = []
    with progress_bar() as progress:
        task = progress.add_task("predicting", total=len(models) * len(cases))
        for path in models:
            segmenter = open_segmenter(path)
            for case in cases:
                read = read_case(case, segmenter.card.model.modalities, segmenter.card.preprocess)
                predicted = labels_on_files_grid(segmenter.predict(read.image).probabilities, read)
                assert case.label is not None
                truth = read_label(case.label, read_volume(case.label), case.convention)
                made.append(Pair(predicted, truth, read.spacing_mm))
                progress.advance(task)
    return made


def row(region: Region, mm3: float, smallest_mm3: Mapping[Region, float], pairs: Sequence[Pair]) -> Row:
    scores = []
    inside = np.isin(LABELS, REGIONS[region])
    for pair in pairs:
        cleared, _ = without_small_components(pair.predicted, float(np.prod(pair.spacing_mm)), smallest_mm3)
        near = pair_of(inside[cleared], inside[pair.truth], pair.spacing_mm)
        scores.append(lesion_scores(near.predicted, near.truth, pair.spacing_mm))
    dices = [score.dice for score in scores]
    return Row(
        mm3,
        fmean(dices),
        stdev(dices) / len(dices) ** 0.5 if len(dices) > 1 else 0.0,
        fmean(score.missed for score in scores),
        fmean(score.false_positives for score in scores),
    )


def toml_of(thresholds: Mapping[Region, float], chosen_on: str) -> str:
    lines = [
        "# Components (26 neighbours) of a region up to so many mm3 are removed from a prediction; components.py says how.",
        '# Chosen by benchmarks/component_thresholds.py, which writes this file; "chosen_on" says on what.',
        f'chosen_on = "{chosen_on}"',
        "",
        "[smallest_mm3]",
        *(f"{region.value} = {mm3:.1f}" for region, mm3 in thresholds.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
