"""Checks of the expert's segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from brainunet.data.checks.facts import Facts
from brainunet.data.checks.findings import Finding, note, refusal, warning
from brainunet.labels import TUMOUR_LABELS

MOST_OUTSIDE: Final = 0.01


def labels_known(facts: Facts) -> Sequence[Finding]:
    """Numbers that the convention does not know, fractions, and a segmentation of one label everywhere.

    Error, because training refuses them. Enhancing tumour is 4 in BraTS 2021 and 3 since 2023; which of them is never guessed.
    """
    return [refusal(error) for error in facts.refused.label]


def labels_inside(facts: Facts) -> Sequence[Finding]:
    """Labels where every image is 0.

    None of the ten real cases has one. A few voxels come of masks drawn before stripping: note. From 1 % of the tumour on it
    is a warning: the segmentation may be shifted, mirrored, or another patient's.
    """
    if facts.label is None or not facts.images:
        return []
    tumour = facts.label > 0
    outside = int(np.count_nonzero(tumour & ~facts.brain))
    share = outside / max(int(np.count_nonzero(tumour)), 1)
    if not outside:
        return []
    said = f"seg: {outside:,} voxels ({share:.1%} of the tumour) lie outside the brain"
    if share < MOST_OUTSIDE:
        return [note(said)]
    return [warning(said, "look at the case: the segmentation may be shifted, mirrored or another patient's")]


def segmented(facts: Facts) -> Sequence[Finding]:
    """No segmentation at all. Note: the case can be predicted and neither trained on nor scored."""
    return [] if facts.case.label else [note("no segmentation: it can be predicted, and neither trained on nor scored")]


def labels_present(facts: Facts) -> Sequence[Finding]:
    """Labels that a segmentation does not have.

    Note: normal. Four of the ten real cases have no enhancing tumour, six of 95 BraTS-Africa gliomas lack a label. Scores and
    losses have a rule for it (docs/adr/0005).
    """
    if facts.label is None:
        return []
    absent = [label.name for label in TUMOUR_LABELS if not (facts.label == label).any()]
    return [note(f"seg: no {', no '.join(absent)}: normal")] if absent else []
