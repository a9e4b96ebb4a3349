"""Where a run stands and who takes part in it, by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from brainunet.records import FaultCode
from brainunet_dashboard.charts.models import lineage_chart
from brainunet_dashboard.queries import models, private, rounds, runs
from brainunet_dashboard.queries.figures import lines_of
from brainunet_server.store.reader import DownloadRow, Figure, ReaderRow, SiteSeen
from tests.support.watched import BEGAN, HOUR, a_model, a_release, a_run, answer, other, seen, spend

MINUTE = timedelta(minutes=1)


def test_time_left_is_the_median_pace_times_the_rounds_to_come_less_what_has_passed() -> None:
    made = [a_model("r", k) for k in range(4)]  # one an hour
    at = rounds.progress(a_run(rounds=8), made, BEGAN + 3 * HOUR + 20 * MINUTE)

    assert (at.round, at.of, at.left_s) == (4, 8, 40 * 60 + 4 * 3600)


def test_a_round_that_takes_longer_than_the_others_leaves_those_after_it() -> None:
    made = [a_model("r", k) for k in range(4)]

    assert rounds.progress(a_run(rounds=8), made, BEGAN + 30 * HOUR).left_s == 4 * 3600


def test_before_the_second_model_no_pace_is_known() -> None:
    assert rounds.progress(a_run(), [a_model("r", 0)], BEGAN).left_s is None


def test_an_ended_run_has_no_time_left() -> None:
    ended = replace(a_run(rounds=3), status="completed", finished_at=BEGAN)
    at = rounds.progress(ended, [a_model("r", k) for k in range(4)], BEGAN + 9 * HOUR)

    assert (at.round, at.is_running, at.left_s) == (3, False, None)


def test_sites_are_online_late_lost_or_never_seen() -> None:
    now = BEGAN + 9 * HOUR
    last = [answer("r", 5, "CRV"), other("r", 5, "NKDC", "late", "too late")]
    there = rounds.attendance(seen(now), last, now, ended_at=None)

    assert (there.online, there.late, there.lost, there.never) == (["CRV"], ["NKDC"], ["Lagos"], ["tiny"])


def test_a_server_that_is_gone_leaves_its_last_word_behind_which_is_not_believed_for_long() -> None:
    told = seen(BEGAN)

    assert rounds.attendance(told, [], BEGAN + 2 * MINUTE, ended_at=None).online == ["CRV", "NKDC"]
    assert rounds.attendance(told, [], BEGAN + 4 * MINUTE, ended_at=None).online == []
    assert rounds.attendance(told, [], BEGAN + 9 * HOUR, ended_at=BEGAN).online == ["CRV", "NKDC"]


def test_of_a_simulation_the_last_exchange_tells() -> None:
    last = [answer("r", 1, "A"), answer("r", 2, "A"), other("r", 2, "B", "absent", "x"), other("r", 2, "C", "late", "x")]
    there = rounds.attendance([], last, BEGAN, ended_at=None)

    assert (there.online, there.late, there.lost) == (["A"], ["C"], ["B"])


def test_the_table_of_sites_has_the_last_round_and_the_last_refusal() -> None:
    done = [answer("r", 1, "CRV"), other("r", 2, "CRV", "fault", "out_of_memory"), answer("r", 3, "CRV")]
    row = next(row for row in rounds.site_table(seen(BEGAN), done, [], BEGAN) if row["site"] == "CRV")

    assert (row["round"], row["outcome"], row["answers"]) == (3, "answered", 2)
    assert row["refusal"] == "round 2: out of memory"
    assert row["certificate_days"] == 12
    assert (row["train"], row["validation"], row["seconds"], row["bytes_up"]) == (40, 10, 63.0, 91_300_000)


def test_a_certificate_that_has_ended_has_days_below_zero() -> None:
    ended = SiteSeen(name="A", state="silent", certificate_expires_at=BEGAN - HOUR)

    assert rounds.site_table([ended], [], [], BEGAN)[0]["certificate_days"] == -1


@pytest.mark.parametrize("code", FaultCode)
def test_every_fault_is_said_without_its_code(code: FaultCode) -> None:
    said = rounds.reason_of(other("r", 1, "A", "fault", code.value))

    assert said
    assert "_" not in said.replace("deadline_s", "")


def test_the_grid_has_an_outcome_for_every_site_and_round() -> None:
    done = [answer("r", 1, "A"), answer("r", 2, "A", withheld=True), other("r", 2, "B", "refused", "too long")]
    grid = rounds.outcome_grid(done)

    assert (grid.sites, grid.rounds) == (["A", "B"], [1, 2])
    assert grid.cells == [["answered", "withheld"], ["not asked", "refused"]]
    assert grid.told[1] == ["not asked", "refused: too long"]
    assert {cell for line in grid.cells for cell in line} <= set(rounds.OUTCOMES)


def test_refusals_begin_with_the_latest() -> None:
    done = [other("r", k, "A", "absent", f"reason {k}") for k in (1, 2)]

    assert [row["reason"] for row in rounds.refusals(done)] == ["reason 2", "reason 1"]


def test_traffic_costs_both_ways() -> None:
    done = [answer("r", k, "A") for k in (1, 2)]

    assert rounds.traffic(done, 10.0) == [
        {
            "site": "A",
            "rounds": 2,
            "bytes_down": 182_600_000,
            "bytes_up": 182_600_000,
            "bytes": 365_200_000,
            "cost": pytest.approx(3.652),
        }
    ]
    assert rounds.traffic(done)[0]["cost"] is None
    assert rounds.bytes_by_round(done) == {"A": [(1, 182_600_000, 182_600_000), (2, 182_600_000, 365_200_000)]}


def test_epsilon_is_shown_against_the_target_of_the_federation() -> None:
    spends = [spend("r", 2, "A", 4.0), spend("r", 1, "A", 2.0)]
    target = private.target_of(a_run(private=True))

    assert target == (8.0, 1e-3)
    assert private.epsilon_by_round(spends) == {"A": [(1, 2.0), (2, 4.0)]}
    row = private.spend_table(spends, target)[0]
    assert (row["epsilon"], row["share"], row["steps"], row["total_epsilon"]) == (4.0, 0.5, 40, 5.0)
    assert private.target_of(a_run()) is None


@pytest.mark.parametrize("config", ["null", "[1]", "{", '{"privacy": 7}', '{"privacy": {"epsilon": "much"}}', "[" * 100_000])
def test_settings_that_are_none_say_nothing(config: str) -> None:
    assert private.target_of(replace(a_run(), config=config)) is None


def test_a_run_begins_with_a_release_another_runs_model_or_one_from_elsewhere() -> None:
    first, second, third = a_run("one"), a_run("two", began=BEGAN + HOUR), a_run("three", began=BEGAN + 2 * HOUR)
    released = a_release("africa", "one", 2)
    of = {
        "one": [a_model("one", 0, digest="00"), a_model("one", 1, digest="11"), a_model("one", 2)],
        "two": [a_model("two", 0, digest=released.weights_sha256)],
        "three": [a_model("three", 0, digest="11")],
    }
    rows = models.lineage([first, second, third], of, [released])

    assert [row["began_with"] for row in rows] == ["a model from outside of this store", "release africa", "round 1 of one"]
    assert rows[0]["releases"] == ["africa"]


def test_a_release_that_was_withdrawn_is_told_wherever_its_name_is_and_has_no_star() -> None:
    own = [a_model("one", 0), a_model("one", 1), a_model("one", 2)]
    gone = replace(a_release("bad", "one", 1), withdrawn_at=BEGAN + HOUR, withdrawn_reason="worse at one site")
    rows = models.model_table(own, {0: 0.5, 1: 0.6, 2: 0.7}, [a_release("good", "one", 2), gone])
    drawn = {trace.name: list(trace.x) for trace in lineage_chart(rows, ink="black").data}

    assert [(row["releases"], row["withdrawn"]) for row in rows] == [("good", False), ("bad (withdrawn)", True), ("", False)]
    assert (drawn["published"], drawn["withdrawn"]) == ([2], [1])
    assert models.lineage([a_run("one")], {"one": own}, [gone])[0]["releases"] == ["bad (withdrawn)"]


def test_only_whole_downloads_count() -> None:
    got = [
        DownloadRow(release="africa", who="ann", kind="reader", at=BEGAN + k * HOUR, n_bytes=1, whole=whole)
        for k, whole in enumerate((True, False, True))
    ]
    rows = models.release_table([a_release("africa", "r", 2)], got, {("r", 2): 0.7})

    assert (rows[0]["downloads"], rows[0]["mean_dice"], rows[0]["state"]) == (2, 0.7, "may be fetched")


def test_who_may_pull_is_whoever_was_not_revoked_and_has_not_expired() -> None:
    now = BEGAN + 99 * HOUR
    people = [
        ReaderRow(name="ann", token_sha256="0" * 64, added_at=BEGAN, expires_at=now + HOUR),
        ReaderRow(name="bob", token_sha256="0" * 64, added_at=BEGAN, expires_at=now - HOUR),
        ReaderRow(name="eve", token_sha256="0" * 64, added_at=BEGAN, expires_at=now + HOUR, revoked_at=BEGAN),
    ]
    rows = models.who_may_pull(seen(now), people, [], now)

    assert {row["who"]: row["may"] for row in rows} == {
        "CRV": True,
        "NKDC": True,
        "Lagos": True,
        "tiny": True,
        "gone": False,
        "ann": True,
        "bob": False,
        "eve": False,
    }
    assert all(bool(row["why_not"]) is not row["may"] for row in rows)


def test_a_simulation_alone_counts_rounds_that_every_site_has() -> None:
    alone = {
        "A": lines_of([Figure(k, "A", "WT", 0.4, None, 1, 0) for k in (0, 1, 2)], [], "WT"),
        "B": lines_of([Figure(k, "B", "WT", 0.8, None, 3, 0) for k in (0, 1)], [], "WT"),
    }

    assert dict(runs.mean_alone(alone)) == pytest.approx({0: 0.7, 1: 0.7})
    assert runs.mean_alone({}) == []
