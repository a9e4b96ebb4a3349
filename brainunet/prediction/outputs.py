"""The files of one segmented case, in a folder that is there whole or not at all (docs/adr/0024)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from brainunet.complaints import one_line
from brainunet.data.written_volumes import write_volume_like, write_volumes_like
from brainunet.errors import DataError
from brainunet.files import writing_aside
from brainunet.labels import LABELS, Region
from brainunet.pictures.prediction_report import write_prediction_report
from brainunet.pictures.preview import PURPOSE, draw_preview
from brainunet.prediction.components import Removed
from brainunet.prediction.grid import ReadCase
from brainunet.records import Case

FORMAT: Final = "brainunet-prediction-1"
REPORT: Final = "run_report.json"
STATISTICS: Final = "statistics.json"
PREVIEW: Final = "preview.png"
PAGE: Final = "report.html"
LABEL_NAMES: Final = "labels.json"
DEMO: Final = "DEMONSTRATION: model of made-up cases"
MOST_NAME_BYTES: Final = 200  # of a case: its files' names are longer, and a disk takes 255


@dataclass(frozen=True, eq=False)
class Segmented:
    """What is known of a case when its network has run; arrays are on the grid of the files, in canonical orientation.

    Attributes:
        name: of the case, as it is to be called in the output.
        reference: the file whose geometry the output takes.
        labels: (X, Y, Z).
        removed: region -> what small components were taken out of ``labels``.
        entropy: (X, Y, Z) of 0 to ENTROPY_STEPS, or None.
        probabilities: of each label (X, Y, Z), made as they are asked for, if they are to be written, else None.
        statistics: by region and label.
        review: rule -> reason.
        demo: the model was trained on made-up cases, or on none.
    """

    name: str
    reference: Path
    read: ReadCase
    labels: npt.NDArray[np.uint8]
    removed: Mapping[Region, Removed]
    entropy: npt.NDArray[np.uint8] | None
    probabilities: Iterator[npt.NDArray[np.float32]] | None
    statistics: Mapping[str, Mapping[str, Any]]
    review: Mapping[str, str]
    demo: bool

    @property
    def removed_told(self) -> dict[str, dict[str, Any]]:
        """For the files: by the region's name."""
        return {region.value: asdict(removed) for region, removed in self.removed.items()}


def write_case(folder: Path, case: Segmented, facts: Mapping[str, str]) -> list[str]:
    """Everything but the report of the run; gives the names of the files. ``facts`` are on how it was made, for the page.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    mark = DEMO if case.demo else "BrainUNet"
    seg = f"{case.name}-seg.nii.gz"
    write_volume_like(folder / seg, case.reference, case.labels, description=f"{mark}; research only")
    names = [seg]
    if case.entropy is not None:
        names.append(f"{case.name}-entropy.nii.gz")
        write_volume_like(folder / names[-1], case.reference, case.entropy, description=f"{mark}; entropy 0-255")
    if case.probabilities is not None:
        names.append(f"{case.name}-probabilities.nii.gz")
        told = f"{mark}; softmax of labels 0-3"
        write_volumes_like(folder / names[-1], case.reference, case.probabilities, len(LABELS), description=told)
    write_json(folder / LABEL_NAMES, {"convention": "brats2023", "labels": {label.value: label.name for label in LABELS}})
    write_json(
        folder / STATISTICS,
        {
            "purpose": PURPOSE,
            "demonstration": DEMO if case.demo else None,
            "needs_review": bool(case.review),
            "review": dict(case.review),
            "structures": case.statistics,
            "removed_components": case.removed_told,
        },
    )
    draw_preview(
        folder / PREVIEW,
        one_line(case.name, 60) + (" - please review" if case.review else ""),
        case.read.picture,
        case.labels,
        case.read.brain,
        case.read.spacing_mm,
        {name: float(case.statistics[name]["volume_ml"]) for name in ("ET", "TC", "WT")},
        demo=DEMO if case.demo else "",
    )
    write_prediction_report(
        folder / PAGE, case.name, folder / PREVIEW, case.statistics, case.review, facts, demo=DEMO if case.demo else ""
    )
    return [*names, LABEL_NAMES, STATISTICS, PREVIEW, PAGE]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented, for people too.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    with writing_aside(path, durable=False) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def report_of(folder: Path) -> dict[str, Any] | None:
    """The report of a case that was written before; None where there is none, or something else.

    >>> report_of(Path("nowhere")) is None
    True
    """
    try:
        told = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and told.get("format") == FORMAT else None


def input_digests(case: Case) -> dict[str, str]:
    """Modality -> SHA-256 of its file.

    Raises:
        DataError: a file that can't be read.
    """
    return {modality.value: _sha256(path) for modality, path in case.images.items()}


def _sha256(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # opening a pipe waits for ever, and a device has no end
            raise OSError(errno.EINVAL, "no file, but a folder, a pipe or a device")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            path,
            found=error.strerror or "a file that can't be read",
            expected="a NIfTI volume",
            remedy="check that it is there and that you may read it",
        ) from None


def require_short(name: str) -> None:
    """Pass if files can be named for a case of this name.

    Raises:
        DataError: it is too long.
    """
    if (length := len(os.fsencode(name))) > MOST_NAME_BYTES:
        raise DataError(
            one_line(name, 40),
            found=f"a name of {length} bytes",
            expected=f"at most {MOST_NAME_BYTES}, for files are named for the case",
            remedy="give it a shorter name with --pseudonym",
        )


def require_free(folder: Path) -> None:
    """Whether a case's folder may be written.

    Raises:
        DataError: it is there.
    """
    if folder.exists() or folder.is_symlink():
        raise DataError(
            folder,
            found="there is output of this name already",
            expected="a free place",
            remedy="say --resume to keep what is whole, --overwrite to replace it, or choose another folder",
        )


def require_replaceable(folder: Path, case: Case) -> None:
    """Pass if a folder that is there is an earlier output and nothing of the case is in it: it would go with the folder.

    Raises:
        DataError: it is somebody's own folder, or a link, or it holds a file of the case.
    """
    if folder.is_symlink() or report_of(folder) is None:
        raise DataError(
            folder,
            found="there is something of this name already that is no output of brainunet predict",
            expected="a free place, or an earlier output",
            remedy="move it away yourself, or choose another folder",
        )
    place = folder.resolve()
    for path in case.images.values():
        if path.absolute().is_relative_to(folder.absolute()) or path.resolve().is_relative_to(place):
            raise DataError(
                folder,
                found=f"{path.name} is in it, which is to be segmented and would be removed",
                expected="an output without files of the case",
                remedy="choose another folder with -o",
            )
