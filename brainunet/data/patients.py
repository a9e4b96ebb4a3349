"""Who a case is of: by its name, or by a hospital's own list where names don't tell. A patient's cases never part."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from brainunet.errors import ConfigError

COLUMNS: Final = ("case_id", "patient")
MAX_BYTES: Final = 50_000_000


# One patient under two names in BraTS 2021.
SAME_PATIENT: Final[Mapping[str, str]] = MappingProxyType(
    {"BraTS2021_00758": "BraTS2021_00626", "BraTS2021_00639": "BraTS2021_00557"}
)
_VISIT = re.compile(r"^BraTS-(?P<cohort>[A-Za-z]+)-(?P<number>\d{5})-\d{3}$", re.IGNORECASE)
_BRATS2021 = re.compile(r"^BraTS2021_(?P<number>\d{5})$", re.IGNORECASE)


def patient_of(case_id: str) -> str:
    """The patient of a case: visits share one, and so do the known pairs of BraTS 2021.

    >>> patient_of("brats-ssa-00002-001"), patient_of("BraTS2021_00758")
    ('BraTS-SSA-00002', 'BraTS2021_00626')
    """
    # cases are found in any letter case, and a patient has one name
    if match := _VISIT.match(case_id):
        return f"BraTS-{match['cohort'].upper()}-{match['number']}"
    if match := _BRATS2021.match(case_id):
        name = f"BraTS2021_{match['number']}"
        return SAME_PATIENT.get(name, name)
    return case_id


def read_patients(path: Path) -> dict[str, str]:
    """Case id -> patient, of a CSV file with the columns case_id and patient; others are passed over.

    Pseudonyms will do: the names are kept with the settings of a training, and tell nothing but who is the same.

    Raises:
        ConfigError: unreadable, without these columns, a line without one of the two, or a case of two patients.
    """
    told: dict[str, str] = {}
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _refused(path, f"more than {MAX_BYTES // 10**6} MB")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
                raise _refused(path, f"no column {' and no column '.join(missing)}")
            for row in rows:
                case, patient = ((row[name] or "").strip() for name in COLUMNS)
                if not case or not patient:
                    raise _refused(path, f"line {rows.line_num} without {'a case' if not case else 'a patient'}")
                if told.setdefault(case, patient) != patient:
                    raise _refused(path, f"line {rows.line_num}: {case} of a second patient")
    except OSError as error:
        raise _refused(path, error.strerror or "not readable") from None
    except (UnicodeDecodeError, csv.Error):
        raise _refused(path, "no text in UTF-8 with commas") from None
    if not told:
        raise _refused(path, "no case")
    return told


def same_patients(case_ids: Iterable[str], told: Mapping[str, str]) -> dict[str, str]:
    """Case -> patient. Cases are of one if the list says so or their names do: neither can part what the other joins.

    Without a list the names alone tell; with one it must have every case, so that no slip of the pen parts a patient.

    >>> same_patients(["a1", "a2", "b"], {"a1": "anna", "a2": "anna", "b": "ben"})
    {'a1': 'anna', 'a2': 'anna', 'b': 'ben'}

    Raises:
        ConfigError: a case that is not in the list.
    """
    ids = sorted(set(case_ids))
    if not told:
        return {case: patient_of(case) for case in ids}
    if unknown := [case for case in ids if case not in told]:
        raise ConfigError(
            "--patients",
            found=f"no line for {unknown[0]}" + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""),
            expected="a line for every case of the data",
            remedy="add them; a patient with one case needs a name of its own",
        )
    first: dict[str, str] = {}  # by name: the first patient that the list tells for it
    joined: dict[str, str] = {}  # patient -> the one it is the same as

    def known_as(patient: str) -> str:
        while patient in joined:
            patient = joined[patient]
        return patient

    for case in ids:
        one, other = sorted((known_as(told[case]), known_as(first.setdefault(patient_of(case), told[case]))))
        if one != other:
            joined[other] = one
    return {case: known_as(told[case]) for case in ids}


def _refused(path: Path, found: str) -> ConfigError:
    return ConfigError(
        path,
        found=found,
        expected="a CSV file with the columns case_id and patient, a line for each case",
        remedy="write one, with a pseudonym for each patient",
    )
