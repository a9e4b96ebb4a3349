"""A run that is cut off, killed or robbed of its models goes on to the same end, or says why it can't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brainunet.config import StrategyConfig
from brainunet.errors import ConfigError
from brainunet.modelfile import read_model
from brainunet_server.conduct import conduct
from brainunet_server.flower.strategies import strategy_from
from brainunet_server.round_results import RoundResult
from tests.support.pace import first_fast
from tests.support.replies import PLAN, START
from tests.support.runs import (
    GIVEN,
    MADE,
    RUN,
    SITES,
    Moment,
    Sites,
    damage,
    every_state_of,
    keeping,
    kept,
    model_files,
    raising,
    run_in,
    sign,
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_in(folder)
    return kept(folder)


@pytest.mark.parametrize("nth", first_fast(4, 0, 1, 2, 3, 5, 6, 7, 8))
def test_cut_off_instead_of_signing_it_goes_on_to_the_same_end_with_every_model_signed(
    tmp_path: Path, uninterrupted: dict[str, Any], nth: int
) -> None:
    calls = list[Path]()

    def cut_off(path: Path) -> None:
        calls.append(path)
        if len(calls) > nth:
            raise KeyboardInterrupt
        sign(path)

    signing = replace(keeping(tmp_path), sign=cut_off)
    with pytest.raises(KeyboardInterrupt):
        conduct(RUN, PLAN, lambda: (START, GIVEN), MADE, signing, Sites(), strategy_from(StrategyConfig()))

    run_in(tmp_path)

    assert uninterrupted["unsigned"] == []
    assert kept(tmp_path) == uninterrupted


MOMENTS = [(exchange, who) for exchange in (1, 2, 3) for who in (*SITES, "all have answered")]


@pytest.mark.parametrize(
    ("moment", "error"), first_fast(((2, "lagos"), MemoryError), *((moment, KeyboardInterrupt) for moment in MOMENTS))
)
def test_cut_off_while_sites_answer_it_goes_on_to_the_same_end(
    tmp_path: Path, uninterrupted: dict[str, Any], moment: Moment, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        run_in(tmp_path, Sites(before=raising(error, at=moment)))
    assert kept(tmp_path)["status"] == ("interrupted" if error is KeyboardInterrupt else "failed")

    run_in(tmp_path)

    assert kept(tmp_path) == uninterrupted


@pytest.mark.parametrize("exchange", [1, 2, 3])
def test_cut_off_when_a_round_is_told_that_round_is_not_run_again(
    tmp_path: Path, uninterrupted: dict[str, Any], exchange: int
) -> None:
    def stop(result: RoundResult) -> None:
        if result.exchange == exchange:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, on_round=stop)
    asked = list[Moment]()
    run_in(tmp_path, Sites(before=asked.append))

    assert asked[0] == (min(exchange + 1, 3), "boston")
    assert kept(tmp_path) == uninterrupted


def test_stopped_again_and_again_it_gets_there(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    for moment in [(1, "lagos"), (2, "boston"), (2, "lagos"), (3, "boston"), (3, "all have answered")]:
        with pytest.raises(KeyboardInterrupt):
            run_in(tmp_path, Sites(before=raising(KeyboardInterrupt, at=moment)))
    run_in(tmp_path)

    assert kept(tmp_path) == uninterrupted


@pytest.mark.slow
def test_whatever_kill_9_leaves_on_the_disk_it_goes_on_to_the_same_end(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    left = list[Path]()
    with every_state_of(tmp_path / "run", into=tmp_path / "left", found=left):
        run_in(tmp_path / "run")
    assert len(left) > 15  # a model half written, a model without its row, rows of an exchange without its model ...

    for folder in left:
        run_in(folder)
        assert kept(folder) == uninterrupted, folder.name


def test_resumed_when_it_is_complete_it_only_scores_the_last_model_again(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    run_in(tmp_path)
    asked = list[Moment]()

    run_in(tmp_path, Sites(before=asked.append))

    assert {exchange for exchange, _ in asked} == {3}
    assert kept(tmp_path) == uninterrupted


@pytest.mark.parametrize(
    ("newest", "harm"), first_fast((2, "a bit flipped"), (1, "gone"), (2, "cut short"), (2, "gone"), (2, "another model"))
)
def test_a_damaged_newest_model_costs_its_round_and_no_more(
    tmp_path: Path, uninterrupted: dict[str, Any], harm: str, newest: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, Sites(before=raising(KeyboardInterrupt, at=(newest + 1, "boston"))))
    damage(keeping(tmp_path).model_file(newest), harm)
    asked = list[Moment]()

    run_in(tmp_path, Sites(before=asked.append))

    assert asked[0] == (newest, "boston")
    assert kept(tmp_path) == uninterrupted


def test_with_every_model_damaged_it_begins_anew_from_the_model_it_was_given(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, Sites(before=raising(KeyboardInterrupt, at=(2, "boston"))))
    for path in model_files(tmp_path):
        damage(path, "cut short")

    run_in(tmp_path)

    assert kept(tmp_path) == uninterrupted


@pytest.mark.parametrize(("lost", "said"), [((2, 1), "of 2 complete rounds none whose model can be read"), ((2,), "")])
def test_a_federation_goes_back_one_round_and_no_further(tmp_path: Path, lost: tuple[int, ...], said: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, Sites(before=raising(KeyboardInterrupt, at=(3, "boston"))), keep_every=1)
    before = kept(tmp_path)["rows"]
    for number in lost:
        damage(keeping(tmp_path).model_file(number), "gone")

    if not said:
        run_in(tmp_path, keep_every=1)
        return
    with pytest.raises(ConfigError, match=rf"models: {said}.*put the folder back|models: {said}.*Put the folder back"):
        run_in(tmp_path, keep_every=1)
    assert kept(tmp_path)["rows"] == before


def test_a_best_model_that_is_damaged_gives_its_mark_to_the_next(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    run_in(tmp_path, keep_every=1)
    best = read_model(keeping(tmp_path).best_file)[1].round
    damage(keeping(tmp_path).model_file(best), "cut short")

    run_in(tmp_path, keep_every=1)

    assert read_model(keeping(tmp_path).best_file)[1].round != best
