"""Trainings of one machine that take parts of a second."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from brainunet.cli import main as brainunet
from tests.support.cases import write_case
from tests.support.simulation import Ended, run

IDS = [f"BraTS-SSA-{number:05d}-000" for number in (2, 3, 110, 111, 123, 124)]
TINY = (
    *("--preset", "brainunet-nano", "--set", "train.patch=[16,16,16]", "--set", "train.batch_size=1"),
    *("--set", "train.precision=fp32", "--set", "train.steps=6", "--set", "score_every=4"),
)


def write_cases(folder: Path) -> Path:
    """Two cases of each of three centres."""
    for case in IDS:
        write_case(folder, case)
    return folder


def trained(data: Path, out: Path, *arguments: str) -> Ended:
    return run(brainunet, "train", "--data", data, "--out", out, *TINY, *arguments)


def summary_of(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
