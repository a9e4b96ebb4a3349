"""Figures from tables, without a browser: what is drawn, in which colour, and that no name becomes markup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from brainunet_dashboard import palette
from brainunet_dashboard.charts import gains, lines, models, outcomes, traffic
from brainunet_dashboard.queries import figures, private, rounds
from brainunet_server.store.reader import Figure
from tests.support.watched import MARKUP, answer, other, spend

DICE = figures.metric_of("dice")
ROWS = [Figure(k, site, "WT", 0.5 + 0.1 * k, None, 10, 0) for k in range(3) for site in ("A", MARKUP)]
LINES = figures.lines_of(ROWS, [answer("r", 2, "tiny", withheld=True, n=2)], "WT")
LOOKS = palette.looks(["A", MARKUP, "tiny"])


def test_a_line_for_each_site_and_a_thicker_one_for_the_mean() -> None:
    drawn = lines.line_chart(LINES, LOOKS, DICE, "WT", ink="#123456")
    a, mean = (next(trace for trace in drawn.data if trace.name.startswith(name)) for name in ("A", "mean"))

    assert list(a.x) == [0, 1, 2]
    assert list(a.y) == pytest.approx([0.5, 0.6, 0.7])
    assert a.name == "A (n = 10)"
    assert (mean.line.color, mean.line.width > a.line.width) == ("#123456", True)


def test_a_withheld_point_is_drawn_as_one_and_not_as_0() -> None:
    drawn = lines.line_chart(LINES, LOOKS, DICE, "WT", ink="black")
    line, cross = (trace for trace in drawn.data if trace.name.startswith("tiny"))

    assert list(line.y) == [None]
    assert (list(cross.x), cross.marker.symbol, list(cross.customdata)) == ([1], "x-open", [figures.WITHHELD])
    assert cross.y[0] < 0.5


def test_no_line_is_drawn_across_rounds_in_which_a_site_gave_no_answer() -> None:
    found = figures.lines_of([Figure(k, "A", "WT", 0.5, None, 10, 0) for k in (0, 3)] + ROWS, [], "WT")
    late = figures.lines_of([Figure(k, "B", "WT", 0.5, None, 10, 0) for k in (0, 3)] + ROWS, [], "WT")
    a, b = (
        next(trace for trace in lines.line_chart(of, LOOKS, DICE, "WT", ink="black").data if trace.name.startswith(name))
        for of, name in ((found, "A"), (late, "B"))
    )

    assert None not in a.y
    assert (list(b.x), list(b.y)) == ([0, 1, 2, 3], [0.5, None, None, 0.5])
    assert not b.connectgaps


def test_a_lone_figure_can_be_seen_also_among_many_rounds() -> None:
    rows = [Figure(k, "A", "WT", 0.5, None, 10, 0) for k in range(100)]
    rows += [Figure(k, "B", "WT", 0.5, None, 10, 0) for k in (10, 50, 51)]
    drawn = lines.line_chart(figures.lines_of(rows, [], "WT"), LOOKS, DICE, "WT", ink="black").data
    a, b = (next(trace for trace in drawn if trace.name.startswith(name)) for name in "AB")

    assert a.mode == "lines"  # thousands of marks, also of size 0, are what a browser takes longest for
    assert (b.mode, [k for k, mark in zip(b.x, b.marker.size, strict=True) if mark]) == ("lines+markers", [10])


def test_the_legend_says_of_a_site_without_figures_that_there_is_none() -> None:
    assert "tiny (no figure)" in [trace.name for trace in lines.line_chart(LINES, LOOKS, DICE, "WT", ink="black").data]


def test_the_legend_of_many_sites_takes_nothing_from_the_drawing() -> None:
    heights = []
    for sites in (3, 30):
        rows = [Figure(0, f"site-{i}", "WT", 0.5, None, 10, 0) for i in range(sites)]
        drawn = lines.line_chart(figures.lines_of(rows, [], "WT"), LOOKS, DICE, "WT", ink="black")
        heights.append(drawn.layout.height)

    assert heights[1] >= heights[0] + 200


def test_the_legend_of_gains_has_no_sites_colour() -> None:
    rows = figures.gains(LINES, {MARKUP: LINES.sites[MARKUP]})
    drawn = gains.gain_chart(rows, LOOKS, DICE, "WT").data
    legend = [trace for trace in drawn if trace.showlegend is not False]

    assert [trace.name for trace in legend] == ["began with", "federated", "alone"]
    assert {trace.marker.color for trace in legend} == {palette.GREY}


def test_a_run_keeps_its_colour_whichever_are_shown_beside_it() -> None:
    looks = palette.looks(["one", "two"])
    shown = [
        lines.runs_chart(dict.fromkeys(runs, LINES.overall), {}, looks, {}, DICE, "WT") for runs in (["two"], ["one", "two"])
    ]

    assert shown[0].data[0].line.color == shown[1].data[1].line.color == looks["two"].colour


def test_a_hover_says_n_and_unit() -> None:
    millimetres = lines.line_chart(LINES, LOOKS, figures.metric_of("hd95_mm"), "WT", ink="black").data[0].hovertemplate

    assert "mm (n = %{customdata})" in millimetres


def test_a_site_has_its_colour_in_every_chart() -> None:
    colour = LOOKS["A"].colour
    drawn = [
        lines.line_chart(LINES, LOOKS, DICE, "WT", ink="black").data,
        traffic.epsilon_chart(private.epsilon_by_round([spend("r", 1, "A", 1.0)]), LOOKS, 8.0, ink="black").data,
        traffic.traffic_chart(rounds.bytes_by_round([answer("r", 1, "A")]), LOOKS, cumulated=True).data,
    ]

    assert [next(trace for trace in data if trace.name.startswith("A")).line.color for data in drawn] == [colour] * 3
    bar = traffic.traffic_chart(rounds.bytes_by_round([answer("r", 1, "A")]), LOOKS, cumulated=False).data[0]
    assert bar.marker.color == colour


def test_36_sites_are_told_apart() -> None:
    assert len({palette.look(place) for place in range(36)}) == 36
    assert len({(look.colour, look.pattern) for look in map(palette.look, range(36))}) == 36


def test_colours_can_be_seen_on_light_and_dark() -> None:
    for colour in palette.COLOURS:
        assert min(_contrast(colour, "#FFFFFF"), _contrast(colour, "#0E1117")) > 1.9, colour


def test_outcomes_have_colours_that_differ_in_brightness_or_a_letter() -> None:
    assert set(palette.OUTCOME_COLOURS) == set(rounds.OUTCOMES) == set(palette.OUTCOME_LETTERS)
    letters = [letter for letter in palette.OUTCOME_LETTERS.values() if letter]
    assert len(set(letters)) == len(letters) == len(rounds.OUTCOMES) - 2


def test_no_name_in_any_chart_is_markup() -> None:
    grid = rounds.outcome_grid([answer("r", 1, MARKUP), other("r", 2, MARKUP, "refused", "<a href='x'>see</a>")])
    rows = figures.gains(LINES, {MARKUP: LINES.sites[MARKUP]})
    model = {"round": 1, "mean_dice": 0.5, "on_disk": True, "releases": "<b>x</b>", "withdrawn": False, "digest": "ab"}
    drawn = [
        lines.line_chart(LINES, LOOKS, DICE, "WT", ink="black", alone={MARKUP: LINES.sites[MARKUP]}),
        gains.gain_chart(rows, LOOKS, DICE, "WT"),
        outcomes.outcome_chart(grid),
        traffic.epsilon_chart({MARKUP: [(1, 1.0)]}, LOOKS, None, ink="black"),
        traffic.traffic_chart({MARKUP: [(1, 1, 1)]}, LOOKS, cumulated=False),
        traffic.traffic_chart({MARKUP: [(1, 1, 1)]}, LOOKS, cumulated=True),
        models.lineage_chart([model], ink="black"),
        lines.runs_chart({MARKUP: LINES.overall}, {MARKUP: [(0, 0.5)]}, LOOKS, {MARKUP: MARKUP}, DICE, "WT"),
    ]

    told = [list(_texts(json.loads(chart.to_json()))) for chart in drawn]
    assert not [text for texts in told for text in texts if "<b>" in text or "<a " in text]
    assert any(text.startswith("&lt;b&gt;north&lt;/b&gt;") for text in told[0])


def test_two_long_names_that_look_alike_when_cut_keep_their_rows() -> None:
    names = ["university-hospital-of-the-north-1", "university-hospital-of-the-north-2"]
    grid = rounds.outcome_grid([answer("r", 1, name) for name in names])

    assert list(outcomes.outcome_chart(grid).data[0].y) == [0, 1]


def test_a_target_of_privacy_is_a_line_across() -> None:
    drawn = traffic.epsilon_chart({"A": [(1, 1.0)]}, LOOKS, 8.0, ink="black")

    assert drawn.layout.shapes[0].y0 == 8.0


def test_a_sum_so_far_ends_with_everything() -> None:
    by_round = rounds.bytes_by_round([answer("r", k, site) for k in (1, 2) for site in "AB"])
    whole = traffic.traffic_chart(by_round, LOOKS, cumulated=True).data[-1]

    assert whole.y[-1] == pytest.approx(4 * 182.6)


def test_many_rounds_of_traffic_are_areas_of_the_sites_colours() -> None:
    by_round = rounds.bytes_by_round([answer("r", k, site) for k in range(1, 101) for site in ("A", "tiny")])
    drawn = traffic.traffic_chart(by_round, LOOKS, cumulated=False).data

    assert [(trace.type, trace.stackgroup, trace.fillcolor) for trace in drawn] == [
        ("scatter", "sites", LOOKS[site].colour) for site in ("A", "tiny")
    ]


@pytest.mark.parametrize("count", [1, 3, 30])
def test_each_of_few_rounds_has_its_number(count: int) -> None:
    found = figures.lines_of([Figure(k, "A", "WT", 0.5, None, 1, 0) for k in range(count)], [], "WT")

    assert lines.line_chart(found, LOOKS, DICE, "WT", ink="black").layout.xaxis.dtick == (1 if count < 15 else None)


def test_nothing_gives_an_empty_chart() -> None:
    nothing = figures.Lines({}, [])

    assert lines.line_chart(nothing, {}, DICE, "WT", ink="black").data[0].name == "mean over all cases"
    assert len(gains.gain_chart([], {}, DICE, "WT").data) == 0


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
