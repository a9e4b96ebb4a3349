"""The box plot of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brainunet.metrics import METRICS
from brainunet.metrics.report import STRUCTURES, score_case
from brainunet.pictures.score_boxes import plot_scores
from brainunet.records import CaseScore, CaseScoreRow
from tests.support.pace import first_fast


def scores(n: int) -> list[CaseScore]:
    generator = np.random.default_rng(0)
    maps = generator.integers(0, 4, size=(n, 2, 6, 6, 6), dtype=np.uint8)
    return [score_case(str(i), predicted, truth, (1.0, 1.0, 1.0)) for i, (predicted, truth) in enumerate(maps)]


@pytest.mark.parametrize("metrics", [tuple(METRICS), ("dice",), ("volume_ml",), ("dice", "hd95_mm", "nsd_1mm", "nsd_0_5mm")])
@pytest.mark.parametrize("n", first_fast(5, 1))
def test_a_picture_is_drawn_of_any_metrics_and_number_of_cases(tmp_path: Path, metrics: tuple[str, ...], n: int) -> None:
    plot_scores(tmp_path / "scores.png", scores(n), metrics, "a test")

    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_equal_scores_give_an_equal_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plot_scores(tmp_path / name, scores(3), ["dice"], "a test")

    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_values_that_are_missing_leave_their_place_empty(tmp_path: Path) -> None:
    nothing = CaseScore("a", tuple(CaseScoreRow(structure, "dice", None, "none") for structure in STRUCTURES))

    plot_scores(tmp_path / "scores.png", [nothing], ["dice"], "a test")

    assert (tmp_path / "scores.png").exists()


def test_nothing_to_draw_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a case and a metric"):
        plot_scores(tmp_path / "scores.png", [], ["dice"], "a test")
