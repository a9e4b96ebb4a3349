"""Lines, spreads and gains, by numbers worked out by hand, and against the federation's own mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.metrics.summary import federation_mean
from brainunet_dashboard.queries import figures
from brainunet_dashboard.queries.figures import NO_CASE, WITHHELD, Point
from brainunet_server.store.reader import Figure, site_scores
from brainunet_server.store.rows import Score
from tests.support.watched import answer


def row(model: int, site: str, mean: float | None, n: int = 10, structure: str = "WT") -> Figure:
    return Figure(model, site, structure, mean, mean, n, 0)


def test_the_mean_counts_cases_and_not_sites() -> None:
    lines = figures.lines_of([row(0, "A", 0.2, 1), row(0, "B", 0.8, 3)], [], "WT")

    assert [(point.round, point.n) for point in lines.overall] == [(0, 4)]
    assert lines.overall[0].value == pytest.approx(0.65)  # (0.2 + 3 * 0.8) / 4
    assert lines.sites == {"A": [Point(0, 0.2, 1)], "B": [Point(0, 0.8, 3)]}


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ABC"), st.none() | st.floats(0, 1), st.integers(1, 9))))
def test_the_mean_is_that_of_the_federation(told: list[tuple[int, str, float | None, int]]) -> None:
    once = {(model, site): (mean, n) for model, site, mean, n in told}
    found = figures.lines_of([row(model, site, mean, n) for (model, site), (mean, n) in once.items()], [], "WT").overall
    scores = [
        Score(run_id="r", round=k, site=s, structure="WT", metric="dice", mean=mean, median=None, n=n, missing=0)
        for (k, s), (mean, n) in once.items()
    ]
    expected = {number: federation_mean(sites.values())["WT"] for number, sites in site_scores(scores).items()}

    assert {point.round: point.value for point in found} == pytest.approx(expected)


def test_a_site_that_withholds_has_a_point_without_a_value_in_the_round_of_the_model_it_was_sent() -> None:
    lines = figures.lines_of([row(0, "A", 0.5)], [answer("r", 1, "tiny", withheld=True, n=2)], "WT")

    assert lines.sites["tiny"] == [Point(0, None, 2, WITHHELD)]
    assert lines.overall == [Point(0, 0.5, 10)]


def test_no_case_with_a_value_is_something_else_than_a_withheld_figure() -> None:
    lines = figures.lines_of([row(0, "A", None, 0), row(0, "B", None, 2)], [], "WT")

    assert [line[0].why for line in lines.sites.values()] == [NO_CASE, WITHHELD]
    assert lines.latest is None


def test_other_structures_are_left_out() -> None:
    assert figures.lines_of([row(0, "A", 0.5, structure="ET")], [], "WT") == figures.Lines({}, [])


@pytest.mark.parametrize(
    ("values", "falls"),
    [
        ([0.9, 0.8, 0.7, 0.6], True),
        ([0.1, 0.9, 0.8, 0.7, 0.6], True),
        ([0.9, 0.8, 0.7], False),  # two falls
        ([0.9, 0.8, 0.8, 0.7], False),
        ([0.9, 0.8, 0.7, 0.75], False),
        ([0.9, 0.8, None, 0.7, 0.6], True),  # a withheld round in between is no rise
    ],
)
def test_falling_is_three_rounds_running(values: list[float | None], falls: bool) -> None:
    lines = figures.lines_of([row(k, "A", value) for k, value in enumerate(values)], [], "WT")

    assert figures.falling(lines) == (["A"] if falls else [])


def test_a_site_that_fell_and_is_no_longer_heard_is_not_falling_now() -> None:
    old = [row(k, "A", 0.9 - 0.1 * k) for k in range(4)]

    assert figures.falling(figures.lines_of([*old, row(4, "B", 0.5)], [], "WT")) == []


def test_of_a_distance_falling_means_rising() -> None:
    lines = figures.lines_of([row(k, "A", 5.0 + k) for k in range(4)], [], "WT")

    assert figures.falling(lines, higher_is_better=False) == ["A"]


def test_spread_is_from_the_worst_site_to_the_best() -> None:
    lines = figures.lines_of([row(0, "A", 0.5), row(0, "B", 0.9), row(0, "C", 0.7)], [], "WT")
    found = figures.spread(lines, 0)

    assert (found.worst, found.best) == (("A", 0.5), ("B", 0.9))
    assert found.width == pytest.approx(0.4)
    assert found.n_worst == 10
    assert figures.spread(lines, 0, higher_is_better=False).worst == ("B", 0.9)
    assert figures.spread(lines, 7).width is None


def test_the_latest_table_says_what_changed() -> None:
    lines = figures.lines_of([row(0, "A", 0.5), row(1, "A", 0.7), row(2, "A", 0.6), row(1, "B", 0.4)], [], "WT")
    a, b = figures.latest_table(lines)

    assert (a["value"], a["since_last"], a["since_start"]) == (0.6, pytest.approx(-0.1), pytest.approx(0.1))
    assert (b["value"], b["since_last"], b["note"]) == (None, None, "absent")


def test_where_every_site_withholds_each_has_its_reason() -> None:
    lines = figures.lines_of([], [answer("r", k, s, withheld=True, n=2) for k in (1, 2) for s in "AB"], "WT")

    assert (lines.latest, lines.last) == (None, 1)
    assert [(r["round"], r["value"], r["n"], r["note"]) for r in figures.latest_table(lines)] == [(1, None, 2, WITHHELD)] * 2


def test_a_change_since_the_round_before_is_none_where_that_round_has_no_figure() -> None:
    lines = figures.lines_of([row(k, s, 0.1 * k) for s, ks in (("A", (0, 1, 2)), ("B", (0, 2))) for k in ks], [], "WT")

    assert [(r["since_last"], r["since_start"]) for r in figures.latest_table(lines)] == [
        (pytest.approx(0.1), pytest.approx(0.2)),
        (None, pytest.approx(0.2)),
    ]


def test_a_site_that_came_later_has_no_change_since_the_start() -> None:
    lines = figures.lines_of([row(0, "A", 0.5), row(1, "B", 0.4), row(2, "A", 0.5), row(2, "B", 0.6)], [], "WT")

    assert [r["since_start"] for r in figures.latest_table(lines)] == [pytest.approx(0.0), None]


def test_a_distribution_counts_each_site_once() -> None:
    lines = figures.lines_of([row(0, s, v, n) for s, v, n in (("A", 0.1, 99), ("B", 0.3, 1), ("C", 0.5, 1))], [], "WT")

    assert figures.distribution(lines) == [
        {"round": 0, "sites": 3, "least": 0.1, "q1": pytest.approx(0.2), "median": 0.3, "q3": pytest.approx(0.4), "most": 0.5}
    ]


def test_a_distribution_of_one_site_is_that_site() -> None:
    assert figures.distribution(figures.lines_of([row(0, "A", 0.4)], [], "WT"))[0]["q1"] == 0.4


def test_best_and_worst_round_are_by_the_mean_over_the_regions() -> None:
    rows = [
        row(k, "A", v, structure=s)
        for k, values in enumerate([(0.2, 0.4, 0.6), (0.9, 0.9, 0.3), (0.5, 0.5, 0.5)])
        for s, v in zip(("ET", "TC", "WT"), values, strict=True)
    ]

    assert figures.means_of_regions(rows) == pytest.approx({0: 0.4, 1: 0.7, 2: 0.5})
    assert figures.best_and_worst_rounds(rows) == (1, 0)
    assert figures.best_and_worst_rounds([]) == (None, None)


def test_gains_are_over_the_start_and_over_the_site_alone() -> None:
    lines = figures.lines_of([row(0, "A", 0.5), row(2, "A", 0.8), row(2, "B", 0.6)], [], "WT")
    a, b = figures.gains(lines, {"A": [Point(0, 0.5, 10), Point(2, 0.7, 10), Point(3, None, 10)]})

    assert (a["gain"], a["gain_over_alone"]) == (pytest.approx(0.3), pytest.approx(0.1))
    assert (b["gain"], b["gain_over_alone"]) == (None, None)


def test_before_the_first_trained_model_was_scored_nothing_is_gained() -> None:
    assert figures.gains(figures.lines_of([row(0, "A", 0.5)], [], "WT"), {})[0]["gain"] is None


def test_two_runs_are_compared_round_by_round() -> None:
    one = figures.lines_of([row(0, "A", 0.5), row(1, "A", 0.6)], [], "WT")
    other = figures.lines_of([row(1, "A", 0.9), row(2, "A", 0.9)], [], "WT")

    assert [r["difference"] for r in figures.compared(one, other)] == [None, pytest.approx(0.3), None]


def test_the_table_of_metrics_has_a_row_for_each_site_and_region() -> None:
    found = figures.metric_table({"dice": [row(3, "A", 0.5), row(2, "A", 0.1)], "hd95_mm": [row(3, "A", 12.0, 8)]}, 3)

    assert found == [
        {
            "site": "A",
            "structure": "WT",
            "n": 10,
            "missing": 0,
            "dice": 0.5,
            "dice median": 0.5,
            "hd95_mm": 12.0,
            "hd95_mm median": 12.0,
        }
    ]


def test_a_metric_of_a_newer_program_has_its_own_name() -> None:
    assert figures.metric_of("boundary_iou").title == "boundary_iou"
