"""Colours of structures in pictures."""

from __future__ import annotations

from brainunet.labels import TUMOUR_LABELS, Label
from brainunet.metrics.report import STRUCTURES
from brainunet.pictures.palette import ON_GREY, ON_WHITE


def test_every_structure_has_a_colour_of_its_own_and_enhancing_tumour_the_same_everywhere() -> None:
    assert set(ON_WHITE) == set(STRUCTURES)
    assert set(ON_GREY) == set(TUMOUR_LABELS)
    assert len(set(ON_WHITE.values())) == len(ON_WHITE)
    assert len(set(ON_GREY.values())) == len(ON_GREY)
    assert ON_WHITE["ET"] == ON_GREY[Label.ET]
