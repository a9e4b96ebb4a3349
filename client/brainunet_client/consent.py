"""The register of cases that may not be used: a text file that the hospital keeps, read anew for every task.

One case id or patient id a line; ``#`` begins a comment. A patient's id takes out all visits of the patient, a case's id that
case alone. Where the register could be read in two ways, the one that takes out more is taken.
"""

from __future__ import annotations

import codecs
import logging
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from brainunet.data.patients import patient_of
from brainunet.errors import PrivacyError
from brainunet.records import Case

TEMPLATE: Final = """\
# Cases that may not be used: one case id (BraTS-SSA-00002-000) or patient id (BraTS-SSA-00002, all visits) a line.
# It holds from the next task on. What follows a "#" is a comment.
"""

_COMMENT = re.compile(r"(?:^|\s)#.*")  # not within a word: a case may be called patient#7

log = logging.getLogger(__name__)


def read_register(path: Path) -> frozenset[str]:
    """The ids in the register, as they are written there; a missing file excludes nobody.

    Raises:
        PrivacyError: the file is there and can't be read: then nobody knows whose cases may be used.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise PrivacyError(
            path,
            found=f"it can't be read: {error.strerror or error}",
            expected="a text file with the id of an excluded case on each line",
            remedy="make it readable for the user of brainunet-client; no case is used until then",
        ) from None
    # Windows' editor writes UTF-16 with its mark when asked for "Unicode"
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
        if "\0" in text:  # UTF-16 without its mark: no entry of it would be found
            raise ValueError
    except ValueError:
        raise PrivacyError(
            path,
            found="bytes that are no text",
            expected="a text file in UTF-8 with the id of an excluded case on each line",
            remedy="save it as plain text; no case is used until then",
        ) from None
    ids = (_COMMENT.sub("", line).strip() for line in text.splitlines())
    return frozenset(entry for entry in ids if entry)


def allowed(cases: Iterable[Case], register: Collection[str]) -> tuple[tuple[Case, ...], int]:
    """The cases that may be used, in their order, and how many were taken out.

    Entries that take out nothing are named in the site's own log: they may be misspelt.
    """
    found = tuple(cases)
    out = _taken_out(register)
    kept = tuple(case for case in found if not _names(case.case_id) & out)
    if unknown := without_effect((case.case_id for case in found), register):
        log.warning(
            "the register of excluded cases names %d that are not in the data: %s%s; check the spelling",
            len(unknown), ", ".join(unknown[:5]), ", ..." if len(unknown) > 5 else "",
        )  # fmt: skip
    return kept, len(found) - len(kept)


def without_effect(case_ids: Iterable[str], register: Collection[str]) -> Sequence[str]:
    """The entries that take out none of these cases, in order."""
    known = frozenset().union(*(_names(case_id) for case_id in case_ids))
    return sorted(entry for entry in register if not _taken_out([entry]) & known)


def _names(case_id: str) -> frozenset[str]:
    """What a case answers to: its own id and its patient's."""
    return frozenset((_same(case_id), _same(patient_of(case_id))))


def _taken_out(register: Collection[str]) -> frozenset[str]:
    # a visit's id takes out the visit, so its patient is not among these; one of two names of a patient stands for both
    patients = (patient_of(entry) for entry in register if not entry.casefold().startswith(f"{patient_of(entry)}-".casefold()))
    return frozenset(map(_same, register)) | frozenset(map(_same, patients))


def _same(name: str) -> str:
    """Ids that differ only in letter case, or in how their accents are written, are one."""
    return unicodedata.normalize("NFC", name.casefold())
