"""What each case is called in the output: by its own name, or by a pseudonym that stays with the patient it was given to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from brainunet.errors import DataError
from brainunet.files import clear_folders
from brainunet.prediction.outputs import input_digests, report_of
from brainunet.records import Case

Digests = frozenset[str]


def named(cases: Sequence[Case], pseudonym: str | None, out: Path) -> list[tuple[str, Case]]:
    """Each case with its name in the output ``out``, to which nobody else may write now.

    Without a pseudonym that is the case's own. With one a single case is called by it, and several NAME-001, NAME-002, and so
    on: a case whose files were segmented there before keeps its number, and new ones get numbers that nobody has had.

    Raises:
        DataError: a name that is none for a folder, or the pseudonym of another patient.
    """
    if pseudonym is None:
        for case in cases:
            if case.case_id in ("", ".", ".."):
                raise DataError(
                    case.case_id or "case",
                    found="a name that is none for a folder",
                    expected="files or a folder named for the case",
                    remedy="give it a name with --pseudonym",
                )
        return [(case.case_id, case) for case in cases]
    if out.is_dir():
        clear_folders(out)  # gives its name back to one that was being replaced when the power went
    given = _given(pseudonym, out)
    if len(cases) == 1 and not any(name != pseudonym for name in given):
        if pseudonym in given and given[pseudonym] != _digests(cases[0]):
            raise DataError(
                out / pseudonym,
                found="results of other files under this pseudonym",
                expected="a pseudonym for one patient only",
                remedy="choose another --pseudonym, or remove that folder if the files were corrected",
            )
        return [(pseudonym, cases[0])]
    before = {digests: name for name, digests in given.items()}
    number = max((int(name.rpartition("-")[2]) for name in given if name != pseudonym), default=0)
    names = []
    for case in cases:
        digests = _digests(case)
        name = before.get(digests) if digests else None
        if name is None:
            number += 1
            name = f"{pseudonym}-{number:03d}"
        names.append((name, case))
    return names


def _digests(case: Case) -> Digests:
    """Of its files; none of a case that can't be read, which is told when its turn comes."""
    try:
        return frozenset(input_digests(case).values())
    except DataError:
        return frozenset()


def _given(pseudonym: str, out: Path) -> Mapping[str, Digests]:
    """Name -> digests of the files behind it, of what was segmented under this pseudonym before."""
    pattern = re.compile(rf"{re.escape(pseudonym)}(-\d{{3,9}})?")
    given: dict[str, Digests] = {}
    for folder in sorted(out.iterdir()) if out.is_dir() else ():
        if pattern.fullmatch(folder.name):
            report = report_of(folder)
            told = report.get("inputs_sha256") if report else None
            # a folder that tells nothing takes its number all the same
            given[folder.name] = frozenset(map(str, told.values())) if isinstance(told, dict) else frozenset()
    return given
