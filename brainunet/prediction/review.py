"""When a segmentation should be looked at before anything else is done with it: one function for each rule.

The thresholds are cautious ones set by hand from what gliomas look like, not tuned on data: they ask for a look, they change
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from brainunet.labels import Region

MOST_LESIONS: Final = 10  # separate parts of the whole tumour
SMALLEST_ML: Final = 0.5
LARGEST_SHARE: Final = 0.35  # of the brain
HIGHEST_ENTROPY: Final = 0.35  # mean in the whole tumour, where 1 is all labels as likely
OUTSIDE_SHARE: Final = 0.02  # of the tumour's voxels
EDGE_SHARE: Final = 0.02


@dataclass(frozen=True, eq=False)
class Finding:
    """What the rules look at.

    Attributes:
        tumour: (X, Y, Z), the whole tumour.
        brain: (X, Y, Z), where an image is not 0.
        statistics: of ``statistics.statistics``.
    """

    tumour: npt.NDArray[np.bool_]
    brain: npt.NDArray[np.bool_]
    statistics: Mapping[str, Mapping[str, Any]]

    @property
    def whole(self) -> Mapping[str, Any]:
        return self.statistics[Region.WT.value]


def _none_found(finding: Finding) -> str | None:
    return None if finding.whole["n_voxels"] else "no tumour was found"


def _tiny(finding: Finding) -> str | None:
    ml = finding.whole["volume_ml"]
    return f"the tumour has only {ml:.2f} ml" if 0 < ml < SMALLEST_ML else None


def _huge(finding: Finding) -> str | None:
    share = finding.whole["n_voxels"] / max(1, np.count_nonzero(finding.brain))
    return f"the tumour is {share:.0%} of the brain" if share > LARGEST_SHARE else None


def _fragmented(finding: Finding) -> str | None:
    n = finding.whole["n_lesions"]
    return f"the tumour is in {n} separate parts" if n > MOST_LESIONS else None


def _unsure(finding: Finding) -> str | None:
    entropy = finding.whole["mean_entropy"]
    if entropy is None or entropy <= HIGHEST_ENTROPY:
        return None
    return f"the network is unsure of the tumour (mean entropy {entropy:.2f} of 1)"


def _outside(finding: Finding) -> str | None:
    n = finding.whole["n_voxels"]
    share = np.count_nonzero(finding.tumour & ~finding.brain) / max(1, n)
    return f"{share:.0%} of the tumour lies outside the brain" if share > OUTSIDE_SHARE else None


def _at_the_edge(finding: Finding) -> str | None:
    n = finding.whole["n_voxels"]
    faces = [np.moveaxis(finding.tumour, axis, 0)[at] for axis in range(3) for at in (0, -1)]
    share = sum(int(np.count_nonzero(face)) for face in faces) / max(1, n)
    return "the tumour touches the edge of the volume and may be cut off" if share > EDGE_SHARE else None


REVIEW_RULES: Final[Mapping[str, Callable[[Finding], str | None]]] = MappingProxyType(
    {
        "none_found": _none_found,
        "tiny": _tiny,
        "huge": _huge,
        "fragmented": _fragmented,
        "unsure": _unsure,
        "outside_brain": _outside,
        "at_the_edge": _at_the_edge,
    }
)


def reasons_to_review(finding: Finding) -> dict[str, str]:
    """Rule -> why it asks for a look; empty where none does."""
    said = {name: rule(finding) for name, rule in REVIEW_RULES.items()}
    return {name: reason for name, reason in said.items() if reason is not None}
