"""One case after the other, from files or from a model; what can't be scored is a problem, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainunet.data.cases import convention_of
from brainunet.data.preprocess import read_label
from brainunet.data.volumes import describe_grid, read_volume, same_grid
from brainunet.errors import DataError, GeometryMismatch, UnsupportedConvention
from brainunet.evaluation.matching import Matched
from brainunet.labels import Convention
from brainunet.metrics.report import score_case
from brainunet.records import CaseScore, Problem, Volume

LabelMap = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Conventions:
    """Which numbers the files use.

    Attributes:
        predicted: of the predictions. A prediction's name is that of its images and does not tell who wrote it, so names are
            not asked: unless a person says otherwise it is the convention of this project's own output.
        truth: of the truths; None asks their names.
    """

    predicted: Convention = Convention.BRATS2023
    truth: Convention | None = None


def score_files(pair: Matched, conventions: Conventions, metrics: Sequence[str]) -> CaseScore:
    """The scores of one prediction; the two files may lie in any orientation of one grid.

    Raises:
        DataError: a file that can't be read, two grids, a label that the convention does not know, a truth without a tumour.
    """
    truth_numbers = _numbers_of_truth(pair.case_id, conventions.truth)
    truth, truth_labels = _read("truth", pair.truth, truth_numbers, may_be_empty=False)
    predicted, predicted_labels = _read("prediction", pair.predicted, conventions.predicted, may_be_empty=True)
    if not same_grid(predicted, truth):
        raise GeometryMismatch(
            f"prediction {pair.predicted.name}",
            found=describe_grid(predicted),
            expected=f"the grid of its truth: {describe_grid(truth)}",
            remedy="resample the prediction to the grid of the case's images, by nearest neighbour",
        )
    return score_case(pair.case_id, predicted_labels, truth_labels, truth.spacing_mm, metrics)


def score_all(
    works: Iterable[tuple[str, Callable[[], CaseScore]]], on_case: Callable[[], object] = lambda: None
) -> tuple[list[CaseScore], list[Problem]]:
    """Case after case, so that only one is in memory: the scores, and for each case without any the reason."""
    scores, problems = [], []
    for case_id, work in works:
        try:
            scores.append(work())
        except DataError as error:
            problems.append(Problem(case_id, str(error)))
        on_case()
    return scores, problems


def _numbers_of_truth(case_id: str, asked: Convention | None) -> Convention:
    known = convention_of(case_id)  # also refuses look-alikes, whatever was asked for
    if asked is None and known is None:
        raise UnsupportedConvention(
            case_id,
            found="a name that does not tell which numbers its truth uses",
            expected="a BraTS 2021 or BraTS 2023+ name",
            remedy="say --truth-convention brats2021 (enhancing tumour is 4) or brats2023 (it is 3)",
        )
    convention = asked or known
    assert convention is not None
    return convention


def _read(role: str, path: Path, convention: Convention, *, may_be_empty: bool) -> tuple[Volume, LabelMap]:
    option = "--truth-convention" if role == "truth" else "--pred-convention"
    try:
        volume = read_volume(path)
        return volume, read_label(path, volume, convention, option=option, may_be_empty=may_be_empty)
    except DataError as error:  # the two often have one name: say which it is
        raise type(error)(f"{role} {path.name}", found=error.found, expected=error.expected, remedy=error.remedy) from None
