"""The cases of a folder that can be worked with: found, read and preprocessed once, the others named with the reason."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.data.made_up import is_made_up
from brainunet.errors import DataError
from brainunet.labels import Convention, Modality
from brainunet.records import Case, Problem

# what is being done, how far, of how many
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True)
class UsableCases:
    """Cases that could be read, with their tumour's volume, and those that could not.

    Attributes:
        made_up: those among ``cases`` that are marked as made up.
    """

    cases: Mapping[str, Case]
    tumour_ml: Mapping[str, float]
    made_up: frozenset[str]
    skipped: tuple[Problem, ...]

    def kind_of(self, case_ids: Collection[str]) -> Literal["phantoms", "real cases", "phantoms and real cases"]:
        """What these cases are, by their files' marks."""
        n = len(self.made_up.intersection(case_ids))
        return "real cases" if n == 0 else "phantoms" if n == len(set(case_ids)) else "phantoms and real cases"


def usable_cases(
    folder: Path,
    cache: CaseCache,
    modalities: Sequence[Modality],
    preprocess: PreprocessConfig,
    convention: Convention | None,
    on_progress: Progress,
) -> UsableCases:
    """Every case below ``folder`` that can be read, preprocessed once into the cache.

    Raises:
        DataError: none is usable; the message lists the reasons.
    """
    found = find_cases(folder, modalities=modalities, convention=convention)
    usable: dict[str, Case] = {}
    tumour_ml: dict[str, float] = {}
    made_up = set[str]()
    problems = list(found.problems)
    for number, case in enumerate(found.cases, start=1):
        try:
            prepared, marked = cache.get(case, modalities, preprocess), is_made_up(case)
        except DataError as error:
            problems.append(Problem(case.case_id, str(error)))
        else:
            assert prepared.label is not None
            usable[case.case_id] = case
            made_up |= {case.case_id} if marked else set()
            tumour_ml[case.case_id] = np.count_nonzero(prepared.label) * float(np.prod(prepared.spacing_mm)) / 1000
        on_progress("reading cases", number, len(found.cases))
    if not usable:
        raise no_usable_case(folder, problems)
    return UsableCases(usable, tumour_ml, frozenset(made_up), tuple(problems))


def no_usable_case(folder: Path, problems: Sequence[Problem]) -> DataError:
    """The refusal of a folder, with the reason of each of its cases."""
    reasons = "".join(f"\n  {problem.reason}" for problem in problems)
    return DataError(
        folder, found=f"no usable case of {len(problems)}:{reasons.rstrip('.')}", remedy="mend the files named above"
    )
