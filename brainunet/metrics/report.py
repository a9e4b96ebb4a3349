"""All metrics of one case, for each nested region and each label."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from brainunet.labels import REGIONS, Label
from brainunet.metrics import METRICS
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


def score_case(case_id: str, predicted: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> CaseScore:
    """Every metric for every structure of two label maps (X, Y, Z) in the numbers of ``labels.Label``."""
    rows = []
    for structure, labels in STRUCTURES.items():
        masks = np.isin(predicted, labels), np.isin(truth, labels)
        for name, metric in METRICS.items():
            value = metric(*masks)
            rows.append(CaseScoreRow(structure, name, value, None if value is not None else "undefined for an empty mask"))
    return CaseScore(case_id, tuple(rows))
