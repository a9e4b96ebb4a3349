"""Tissue labels, nested regions, modalities and data-set conventions: the only file where 1, 2, 3 and 4 mean tissue.

Inside the project a label map always holds the numbers of :class:`Label` (the BraTS 2023+ numbers). What a file holds is
translated when it is read and never guessed: "4" is enhancing tumour in BraTS 2021 and the resection cavity in BraTS-GLI 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final


class Label(IntEnum):
    """One tissue per voxel."""

    BACKGROUND = 0
    NETC = 1  # non-enhancing tumour core, "NCR" until 2022
    SNFH = 2  # surrounding non-enhancing FLAIR hyperintensity, "ED" until 2022
    ET = 3  # enhancing tumour


LABELS: Final = tuple(Label)
TUMOUR_LABELS: Final = (Label.NETC, Label.SNFH, Label.ET)


class Region(StrEnum):
    """The challenge's nested regions, each a union of labels."""

    ET = "ET"
    TC = "TC"
    WT = "WT"


REGIONS: Final[Mapping[Region, tuple[Label, ...]]] = MappingProxyType(
    {
        Region.ET: (Label.ET,),
        Region.TC: (Label.NETC, Label.ET),
        Region.WT: (Label.NETC, Label.SNFH, Label.ET),
    }
)


class Modality(StrEnum):
    """MRI sequences by their BraTS 2023+ names."""

    T1N = "t1n"
    T1C = "t1c"
    T2W = "t2w"
    T2F = "t2f"


DEFAULT_MODALITIES: Final = (Modality.T1C, Modality.T2W, Modality.T2F)

# What files call them, in lower case; nothing else in the project knows the old names.
MODALITY_ALIASES: Final[Mapping[str, Modality]] = MappingProxyType(
    {
        **dict.fromkeys(("t1n", "t1", "t1w", "t1pre"), Modality.T1N),
        **dict.fromkeys(("t1c", "t1ce", "t1gd", "t1post"), Modality.T1C),
        **dict.fromkeys(("t2w", "t2"), Modality.T2W),
        **dict.fromkeys(("t2f", "flair", "fla", "t2flair"), Modality.T2F),
    }
)
SEGMENTATION_ALIASES: Final = frozenset({"seg", "label", "mask", "truth"})


class Convention(StrEnum):
    """Which numbers a data set's segmentations use."""

    BRATS2021 = "brats2021"
    BRATS2023 = "brats2023"  # BraTS-GLI 2023, BraTS-Africa (SSA), and this project's own output


STORED_LABELS: Final[Mapping[Convention, Mapping[int, Label]]] = MappingProxyType(
    {
        Convention.BRATS2021: MappingProxyType({0: Label.BACKGROUND, 1: Label.NETC, 2: Label.SNFH, 4: Label.ET}),
        Convention.BRATS2023: MappingProxyType({0: Label.BACKGROUND, 1: Label.NETC, 2: Label.SNFH, 3: Label.ET}),
    }
)

# Data sets that look alike but mean something else: named so that they are refused with the reason.
REFUSED_CONVENTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "brats2024": "BraTS-GLI 2024 is post-treatment: its label 4 is the resection cavity, which this network does not know",
        "decathlon": "Medical Decathlon Task01 keeps four modalities in one 4D file and swaps labels 1 and 2",
    }
)
