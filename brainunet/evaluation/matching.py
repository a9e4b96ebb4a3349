"""Which prediction belongs to which truth, by the names of the files."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from brainunet.errors import DataError
from brainunet.labels import MODALITY_ALIASES, SEGMENTATION_ALIASES
from brainunet.records import Problem

_NIFTI = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
# of a prediction, beside its segmentation (brainunet.prediction)
_NO_SEGMENTATIONS: Final = frozenset({"entropy", "probabilities"})
_LAST_WORD = re.compile(r"^(?P<case>.+)[-_](?P<word>[A-Za-z0-9]+)$")


@dataclass(frozen=True)
class Matched:
    """A case of which there are a prediction and a truth."""

    case_id: str
    predicted: Path
    truth: Path


def case_of(name: str) -> str | None:
    """The case whose segmentation a file is by its name; None for an image, a map of uncertainty and what is no NIfTI
    file.

    >>> case_of("BraTS-SSA-00002-000-seg.nii.gz"), case_of("BraTS2021_00059.nii"), case_of("BraTS2021_00059_t1ce.nii.gz")
    ('BraTS-SSA-00002-000', 'BraTS2021_00059', None)
    """
    stem = _NIFTI.sub("", name)
    if stem in ("", name) or name.startswith("."):
        return None
    match = _LAST_WORD.match(stem)
    word = match["word"].lower() if match else ""
    if match and word in SEGMENTATION_ALIASES:
        return match["case"]
    return None if word in MODALITY_ALIASES or word in _NO_SEGMENTATIONS else stem


def match_files(predictions: Path, truths: Path) -> tuple[list[Matched], list[Problem]]:
    """The cases found below both folders in order of their id, and each that is below one only, or twice, with the reason.

    Raises:
        DataError: no folder, or one without a segmentation.
    """
    predicted, problems = _segmentations(predictions)
    truth, others = _segmentations(truths)
    problems += others
    doubtful = {problem.case_id for problem in problems}
    for here, there, found, missing in (
        (predicted, truth, "a prediction", "truth"),
        (truth, predicted, "a truth", "prediction"),
    ):
        folder = truths if missing == "truth" else predictions
        for case_id in sorted(set(here) - set(there) - doubtful):
            error = DataError(
                case_id,
                found=f"{found} ({here[case_id].name}) without a {missing}",
                expected=f"{case_id}-seg.nii.gz below {folder.name or folder}",
                remedy="add the file, or leave the case out",
            )
            problems.append(Problem(case_id, str(error)))
    both = sorted(set(predicted) & set(truth))
    return [Matched(case_id, predicted[case_id], truth[case_id]) for case_id in both], problems


def _segmentations(root: Path) -> tuple[dict[str, Path], list[Problem]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in _files(root):
        if (case_id := case_of(path.name)) is not None:
            found[case_id].append(path)
    if not found:
        raise DataError(
            root,
            found="no file named like a segmentation",
            expected="files such as BraTS-SSA-00002-000-seg.nii.gz or BraTS-SSA-00002-000.nii.gz",
            remedy="point to the folder that holds them",
        )
    problems = []
    for case_id, paths in found.items():
        if len(paths) > 1:
            names = " and ".join(f"{path.parent.name}/{path.name}" for path in paths[:2])
            error = DataError(
                case_id,
                found=f"{len(paths)} files ({names})",
                expected=f"one segmentation of each case below {root.name or root}",
                remedy="keep the right one and move the others out of the folder",
            )
            problems.append(Problem(case_id, str(error)))
    return {case_id: paths[0] for case_id, paths in found.items() if len(paths) == 1}, problems


def _files(root: Path) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        raise DataError(
            Path(str(error.filename)),
            found=error.strerror or "a folder that can't be read",
            expected="a folder of segmentations",
            remedy="check the name, and that you may read it",
        )

    for folder, subfolders, names in os.walk(root, onerror=unreadable):
        subfolders.sort()
        yield from (Path(folder) / name for name in sorted(names))
