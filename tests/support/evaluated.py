"""``brainunet evaluate`` and what it leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from brainunet.cli import main as brainunet
from tests.support.cases import AFRICA, tumour
from tests.support.nifti import write_nifti
from tests.support.simulation import Ended, run

OTHER = "BraTS-SSA-00003-000"


def evaluate(*arguments: str | Path) -> Ended:
    ended = run(brainunet, "evaluate", *arguments)
    assert "Traceback" not in ended.err
    return ended


def two_cases(folder: Path) -> tuple[Path, Path]:
    """Predictions and truths of two cases: one perfect, one moved by a voxel."""
    for case_id, shift in ((AFRICA, 0), (OTHER, 1)):
        write_nifti(folder / "pred" / f"{case_id}-seg.nii.gz", np.roll(tumour(), shift, axis=0))
        write_nifti(folder / "truth" / case_id / f"{case_id}-seg.nii.gz", tumour())
    return folder / "pred", folder / "truth"


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "cases.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def summary_of(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary
