"""A run that is cut off at any moment goes on to the same models and the same rows as one that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from brainunet.config import StrategyConfig
from brainunet.errors import BrainUNetError, ConfigError, FederationError
from brainunet.modelfile import ModelCard, read_model
from brainunet_server.conduct import conduct
from brainunet_server.flower.strategies import strategy_from
from brainunet_server.keeping import Keeping
from brainunet_server.rounds import RoundResult
from brainunet_server.store.reader import StoreReader
from tests.support.replies import PLAN, START
from tests.support.rights import largest_file
from tests.support.runs import (
    DICE,
    GIVEN,
    MADE,
    RUN,
    SITES,
    Moment,
    Sites,
    around,
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


def test_a_run_keeps_a_model_of_each_round_the_rows_of_each_exchange_and_the_best_model(uninterrupted: dict[str, Any]) -> None:
    digests = uninterrupted["digests"]

    assert uninterrupted["status"] == "completed"
    assert list(digests) == ["best-worst-site.safetensors", "best.safetensors", *(f"round-00{k}.safetensors" for k in range(3))]
    assert digests["round-000.safetensors"] == START.digest
    assert digests["best.safetensors"] == digests["round-001.safetensors"]
    assert len(uninterrupted["rows"]) == 3 * 2 + 3 * 2 * 3 + 3  # exchanges of two sites, three figures each, models


def test_the_weights_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    run_in(tmp_path)

    # the sites pull halfway to 1 and to 3: w -> w / 2 + 1, twice
    for name, values in read_model(tmp_path / "models" / "round-002.safetensors")[0].as_dict().items():
        assert values == pytest.approx(START[name] / 4 + 1.5)


def test_a_card_says_where_its_model_comes_from(uninterrupted: dict[str, Any]) -> None:
    cards: dict[str, ModelCard] = uninterrupted["cards"]

    first = cards["round-000.safetensors"]
    assert first.model_copy(update={"scores": {}}) == GIVEN  # not made here: its own card
    for number in (1, 2):
        card = cards[f"round-00{number}.safetensors"]
        assert (card.run, card.round, card.parent_sha256) == (RUN.id, number, START.digest)
        assert (card.trained_on, card.provenance, card.config_sha256) == ("real cases", MADE.provenance, "ab" * 32)
        assert card.title == f"brainunet after round {number} of run {RUN.id}"


def test_every_models_card_has_the_scores_that_the_next_exchange_gave_it(uninterrupted: dict[str, Any]) -> None:
    cards: dict[str, ModelCard] = uninterrupted["cards"]

    for number, dice in DICE.items():
        means = {site: score.rows[0].mean for site, score in cards[f"round-00{number}.safetensors"].scores.items()}
        assert means == dice


def test_the_best_models_card_has_its_scores_at_each_site(uninterrupted: dict[str, Any]) -> None:
    card: ModelCard = uninterrupted["cards"]["best.safetensors"]

    assert card.round == 1
    assert {site: score.rows[0].mean for site, score in card.scores.items()} == pytest.approx({"boston": 0.65, "lagos": 0.75})


def test_the_model_that_serves_the_worst_served_site_best_may_be_another_than_the_best_one(tmp_path: Path) -> None:
    unfair = {0: {"boston": 0.2, "lagos": 0.2}, 1: {"boston": 0.1, "lagos": 0.9}, 2: {"boston": 0.4, "lagos": 0.5}}

    run_in(tmp_path, Sites(dice=unfair))

    assert read_model(keeping(tmp_path).best_file)[1].round == 1  # a mean of 0.5
    assert read_model(keeping(tmp_path).best_for_all_file)[1].round == 2  # 0.4 at its worst site


def test_a_round_that_a_badly_served_site_missed_is_not_the_best_for_all(tmp_path: Path) -> None:
    unfair = {0: {"boston": 0.1, "lagos": 0.8}, 1: {"boston": 0.2, "lagos": 0.5}, 2: {"boston": 0.1, "lagos": 0.5}}

    run_in(tmp_path, Sites(dice=unfair, silent=frozenset({(1, "boston")})))

    assert read_model(keeping(tmp_path).best_for_all_file)[1].round == 1


def test_the_scores_of_a_model_stand_on_its_card_after_the_next_exchange(tmp_path: Path) -> None:
    seen = dict[int, list[bool]]()

    def look(result: RoundResult) -> None:
        seen[result.exchange] = [bool(read_model(path)[1].scores) for path in model_files(tmp_path)]

    run_in(tmp_path, on_round=look)

    assert seen == {1: [True, False], 2: [True, True, False], 3: [True, True, True]}


def test_each_model_file_is_signed_as_soon_as_it_has_its_name(tmp_path: Path) -> None:
    signed = list[str]()

    def sign(path: Path) -> None:
        read_model(path)
        signed.append(path.name)

    signing = replace(keeping(tmp_path), sign=sign)
    conduct(RUN, PLAN, lambda: (START, GIVEN), MADE, signing, Sites(), strategy_from(StrategyConfig()))

    assert set(signed) == {path.name for path in model_files(tmp_path)}
    # the model given, when it is read, with its scores, then the model made from it ...
    assert signed[:4] == ["round-000.safetensors"] * 3 + ["round-001.safetensors"]


@pytest.mark.parametrize("nth", range(9))
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


def test_the_earliest_of_equally_good_models_is_the_best(tmp_path: Path) -> None:
    run_in(tmp_path, Sites(dice=around(0.7, 0.7, 0.4)))

    assert read_model(keeping(tmp_path).best_file)[1].title == "given"


MOMENTS = [(exchange, who) for exchange in (1, 2, 3) for who in (*SITES, "all have answered")]


@pytest.mark.parametrize(
    ("moment", "error"), [*((moment, KeyboardInterrupt) for moment in MOMENTS), ((2, "lagos"), MemoryError)]
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
    ("newest", "harm"), [(1, "gone"), (2, "cut short"), (2, "a bit flipped"), (2, "gone"), (2, "another model")]
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


@pytest.mark.parametrize("other", [{"seed": 8}, {"strategy": "fedprox"}, {"config_sha256": "cd" * 32}, {"rounds": 9}])
def test_another_run_of_this_id_is_refused_and_the_first_one_stays_as_it_was(
    tmp_path: Path, uninterrupted: dict[str, Any], other: dict[str, Any]
) -> None:
    run_in(tmp_path)

    with pytest.raises(ConfigError, match=rf"run {RUN.id}: {next(iter(other))} "):
        conduct(
            replace(RUN, **other),
            PLAN,
            lambda: (START, GIVEN),
            MADE,
            keeping(tmp_path),
            Sites(),
            strategy_from(StrategyConfig()),
        )

    assert kept(tmp_path) == uninterrupted


def test_two_runs_in_one_store_leave_each_other_alone(tmp_path: Path, uninterrupted: dict[str, Any]) -> None:
    run_in(tmp_path)
    other = Keeping(tmp_path / "store.sqlite", tmp_path / "others", tmp_path / "replies")
    plan = replace(PLAN, run="glioma-2")

    with pytest.raises(KeyboardInterrupt):
        conduct(
            replace(RUN, id="glioma-2", seed=9), plan, lambda: (START, GIVEN), MADE, other,
            Sites(before=raising(KeyboardInterrupt, at=(2, "lagos"))), strategy_from(StrategyConfig()),
        )  # fmt: skip

    assert kept(tmp_path) == uninterrupted


def test_too_few_replies_end_the_run_as_failed_with_the_sites_named_and_earlier_rounds_kept(
    tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    everyone = frozenset((2, site) for site in SITES)

    with pytest.raises(FederationError, match=r"boston: out_of_memory; lagos: out_of_memory"):
        run_in(tmp_path, Sites(silent=everyone))
    assert kept(tmp_path)["status"] == "failed"
    assert list(kept(tmp_path)["digests"]) == ["round-000.safetensors", "round-001.safetensors"]
    with StoreReader(tmp_path / "store.sqlite") as store:  # what a person asks next
        rows = [(row.site, row.outcome, row.reason) for row in store.site_rounds(RUN.id) if row.round == 2]
    assert rows == [("boston", "fault", "out_of_memory"), ("lagos", "fault", "out_of_memory")]

    run_in(tmp_path)
    assert kept(tmp_path) == uninterrupted


def test_a_site_that_fails_in_one_round_leaves_a_row_with_the_reason(tmp_path: Path) -> None:
    run_in(tmp_path, Sites(silent=frozenset({(1, "lagos")})))

    with StoreReader(tmp_path / "store.sqlite") as store:
        rows = store.site_rounds(RUN.id)
        assert [(row.site, row.outcome, row.reason) for row in rows if row.round == 1] == [
            ("boston", "answered", None),
            ("lagos", "fault", "out_of_memory"),
        ]
        assert {score.site for score in store.scores(RUN.id) if score.round == 0} == {"boston"}


@pytest.mark.parametrize("size_kb", [1, 8])
def test_a_full_disk_is_said_and_with_room_again_it_goes_on(
    tmp_path: Path, uninterrupted: dict[str, Any], size_kb: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, Sites(before=raising(KeyboardInterrupt, at=(2, "lagos"))))

    with pytest.raises(BrainUNetError) as refused, largest_file(size_kb):
        run_in(tmp_path)
    assert "disk" in str(refused.value)
    assert refused.value.exit_code == 1

    run_in(tmp_path)
    assert kept(tmp_path) == uninterrupted
