"""Tiny cases on disk, and what an error has to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainunet.data.cases import find_cases
from brainunet.errors import BrainUNetError
from brainunet.labels import Modality
from brainunet.records import Case
from tests.support.nifti import write_nifti

Array = npt.NDArray[Any]
SHAPE = (12, 11, 10)
AFRICA = "BraTS-SSA-00002-000"
GLI_2021 = "BraTS2021_00059"


def head(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> npt.NDArray[np.int16]:
    """Zeros around a brain (two voxels from every face) whose intensities are never 0 and sometimes negative."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, np.int16)
    inside = tuple(slice(2, side - 2) for side in shape)
    brain = rng.integers(-40, 400, size=image[inside].shape)
    image[inside] = np.where(brain == 0, 1, brain)
    return image


def tumour(shape: tuple[int, int, int] = SHAPE, *, enhancing: int = 3) -> npt.NDArray[np.uint8]:
    """A segmentation with every label of its convention, whose enhancing tumour has the given number."""
    label = np.zeros(shape, np.uint8)
    label[4:8, 4:8, 4:8] = 2
    label[5:7, 5:7, 5:7] = 1
    label[5, 5, 5] = enhancing
    return label


def write_case(
    folder: Path,
    case_id: str = AFRICA,
    *,
    images: Mapping[str, Array] | None = None,
    label: Array | None = None,
    suffix: str = ".nii.gz",
    **header: Any,
) -> Path:
    """One case in ``folder/case_id``, by BraTS 2023+ names unless ``images`` has others; ``label`` None writes a tumour."""
    images = {m: head(seed) for seed, m in enumerate(Modality)} if images is None else images
    label = tumour() if label is None else label
    separator = "-" if "-" in case_id else "_"
    for kind, array in [*images.items(), ("seg", label)]:
        write_nifti(folder / case_id / f"{case_id}{separator}{kind}{suffix}", array, **header)
    return folder / case_id


def touch_case(folder: Path, case_id: str, kinds: Sequence[str], *, separator: str = "-", suffix: str = ".nii.gz") -> None:
    """Files that have a case's names and no content, for what goes by names alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        (folder / f"{case_id}{separator}{kind}{suffix}").touch()


def only_case(folder: Path, **options: Any) -> Case:
    """The single usable case below ``folder``."""
    found = find_cases(folder, **options)
    assert found.problems == ()
    (case,) = found.cases
    return case


def assert_helps(error: BrainUNetError, *, where: str, found: str, exit_code: int) -> None:
    """The error is one sentence and one piece of advice: which file, what was found, what was expected, what to do."""
    assert error.where == where
    assert found in error.found
    assert error.exit_code == exit_code
    assert error.expected
    assert error.remedy
    assert_reads_well(str(error), where)


def assert_reads_well(message: str, where: str) -> None:
    assert message.startswith(f"{where}: ")
    assert ", but expected " in message
    assert message.endswith(".")
    assert ".." not in message.replace("...", "")
    assert "\n" not in message
    assert "None" not in message
    advice = message.partition(", but expected ")[2].partition(". ")[2]
    assert advice[:1].isupper() or advice.startswith("--"), message
