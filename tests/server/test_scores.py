"""``flower-server scores``: the figures of each round's model, of the run that was meant."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from brainunet_server.federation import Folder
from brainunet_server.store.reader import StoreReader, dice_by_round
from brainunet_server.store.writer import StoreWriter
from tests.support.federation import done, refused, told
from tests.support.store import RUN, answered, dice, run_rounds


@pytest.fixture
def scored(fed: Path) -> Path:
    """A federation with two runs: the first with two rounds, the second just begun."""
    with StoreWriter(Folder(fed).store) as store:
        run_rounds(store, 2)
        store.start_run(replace(RUN, id="glioma-2", started_at=RUN.started_at + timedelta(days=1)))
        store.start_run(replace(RUN, id="sim-1", kind="simulation", started_at=RUN.started_at + timedelta(days=2)))
    return fed


def test_a_run_that_is_not_there_is_answered_with_the_nearest_and_all_there_are(scored: Path) -> None:
    said = refused(4, "scores", scored, "--run", "gliom-1")

    assert "no run 'gliom-1' (did you mean glioma-1?), but expected one of its runs: glioma-1, glioma-2, sim-1" in said
    assert "did you mean" not in refused(4, "scores", scored, "--run", "xyzzy")


def test_without_a_name_it_is_the_federations_latest_run(scored: Path) -> None:
    assert told("scores", scored) == {"run": "glioma-2", "structure": "WT", "rounds": []}


def test_where_no_run_has_begun_there_is_none_to_show(fed: Path) -> None:
    with StoreWriter(Folder(fed).store):
        pass

    assert "no run of a federation yet" in refused(4, "scores", fed)
    assert "none has begun yet" in refused(4, "scores", fed, "--run", "glioma-1")


def test_each_rounds_model_is_a_row_with_every_sites_mean_and_that_of_all_cases(scored: Path) -> None:
    rounds = told("scores", scored, "--run", "glioma-1", "--structure", "ET")["rounds"]

    assert [row["round"] for row in rounds] == [0, 1]
    assert rounds[0]["sites"] == {"boston": {"mean": 0.8, "n": 12}, "lagos": {"mean": 0.8, "n": 12}}
    assert rounds[0]["all"] == pytest.approx(0.8)
    shown = done("scores", scored, "--run", "glioma-1", "--structure", "ET")
    assert "0.800 (12)" in shown


def test_a_site_that_withholds_its_figures_is_shown_to(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store.sqlite") as store:
        store.start_run(RUN)
        hidden = replace(answered(1, "lagos"), withheld=True)
        store.record_exchange(RUN.id, 1, [answered(1, "boston"), hidden], [dice(0, "boston", 0.5)])

    with StoreReader(tmp_path / "store.sqlite") as reader:
        (row,) = dice_by_round(reader, RUN.id, "ET")

    assert row == {"round": 0, "sites": {"boston": {"mean": 0.5, "n": 12}, "lagos": "withheld"}, "all": 0.5}
