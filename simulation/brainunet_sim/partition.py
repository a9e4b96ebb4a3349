"""How cases are dealt out to virtual sites. Patients stay whole; every site gets at least two, one to train and one to score.

A partition takes patients and a number of sites and returns site -> patients; PARTITIONS names them.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from brainunet.data.centres import centre_of
from brainunet.data.patients import patient_of
from brainunet.errors import ConfigError, UsageError
from brainunet.settings import nearest
from brainunet_sim.scenario import PartitionConfig

MIN_PATIENTS = 2
DEFAULT_SITES = 3
_SITE = re.compile(r"^[A-Za-z0-9_-]{1,20}$")
VOLUME_BINS = 4


@dataclass(frozen=True)
class Patient:
    """All cases of a patient, and the largest whole tumour among them."""

    cases: tuple[str, ...]
    tumour_ml: float


Sites: TypeAlias = dict[str, list[Patient]]
Partition: TypeAlias = Callable[[Sequence[Patient], int | None, PartitionConfig, np.random.Generator], Sites]


def partition(tumour_ml: Mapping[str, float], sites: int | None, config: PartitionConfig, seed: int) -> dict[str, list[str]]:
    """Site -> case ids, both in order; depends on nothing but the arguments.

    Args:
        tumour_ml: case id -> volume of the whole tumour.
        sites: how many; None lets the partition choose.

    Raises:
        ConfigError: an unknown partition, or too few patients for the sites.
    """
    patients = partition_named(config.name)(_patients(tumour_ml), sites, config, np.random.default_rng(seed))
    return _whole({site: [case for patient in own for case in patient.cases] for site, own in patients.items()})


def partition_named(name: str) -> Partition:
    """A line of PARTITIONS.

    Raises:
        ConfigError: there is no such line.
    """
    if name not in PARTITIONS:
        raise ConfigError("--partition", found=f"{name!r} ({nearest(name, PARTITIONS)})", expected=" or ".join(PARTITIONS))
    return PARTITIONS[name]


def partition_from_file(path: Path, known: Sequence[str]) -> dict[str, list[str]]:
    """A FeTS partition file: columns ``Partition_ID`` and ``Subject_ID``; cases that are not there are left out.

    Raises:
        UsageError: unreadable, other columns, a case in two sites, or no case of it in the data.
        ConfigError: a site with too few patients.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
            rows = [(row["Partition_ID"].strip(), row["Subject_ID"].strip()) for row in csv.DictReader(file)]
    except (OSError, KeyError, AttributeError, UnicodeDecodeError, csv.Error):
        raise UsageError(path, found="not a partition file", expected="CSV columns Partition_ID and Subject_ID") from None
    dealt: dict[str, list[str]] = defaultdict(list)
    homes: dict[str, str] = {}
    for site, case in rows:
        if case in known:
            if homes.setdefault(patient_of(case), site) != site:
                raise UsageError(path, found=f"the patient of {case} in two sites", expected="each patient in one")
            if not _SITE.match(site):
                raise UsageError(path, found=f"partition {site[:40]!r}", expected="a number or a word of letters and digits")
            dealt[f"site-{site}"].append(case)
    if not dealt:
        raise UsageError(path, found="none of its cases in the data", expected="case ids such as BraTS-SSA-00002-000")
    return _whole(dealt)


def _whole(dealt: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Sites and cases in order, each case once.

    Raises:
        ConfigError: a site with too few patients to train and to score.
    """
    sites = {site: sorted(set(cases)) for site, cases in sorted(dealt.items())}
    for site, cases in sites.items():
        if (patients := len({patient_of(case) for case in cases})) < MIN_PATIENTS:
            raise ConfigError(
                site,
                found=f"{patients or 'no'} patient{'s' if not patients else ''}",
                expected=f"at least {MIN_PATIENTS}, one to train on and one to score",
                remedy="give more cases, or ask for fewer sites or another partition",
            )
    return sites


def _iid(patients: Sequence[Patient], sites: int | None, config: PartitionConfig, rng: np.random.Generator) -> Sites:
    """Shuffled and dealt like cards: sites differ by one patient at most."""
    del config
    number = sites or DEFAULT_SITES
    order = rng.permutation(len(patients))
    return {f"site-{i + 1}": [patients[j] for j in order[i::number]] for i in range(number)}


def _centre(patients: Sequence[Patient], sites: int | None, config: PartitionConfig, rng: np.random.Generator) -> Sites:
    """One site for each hospital that contributed to BraTS-Africa, told by the case number."""
    del config, rng
    dealt: Sites = defaultdict(list)
    for patient in patients:
        centre = centre_of(patient.cases[0])
        if centre is None:
            raise ConfigError(
                f"case {patient.cases[0]}",
                found="a name that tells no contributing centre",
                expected="a BraTS-Africa case such as BraTS-SSA-00002-000",
                remedy="choose another --partition",
            )
        dealt[centre].append(patient)
    if sites is not None and sites != len(dealt):
        raise ConfigError(
            "--sites",
            found=f"{sites}",
            expected=f"{len(dealt)}, the centres of these cases ({', '.join(sorted(dealt))})",
            remedy="leave --sites out with --partition centre",
        )
    return dict(dealt)


def _size(patients: Sequence[Patient], sites: int | None, config: PartitionConfig, rng: np.random.Generator) -> Sites:
    """Sorted by tumour volume and cut into equal parts: site-1 has the smallest tumours."""
    del config, rng
    number = sites or DEFAULT_SITES
    ordered = sorted(patients, key=lambda patient: (patient.tumour_ml, patient.cases))
    cuts = [round(i * len(ordered) / number) for i in range(number + 1)]
    return {f"site-{i + 1}": ordered[cuts[i] : cuts[i + 1]] for i in range(number)}


def _dirichlet(patients: Sequence[Patient], sites: int | None, config: PartitionConfig, rng: np.random.Generator) -> Sites:
    """Each quartile of tumour volume is dealt by its own draw of shares (Hsu et al., 2019, arXiv:1909.06335)."""
    number = sites or DEFAULT_SITES
    ordered = sorted(patients, key=lambda patient: (patient.tumour_ml, patient.cases))
    dealt: Sites = {f"site-{i + 1}": [] for i in range(number)}
    names = list(dealt)
    cuts = [round(i * len(ordered) / VOLUME_BINS) for i in range(VOLUME_BINS + 1)]
    for start, stop in pairwise(cuts):
        shares = rng.dirichlet([config.alpha] * number)
        for patient in ordered[start:stop]:
            dealt[names[rng.choice(number, p=shares)]].append(patient)
    # a site too small to train and score takes from the largest
    while len(patients) >= MIN_PATIENTS * number and min(map(len, dealt.values())) < MIN_PATIENTS:
        poorest = min(names, key=lambda name: (len(dealt[name]), name))
        richest = max(names, key=lambda name: (len(dealt[name]), name))
        dealt[poorest].append(dealt[richest].pop())
    return dealt


PARTITIONS: Final[Mapping[str, Partition]] = MappingProxyType(
    {"iid": _iid, "centre": _centre, "size": _size, "dirichlet": _dirichlet}
)


def _patients(tumour_ml: Mapping[str, float]) -> list[Patient]:
    cases: dict[str, list[str]] = defaultdict(list)
    for case in sorted(tumour_ml):
        cases[patient_of(case)].append(case)
    return [Patient(tuple(ids), max(tumour_ml[case] for case in ids)) for _, ids in sorted(cases.items())]
