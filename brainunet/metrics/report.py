"""The metrics of one case, for each nested region and each label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from brainunet.labels import LABELS, REGIONS, Label
from brainunet.metrics import METRICS
from brainunet.metrics.pair import Missing, Pair, Spacing, common_box, pair_of, require_one_shape
from brainunet.records import CaseScore, CaseScoreRow, Structure

# ET is a region and a label at once: one entry.
STRUCTURES: Final[Mapping[Structure, tuple[Label, ...]]] = MappingProxyType(
    {
        "ET": REGIONS["ET"],  # type: ignore[index]
        "TC": REGIONS["TC"],  # type: ignore[index]
        "WT": REGIONS["WT"],  # type: ignore[index]
        "NETC": (Label.NETC,),
        "SNFH": (Label.SNFH,),
    }
)


def score_case(
    case_id: str,
    predicted: npt.NDArray[np.uint8],
    truth: npt.NDArray[np.uint8],
    spacing_mm: Spacing,
    metrics: Sequence[str] = tuple(METRICS),
) -> CaseScore:
    """These metrics for every structure of two label maps (X, Y, Z) in the numbers of ``labels.Label``.

    Raises:
        ValueError: label maps of two shapes.
    """
    require_one_shape(predicted, truth)
    box = common_box(predicted, truth)
    near = predicted[box], truth[box]
    rows = []
    for structure, labels in STRUCTURES.items():
        is_inside = np.isin(LABELS, labels)
        cut = pair_of(is_inside[near[0]], is_inside[near[1]], spacing_mm)
        pair = Pair(cut.predicted, cut.truth, spacing_mm, predicted.size)
        rows += [_row(structure, name, METRICS[name].of(pair)) for name in metrics]
    return CaseScore(case_id, tuple(rows))


def empty_truths(truths: Iterable[npt.NDArray[np.uint8]]) -> dict[Structure, int]:
    """For each structure how many of these label maps have none of it; of no map, 0.

    A model that finds nothing scores Dice 1 on them (docs/adr/0005), so a mean says little without this number beside it.
    """
    present = [set(np.unique(truth)) for truth in truths]
    return {structure: sum(found.isdisjoint(labels) for found in present) for structure, labels in STRUCTURES.items()}


def _row(structure: Structure, metric: str, value: float | Missing) -> CaseScoreRow:
    if isinstance(value, Missing):
        return CaseScoreRow(structure, metric, None, value.reason)
    return CaseScoreRow(structure, metric, float(value))
