"""What `brainunet check` says of studies that a test has spoilt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from brainunet.cli import main as brainunet
from brainunet.labels import Modality
from tests.support.simulation import run
from tests.support.studies import sound, write_study
from tests.support.study_faults import FIRING

GOOD, OTHER = "BraTS-SSA-00002-000", "BraTS-SSA-00003-000"


def write(folder: Path, case_id: str = GOOD, *faults: str) -> Path:
    """A study with these faults; different cases have different images."""
    study = sound()
    image = study.images[Modality.T1C]
    for modality in study.images:
        study.images[modality][tuple(np.argwhere(image)[9])] += sum(map(ord, case_id)) % 97
    for fault in faults:
        FIRING[fault](study)
    write_study(study, folder, case_id)
    return folder / case_id


def found_in(folder: Path, *arguments: str) -> dict[str, list[str]]:
    """Case id -> checks that found something in it, by the JSON."""
    told = json.loads(run(brainunet, "check", folder, "--json", *arguments).out)
    return {case["case"]: [finding["check"] for finding in case["findings"]] for case in told["cases"]}
