"""Learning curves show a region's figures only where a case has the region."""

from __future__ import annotations

from pathlib import Path

from brainunet.pictures.curves import draw_curves
from brainunet.records import Structure


def picture(folder: Path, *, et: float, without_et: int, cases: int = 3) -> bytes:
    """Curves of two scorings, the same but for the last Dice of ET and the number of cases that have none of it."""
    scores: list[tuple[int, dict[Structure, float | None]]] = [
        (1, {"ET": 0.25, "TC": 0.25, "WT": 0.25}),
        (2, {"ET": et, "TC": 0.5, "WT": 0.75}),
    ]
    empty: dict[Structure, int] = {"ET": without_et, "TC": 0, "WT": 0}
    draw_curves(folder / "curves.png", "a network", [0.5, 0.25], scores, cases, empty)
    return (folder / "curves.png").read_bytes()


def test_a_region_that_no_case_has_is_not_drawn_and_one_that_some_have_is(tmp_path: Path) -> None:
    assert picture(tmp_path, et=1.0, without_et=3) == picture(tmp_path, et=0.0, without_et=3)
    assert picture(tmp_path, et=1.0, without_et=2) != picture(tmp_path, et=0.0, without_et=2)


def test_the_legend_says_how_many_cases_are_without_a_region(tmp_path: Path) -> None:
    assert picture(tmp_path, et=0.5, without_et=1) != picture(tmp_path, et=0.5, without_et=2)
