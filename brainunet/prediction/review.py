"""When a person should look first: what makes a segmentation implausible, in words. One function for each rule.

No rule says that a segmentation is wrong, and silence does not say that it is right. Unless it says otherwise, a threshold was
set from the true segmentations of ten BraTS 2021 cases, with room. A rule asks for a look; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from brainunet.data.checks.coverage import FACES, MOST_ON_A_FACE_MM2, MOST_ON_THE_FLOOR_MM2
from brainunet.labels import Label, Modality, Region
from brainunet.prediction.parts import part_sizes

MOST_PIECES: Final = 6  # of the whole tumour, after the small ones are gone: the truths have 1 to 4
LEAST_IN_LARGEST: Final = 0.8  # of the whole tumour, in its largest piece: the truths have 0.994 and more
LEAST_ML: Final = 1.0  # the truths have 30 ml and more; a ball of 12 mm has 1 ml
MOST_ML: Final = 350.0  # the truths have 231 ml at most
MOST_OF_BRAIN: Final = 0.3  # the truths have 0.16 at most
MOST_OUTSIDE: Final = 0.01  # of the whole tumour: the truths have none where every modality is 0
MOST_CUT_MM2: Final = 50.0  # of tumour on a face of the volume: the truths have none
# 40 predictions of four models, 23 with a Dice below 0.85: 19 of these have more, and 5 of the other 17 (review_thresholds.py)
MOST_UNDECIDED: Final = 0.3

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Finding:
    """What the rules look at; arrays (X, Y, Z) are on the grid of the files, in canonical orientation.

    Attributes:
        labels: numbers of ``labels.Label``, as they are written.
        brain: where an image is not 0.
        statistics: of ``statistics.statistics``.
        undecided: of ``Prediction.undecided``.
        missing: modalities of the model that the case doesn't have.
        withdrawn: why the federation has withdrawn the model, if it has.
    """

    labels: npt.NDArray[np.uint8]
    brain: Mask
    spacing_mm: tuple[float, float, float]
    statistics: Mapping[str, Mapping[str, Any]]
    undecided: float | None = None
    missing: tuple[Modality, ...] = ()
    withdrawn: str | None = None

    @cached_property
    def tumour(self) -> Mask:
        return np.asarray(self.labels != Label.BACKGROUND)

    @property
    def whole(self) -> Mapping[str, Any]:
        return self.statistics[Region.WT.value]

    def on_faces_mm2(self, mask: Mask) -> Mapping[str, float]:
        """How much of a mask lies on each face of the volume."""
        found = {}
        for axis, names in enumerate(FACES):
            one = float(np.prod([side for other, side in enumerate(self.spacing_mm) if other != axis]))
            for at, name in zip((0, -1), names, strict=True):
                found[name] = np.count_nonzero(np.moveaxis(mask, axis, 0)[at]) * one
        return found


def _none_found(finding: Finding) -> str | None:
    """The model was trained on patients with a glioma: none at all is a failure more often than a finding."""
    return None if finding.whole["n_voxels"] else "no tumour was found: that is not the same as none being there"


def _tiny(finding: Finding) -> str | None:
    ml = finding.whole["volume_ml"]
    return f"the tumour has only {ml:.2f} ml" if 0 < ml < LEAST_ML else None


def _huge(finding: Finding) -> str | None:
    ml = finding.whole["volume_ml"]
    share = finding.whole["n_voxels"] / max(1, np.count_nonzero(finding.brain))
    return f"the tumour has {ml:.0f} ml, {share:.0%} of the brain" if ml > MOST_ML or share > MOST_OF_BRAIN else None


def _fragmented(finding: Finding) -> str | None:
    """Scattered false alarms look so, and so do multifocal gliomas."""
    sizes = part_sizes(finding.tumour)
    if not len(sizes):
        return None
    largest = int(sizes.max()) / int(sizes.sum())
    if len(sizes) > MOST_PIECES or largest < LEAST_IN_LARGEST:
        return f"the tumour is in {len(sizes)} separate parts, the largest of them {largest:.0%} of it"
    return None


def _no_core(finding: Finding) -> str | None:
    """The truths all have one."""
    if finding.whole["n_voxels"] and not finding.statistics[Region.TC.value]["n_voxels"]:
        return "there is tumour but no core in it (neither enhancing nor necrotic)"
    return None


def _unsure(finding: Finding) -> str | None:
    share = finding.undecided
    if share is None or share <= MOST_UNDECIDED:
        return None
    return f"the network is not sure of the outline: as much as {share:.0%} of the tumour is tumour with 20 to 80% only"


def _outside(finding: Finding) -> str | None:
    share = np.count_nonzero(finding.tumour & ~finding.brain) / max(1, finding.whole["n_voxels"])
    return f"{share:.0%} of the tumour lies outside the brain" if share > MOST_OUTSIDE else None


def _cut_tumour(finding: Finding) -> str | None:
    cut = {face: mm2 for face, mm2 in finding.on_faces_mm2(finding.tumour).items() if mm2 > MOST_CUT_MM2}
    return f"the tumour runs into the image's {_listed(cut)}: it may go on where the image does not" if cut else None


def _cut_brain(finding: Finding) -> str | None:
    """By the measure of ``brainunet check``: tumour may lie where the image does not go."""
    cut = {
        face: mm2
        for face, mm2 in finding.on_faces_mm2(finding.brain).items()
        if mm2 > (MOST_ON_THE_FLOOR_MM2 if face == "bottom" else MOST_ON_A_FACE_MM2)
    }
    return f"the brain is cut off by the image's {_listed(cut)}" if cut else None


def _missing(finding: Finding) -> str | None:
    """The model can do without, but not as well."""
    return f"made without {', '.join(finding.missing)}" if finding.missing else None


def _withdrawn(finding: Finding) -> str | None:
    """Said on the terminal too, which whoever reads the page has not seen."""
    return None if finding.withdrawn is None else f"the federation has withdrawn the model: {finding.withdrawn}"


REVIEW_RULES: Final[Mapping[str, Callable[[Finding], str | None]]] = MappingProxyType(
    {
        "none_found": _none_found,
        "tiny": _tiny,
        "huge": _huge,
        "fragmented": _fragmented,
        "no_core": _no_core,
        "unsure": _unsure,
        "outside_brain": _outside,
        "cut_tumour": _cut_tumour,
        "cut_brain": _cut_brain,
        "missing_modality": _missing,
        "withdrawn_model": _withdrawn,
    }
)


def reasons_to_review(finding: Finding) -> dict[str, str]:
    """Rule -> why it asks for a look; empty where none does, which does not mean that all is well."""
    said = {name: rule(finding) for name, rule in REVIEW_RULES.items()}
    return {name: reason for name, reason in said.items() if reason is not None}


def _listed(cut: Mapping[str, float]) -> str:
    return ", ".join(f"{face} ({mm2:.0f} mm2)" for face, mm2 in cut.items())
