"""What an evaluation leaves: a row for each figure of each case, and a summary with all that it depends on."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from brainunet import __version__
from brainunet.files import writing_aside
from brainunet.metrics.lesions import DILATIONS, SMALLEST_MM3
from brainunet.metrics.report import STRUCTURES
from brainunet.metrics.surface import MISSED_MM
from brainunet.records import CaseScore, Problem

FORMAT = "brainunet-evaluation-1"


def summarise(
    scores: Sequence[CaseScore],
    problems: Sequence[Problem],
    metrics: Sequence[str],
    settings: Mapping[str, Any],
    made_up: int = 0,
) -> dict[str, Any]:
    """Mean, quartiles, n and missing for each region and metric, as plain data; a figure of no case is None.

    ``n`` cases have a value and ``missing`` have none; cases that could not be scored at all are ``problems``;
    ``made_up`` of them carry the mark of cases that are of no patient.
    """
    values: dict[tuple[str, str], list[float | None]] = {}
    for case in scores:
        for row in case.rows:
            values.setdefault((row.structure, row.metric), []).append(row.value)
    return {
        "format": FORMAT,
        "cases": len(scores),
        "made_up_cases": made_up,
        "scores": {
            structure: {metric: _figures(values.get((structure, metric), [])) for metric in metrics} for structure in STRUCTURES
        },
        "problems": [{"case_id": problem.case_id, "reason": problem.reason} for problem in problems],
        "settings": {
            **settings,
            "metrics": list(metrics),
            "lesions": {"dilations": DILATIONS, "smallest_mm3": SMALLEST_MM3},
            "missed_mm": MISSED_MM,
        },
        "versions": {
            "brainunet": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    with writing_aside(path) as aside:
        aside.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_cases(path: Path, scores: Sequence[CaseScore]) -> None:
    """A CSV file in long form: case_id, region, metric, value, and the reason where there is no value."""
    # file names may hold what is not text; they are written readably rather than not at all
    with writing_aside(path) as aside, aside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = csv.writer(file)
        rows.writerow(("case_id", "region", "metric", "value", "reason"))
        for case in scores:
            for row in case.rows:
                value = "" if row.value is None else f"{row.value:.9g}"
                rows.writerow((case.case_id, row.structure, row.metric, value, row.reason or ""))


def _figures(values: Sequence[float | None]) -> dict[str, float | int | None]:
    known = [value for value in values if value is not None]
    figures: dict[str, float | int | None] = dict.fromkeys(("mean", "median", "lower_quartile", "upper_quartile"))
    if known:
        low, middle, high = (float(x) for x in np.percentile(known, (25, 50, 75)))
        figures = {"mean": float(np.mean(known)), "median": middle, "lower_quartile": low, "upper_quartile": high}
    return {**figures, "n": len(known), "missing": len(values) - len(known)}
