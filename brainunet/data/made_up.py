"""The mark that made-up cases carry in their files, so that no model trained on them passes for one that knows patients."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from brainunet.data.volumes import description_of
from brainunet.errors import DataError
from brainunet.records import Case

MARK: Final = "brainunet phantom: made up, of no patient"  # in the header's 80 letters for a description


def is_made_up(case: Case) -> bool:
    """Whether a file of the case carries the mark. Other programs may drop it: no mark is no proof of a patient.

    Raises:
        UnreadableVolume: a header that can't be read.
    """
    return carries_mark([*case.images.values(), *([case.label] if case.label else [])])


def made_up_among(cases: Iterable[Case]) -> list[str]:
    """The ids of those that carry the mark; what can't be read is said when it is."""
    found = []
    for case in cases:
        with suppress(DataError):
            if is_made_up(case):
                found.append(case.case_id)
    return found


def carries_mark(paths: Iterable[Path]) -> bool:
    """Whether one of these files carries the mark.

    Raises:
        UnreadableVolume: a header that can't be read.
    """
    return any(description_of(path) == MARK for path in paths)
