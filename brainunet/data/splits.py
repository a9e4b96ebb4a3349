"""Who is trained on and who is scored: decided by a hash of the patient. A patient's visits never part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from brainunet.data.centres import centre_of
from brainunet.data.patients import patient_of, same_patients
from brainunet.errors import ConfigError
from brainunet.settings import Settings, nearest

Side = Literal["train", "validation"]
HELD_OUT = 0.2


def hold_out(
    case_ids: Iterable[str], before: Mapping[str, Side] = MappingProxyType({}), patients: Mapping[str, str] | None = None
) -> dict[str, Side]:
    """The side of each case: max(1, 20 %) of them, those of lowest hash, are held out for validation.

    A case (and every visit of its patient) keeps the side it had ``before``; new cases fill up what is missing. Of two or
    more patients one is left to train on; one alone is held out: with nothing to train on, the site only evaluates.

    Args:
        patients: case -> patient of every case; None goes by the names.

    >>> sides = hold_out([f"case{i}" for i in range(10)])
    >>> sorted(sides.values()).count("validation")
    2
    >>> hold_out([]), hold_out(["alone"])
    ({}, {'alone': 'validation'})
    """
    cases = sorted(set(case_ids))
    quota = max(1, int(HELD_OUT * len(cases)))
    of = patients or {case: patient_of(case) for case in (*cases, *before)}
    sides: dict[str, Side] = {of[case]: side for case, side in before.items()}
    visits: dict[str, int] = {}
    for case in cases:
        visits[of[case]] = visits.get(of[case], 0) + 1
    held = sum(n for patient, n in visits.items() if sides.get(patient) == "validation")
    new = sorted(visits.keys() - sides.keys(), key=_hash)
    for patient in new:
        # two patients are enough for two sides, however many visits the first of them has
        needed_to_train = patient == new[-1] and len(visits) > 1 and all(sides.get(p) != "train" for p in visits)
        sides[patient] = "validation" if held < quota and not needed_to_train else "train"
        held += visits[patient] if sides[patient] == "validation" else 0
    return {case: sides[of[case]] for case in cases}


def folds(case_ids: Iterable[str], count: int, seed: int = 42, patients: Mapping[str, str] | None = None) -> list[list[str]]:
    """The cases in ``count`` folds of nearly equal size, all of a patient in one; depends on names and seed alone.

    >>> [len(fold) for fold in folds([f"case{i}" for i in range(7)], 3)]
    [3, 2, 2]

    Args:
        patients: case -> patient of every case; None goes by the names.

    Raises:
        ConfigError: a fold would be empty.
    """
    visits: dict[str, list[str]] = {}
    for case in sorted(set(case_ids)):
        visits.setdefault(patients[case] if patients else patient_of(case), []).append(case)
    if not 2 <= count <= len(visits):
        raise ConfigError(
            "--folds",
            found=f"{count} folds of {len(visits)} patients",
            expected=f"2 to {len(visits)}" if len(visits) > 1 else "at least two patients",
            remedy="ask for fewer folds: one without a case has nothing to score",
        )
    dealt: list[list[str]] = [[] for _ in range(count)]
    # the patients with most visits first, each to the fold that has least
    for patient in sorted(visits, key=lambda name: (-len(visits[name]), _hash(f"{seed} {name}"))):
        min(dealt, key=len).extend(visits[patient])
    return [sorted(fold) for fold in dealt]


def by_centre(case_ids: Iterable[str]) -> dict[str, list[str]]:
    """The cases of each hospital that contributed to BraTS-Africa, by its name.

    Raises:
        ConfigError: a case that is none of theirs, or cases of a single hospital.
    """
    centres: dict[str, list[str]] = {}
    for case in sorted(set(case_ids)):
        centre = centre_of(case)
        if centre is None:
            raise ConfigError(
                "--by centre",
                found=f"{case}, whose name tells no centre",
                expected="BraTS-Africa names (BraTS-SSA-00002-000)",
                remedy="use --by fold for other data",
            )
        centres.setdefault(centre, []).append(case)
    if len(centres) < 2:
        raise ConfigError(
            "--by centre",
            found=f"cases of {len(centres)} centre",
            expected="at least two, to leave one out",
            remedy="use --by fold",
        )
    return dict(sorted(centres.items()))


class SplitConfig(Settings):
    """Which cases are kept aside to be scored.

    Attributes:
        by: "patients" keeps a fifth of the patients (see :func:`hold_out`), "fold" one of ``folds``, "centre" those of one
            hospital, "ids" the ``cases`` named, "none" nothing.
        fold: from 1.
        patients: case -> patient of every case, where names don't tell; empty goes by the names.
    """

    by: Literal["patients", "fold", "centre", "ids", "none"] = "patients"
    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    fold: Annotated[int, Field(ge=1)] = 1
    centre: str = ""
    cases: tuple[str, ...] = ()
    patients: Mapping[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """Case ids on two sides; no patient is on both."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def split_by(config: SplitConfig, case_ids: Iterable[str]) -> Split:
    """
    Raises:
        ConfigError: a fold, centre or case that is not there, a patient on both sides, or no case left to train on.
    """
    ids = sorted(set(case_ids))
    patients = same_patients(ids, config.patients)
    match config.by:
        case "patients":
            sides = hold_out(ids, patients=patients)
            aside = {case for case in ids if sides[case] == "validation"}
        case "fold":
            dealt = folds(ids, config.folds, patients=patients)
            if config.fold > len(dealt):
                raise ConfigError("--fold", found=str(config.fold), expected=f"1 to {len(dealt)}")
            aside = set(dealt[config.fold - 1])
        case "centre":
            centres = by_centre(ids)
            if config.centre not in centres:
                raise ConfigError(
                    "--leave-out",
                    found=f"{config.centre} ({nearest(config.centre, centres)})",
                    expected="a centre that contributed some of these cases",
                )
            aside = set(centres[config.centre])
        case "ids":
            aside = set(config.cases)
        case "none":
            aside = set()
    if strange := sorted(aside - set(ids)):
        raise ConfigError("--validation", found=f"{strange[0]} ({nearest(strange[0], ids)})", expected="cases of the data")
    train = [case for case in ids if case not in aside]
    if both := sorted({patients[case] for case in train} & {patients[case] for case in aside}):
        raise ConfigError("--validation", found=f"patient {both[0]} on both sides", expected="all of a patient's cases on one")
    if not train:
        remedy = "keep fewer aside; --validation none keeps none"
        raise ConfigError("the split", found="no case left to train on", expected="at least one", remedy=remedy)
    return Split(tuple(train), tuple(sorted(aside)))


def _hash(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest()
