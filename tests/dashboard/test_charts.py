"""Figures from tables, without a browser: what is drawn, in which colour, and that no name becomes markup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from brainunet_dashboard import charts, palette
from brainunet_dashboard.queries import figures, private, rounds
from brainunet_server.store.reader import Figure
from tests.support.watched import MARKUP, answer, other, spend

DICE = figures.metric_of("dice")
ROWS = [Figure(k, site, "WT", 0.5 + 0.1 * k, None, 10, 0) for k in range(3) for site in ("A", MARKUP)]
LINES = figures.lines_of(ROWS, [answer("r", 2, "tiny", withheld=True, n=2)], "WT")
LOOKS = palette.looks(["A", MARKUP, "tiny"])


def test_a_line_for_each_site_and_a_thicker_one_for_the_mean() -> None:
    drawn = charts.line_chart(LINES, LOOKS, DICE, "WT", ink="#123456")
    a, mean = (next(trace for trace in drawn.data if trace.name.startswith(name)) for name in ("A", "mean"))

    assert list(a.x) == [0, 1, 2]
    assert list(a.y) == pytest.approx([0.5, 0.6, 0.7])
    assert a.name == "A (n = 10)"
    assert (mean.line.color, mean.line.width > a.line.width) == ("#123456", True)


def test_a_withheld_point_is_drawn_as_one_and_not_as_0() -> None:
    drawn = charts.line_chart(LINES, LOOKS, DICE, "WT", ink="black")
    line, cross = (trace for trace in drawn.data if trace.name.startswith("tiny"))

    assert list(line.y) == [None]
    assert (list(cross.x), cross.marker.symbol, list(cross.customdata)) == ([1], "x-open", [figures.WITHHELD])
    assert cross.y[0] < 0.5


def test_a_hover_says_n_and_unit() -> None:
    millimetres = charts.line_chart(LINES, LOOKS, figures.metric_of("hd95_mm"), "WT", ink="black").data[0].hovertemplate

    assert "mm (n = %{customdata})" in millimetres


def test_a_site_has_its_colour_in_every_chart() -> None:
    colour = LOOKS["A"].colour
    drawn = [
        charts.line_chart(LINES, LOOKS, DICE, "WT", ink="black").data,
        charts.epsilon_chart(private.epsilon_by_round([spend("r", 1, "A", 1.0)]), LOOKS, 8.0, ink="black").data,
        charts.traffic_chart(rounds.bytes_by_round([answer("r", 1, "A")]), LOOKS, cumulated=True).data,
    ]

    assert [next(trace for trace in data if trace.name.startswith("A")).line.color for data in drawn] == [colour] * 3
    bar = charts.traffic_chart(rounds.bytes_by_round([answer("r", 1, "A")]), LOOKS, cumulated=False).data[0]
    assert bar.marker.color == colour


def test_36_sites_are_told_apart() -> None:
    assert len({palette.look(place) for place in range(36)}) == 36


def test_colours_can_be_seen_on_light_and_dark() -> None:
    for colour in palette.COLOURS:
        assert min(_contrast(colour, "#FFFFFF"), _contrast(colour, "#0E1117")) > 1.9, colour


def test_outcomes_have_colours_that_differ_in_brightness_or_a_letter() -> None:
    assert set(palette.OUTCOME_COLOURS) == set(rounds.OUTCOMES) == set(palette.OUTCOME_LETTERS)
    letters = [letter for letter in palette.OUTCOME_LETTERS.values() if letter]
    assert len(set(letters)) == len(letters) == len(rounds.OUTCOMES) - 2


def test_no_name_in_any_chart_is_markup() -> None:
    grid = rounds.outcome_grid([answer("r", 1, MARKUP), other("r", 2, MARKUP, "refused", "<a href='x'>see</a>")])
    gains = figures.gains(LINES, {MARKUP: LINES.sites[MARKUP]})
    model = {"round": 1, "mean_dice": 0.5, "on_disk": True, "releases": "<b>x</b>", "digest": "ab"}
    drawn = [
        charts.line_chart(LINES, LOOKS, DICE, "WT", ink="black", alone={MARKUP: LINES.sites[MARKUP]}),
        charts.gain_chart(gains, LOOKS, DICE, "WT"),
        charts.outcome_chart(grid),
        charts.epsilon_chart({MARKUP: [(1, 1.0)]}, LOOKS, None, ink="black"),
        charts.traffic_chart({MARKUP: [(1, 1, 1)]}, LOOKS, cumulated=False),
        charts.traffic_chart({MARKUP: [(1, 1, 1)]}, LOOKS, cumulated=True),
        charts.lineage_chart([model], ink="black"),
        charts.runs_chart({MARKUP: LINES.overall}, {MARKUP: [(0, 0.5)]}, DICE, "WT"),
    ]

    told = [list(_texts(json.loads(chart.to_json()))) for chart in drawn]
    assert not [text for texts in told for text in texts if "<b>" in text or "<a " in text]
    assert any(text.startswith("&lt;b&gt;north&lt;/b&gt;") for text in told[0])


def test_two_long_names_that_look_alike_when_cut_keep_their_rows() -> None:
    names = ["university-hospital-of-the-north-1", "university-hospital-of-the-north-2"]
    grid = rounds.outcome_grid([answer("r", 1, name) for name in names])

    assert list(charts.outcome_chart(grid).data[0].y) == [0, 1]


def test_a_target_of_privacy_is_a_line_across() -> None:
    drawn = charts.epsilon_chart({"A": [(1, 1.0)]}, LOOKS, 8.0, ink="black")

    assert drawn.layout.shapes[0].y0 == 8.0


def test_a_sum_so_far_ends_with_everything() -> None:
    by_round = rounds.bytes_by_round([answer("r", k, site) for k in (1, 2) for site in "AB"])
    whole = charts.traffic_chart(by_round, LOOKS, cumulated=True).data[-1]

    assert whole.y[-1] == pytest.approx(4 * 182.6)


@pytest.mark.parametrize("count", [1, 3, 30])
def test_each_of_few_rounds_has_its_number(count: int) -> None:
    lines = figures.lines_of([Figure(k, "A", "WT", 0.5, None, 1, 0) for k in range(count)], [], "WT")

    assert charts.line_chart(lines, LOOKS, DICE, "WT", ink="black").layout.xaxis.dtick == (1 if count < 15 else None)


def test_nothing_gives_an_empty_chart() -> None:
    nothing = figures.Lines({}, [])

    assert charts.line_chart(nothing, {}, DICE, "WT", ink="black").data[0].name == "mean over all cases"
    assert len(charts.gain_chart([], {}, DICE, "WT").data) == 0


def _texts(told: Any) -> Iterator[str]:
    if isinstance(told, str):
        yield told
    for inner in told.values() if isinstance(told, dict) else told if isinstance(told, list) else ():
        yield from _texts(inner)


def _contrast(one: str, other_one: str) -> float:
    """WCAG 2's contrast of two colours, 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other_one)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
