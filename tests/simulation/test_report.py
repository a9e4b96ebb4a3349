"""The summary and the figure, made from rows of a store that were written by hand."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from brainunet.records import Problem
from brainunet_server.store.rows import Run, Score, SiteRound
from brainunet_server.store.writer import StoreWriter
from brainunet_sim.report import plot_dice, summarise, write_summary

RUN = Run(
    id="sim-1",
    kind="simulation",
    strategy="fedavg",
    preset="brainunet-nano",
    norm="group",
    rounds=2,
    seed=42,
    config="{}",
    config_sha256="ab" * 32,
    started_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
)
CASES = {"CRV": 1, "NKDC": 3}  # held out
DICE: dict[str, list[float | None]] = {"CRV": [0.1, 0.9, 0.5], "NKDC": [0.2, 0.3, 0.4]}


def row(exchange: int, site: str, run: str = RUN.id, last: int = 3) -> SiteRound:
    trains = exchange < last
    return SiteRound(
        run_id=run,
        round=exchange,
        site=site,
        outcome="answered",
        cases_train=4 * CASES[site],
        cases_validation=CASES[site],
        loss=1.0 / exchange if trains else None,
        seconds=10.0 * exchange,
        bytes_down=1000 + exchange,
        bytes_up=900 + exchange if trains else 80,
    )


def score(model: int, site: str, run: str = RUN.id, mean: float | None = None) -> list[Score]:
    value = DICE[site][model] if mean is None else mean
    n = 0 if value is None else CASES[site]
    figures: dict[str, Any] = {"metric": "dice", "mean": value, "median": value, "n": n, "missing": CASES[site] - n}
    return [Score(run_id=run, round=model, site=site, structure=s, **figures) for s in ("ET", "TC", "WT")]


def write_run(where: Path, exchanges: int = 3) -> None:
    with StoreWriter(where) as store:
        store.start_run(RUN)
        for number in range(1, exchanges + 1):
            rows = [row(number, site) for site in CASES]
            store.record_exchange(RUN.id, number, rows, [s for site in CASES for s in score(number - 1, site)])
        store.finish_run(RUN.id, "completed" if exchanges == 3 else "interrupted")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_run(tmp_path / "store.sqlite")
    return tmp_path / "store.sqlite"


def test_round_k_is_the_model_after_exchange_k_as_the_next_exchange_scored_it(store: Path) -> None:
    summary = summarise(store, RUN.id, skipped=(), seconds=12.34)

    assert [entry["round"] for entry in summary["rounds"]] == [0, 1, 2]
    assert summary["rounds"][0]["sites"]["CRV"] == {
        "cases": {"train": 4, "validation": 1},
        "dice": {"ET": 0.1, "TC": 0.1, "WT": 0.1},
        "loss": None,
        "seconds": None,
        "bytes_down": 0,
        "bytes_up": 0,
    }
    assert summary["rounds"][2]["sites"]["NKDC"] == {
        "cases": {"train": 12, "validation": 3},
        "dice": {"ET": 0.4, "TC": 0.4, "WT": 0.4},
        "loss": 0.5,
        "seconds": 20.0,
        "bytes_down": 1002,
        "bytes_up": 902,
    }


def test_the_mean_is_over_cases_and_the_best_round_has_the_highest(store: Path) -> None:
    summary = summarise(store, RUN.id, skipped=(), seconds=0)

    assert [entry["mean_dice"]["WT"] for entry in summary["rounds"]] == pytest.approx([0.175, 0.45, 0.425])  # (1 x + 3 y) / 4
    assert summary["best_round"] == 1


def test_it_says_what_was_run_what_it_cost_and_what_was_left_out(store: Path) -> None:
    summary = summarise(store, RUN.id, skipped=[Problem("BraTS-SSA-00009-000", "empty file")], seconds=12.34)

    facts = {key: summary[key] for key in ("run", "strategy", "preset", "norm", "status", "seed", "config_sha256", "seconds")}
    assert facts == {
        "run": "sim-1",
        "strategy": "fedavg",
        "preset": "brainunet-nano",
        "norm": "group",
        "status": "completed",
        "seed": 42,
        "config_sha256": "ab" * 32,
        "seconds": 12.3,
    }
    assert 10 < summary["peak_memory_mb"] < 100_000
    assert summary["skipped"] == [{"case": "BraTS-SSA-00009-000", "reason": "empty file"}]
    assert "local_only" not in summary


def test_a_run_that_was_stopped_has_the_rounds_that_were_scored(tmp_path: Path) -> None:
    write_run(tmp_path / "store.sqlite", exchanges=2)

    summary = summarise(tmp_path / "store.sqlite", RUN.id, skipped=(), seconds=0)

    assert summary["status"] == "interrupted"
    assert [entry["round"] for entry in summary["rounds"]] == [0, 1]


def test_a_score_that_does_not_exist_is_null_and_counts_nowhere(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DICE, "CRV", [None, None, None])
    write_run(store)

    entry = summarise(store, RUN.id, skipped=(), seconds=0)["rounds"][1]

    assert entry["sites"]["CRV"]["dice"] == {"ET": None, "TC": None, "WT": None}
    assert entry["mean_dice"]["WT"] == pytest.approx(0.3)


def test_a_site_that_did_not_answer_once_is_missing_in_that_round_only(store: Path) -> None:
    with StoreWriter(store) as writer:
        absent = SiteRound(run_id=RUN.id, round=2, site="CRV", outcome="fault", reason="out_of_memory")
        writer.record_exchange(RUN.id, 2, [absent, row(2, "NKDC")], score(1, "NKDC"))

    rounds = summarise(store, RUN.id, skipped=(), seconds=0)["rounds"]

    assert [sorted(entry["sites"]) for entry in rounds] == [["CRV", "NKDC"], ["NKDC"], ["CRV", "NKDC"]]
    assert (rounds[2]["sites"]["CRV"]["loss"], rounds[2]["sites"]["CRV"]["bytes_up"]) == (None, 0)


def test_sites_that_trained_alone_are_compared_round_by_round_and_other_simulations_are_not(store: Path) -> None:
    with StoreWriter(store) as writer:
        for parent in ("sim-1", "sim-2"):
            alone = f"{parent}-CRV"
            if parent != RUN.id:
                writer.start_run(replace(RUN, id=parent))
            writer.start_run(replace(RUN, id=alone, kind="local", parent_id=parent, site="CRV"))
            for number in (1, 2, 3):
                dice = 0.1 * number if parent == RUN.id else 0.9
                writer.record_exchange(alone, number, [row(number, "CRV", alone)], score(number - 1, "CRV", alone, dice))

    local = summarise(store, RUN.id, skipped=(), seconds=0)["local_only"]

    assert list(local) == ["CRV"]
    assert [(entry["round"], entry["dice"]["WT"]) for entry in local["CRV"]] == [(0, 0.1), (1, 0.2), (2, pytest.approx(0.3))]


def test_the_summary_is_written_as_json_that_reads_back_equal(store: Path, tmp_path: Path) -> None:
    summary = summarise(store, RUN.id, skipped=(), seconds=1)

    write_summary(tmp_path / "summary.json", summary)

    assert json.loads((tmp_path / "summary.json").read_text()) == summary


@pytest.mark.parametrize("rounds", [1, 3, 30])
def test_the_figure_is_a_png_with_a_line_for_each_site(tmp_path: Path, rounds: int) -> None:
    plot_dice(tmp_path / "dice.png", made_up(rounds, sites=9))

    assert png_size(tmp_path / "dice.png") == (1020, 600)


def test_the_figure_shows_sites_alone_and_leaves_out_what_does_not_exist(tmp_path: Path) -> None:
    summary = made_up(3, sites=2)
    summary["rounds"][1]["sites"]["site-0"]["dice"]["WT"] = None
    del summary["rounds"][2]["sites"]["site-1"]
    plot_dice(tmp_path / "without.png", summary)

    summary["local_only"] = {"site-0": [{"round": 0, "dice": {"WT": 0.3}}, {"round": 1, "dice": {"WT": None}}]}
    plot_dice(tmp_path / "dice.png", summary)

    assert png_size(tmp_path / "dice.png") == (1020, 600)
    assert (tmp_path / "dice.png").read_bytes() != (tmp_path / "without.png").read_bytes()


def test_equal_summaries_give_equal_figures(tmp_path: Path) -> None:
    plot_dice(tmp_path / "a.png", made_up(2, sites=2))
    plot_dice(tmp_path / "b.png", made_up(2, sites=2))

    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def made_up(rounds: int, sites: int) -> dict[str, Any]:
    def site(i: int, dice: float) -> dict[str, Any]:
        return {"cases": {"train": 4, "validation": 1}, "dice": {"WT": dice - i / 100}}

    entries = [
        {"round": k, "mean_dice": {"WT": k / rounds}, "sites": {f"site-{i}": site(i, k / rounds) for i in range(sites)}}
        for k in range(rounds)
    ]
    return {"preset": "brainunet-nano", "strategy": "fedavg", "rounds": entries}


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height
