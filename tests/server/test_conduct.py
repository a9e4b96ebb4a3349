"""A run keeps models, rows and cards of all that it does, and says what stops it."""

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
from brainunet_server.round_results import RoundResult
from brainunet_server.store.reader import StoreReader
from tests.support.replies import PLAN, START
from tests.support.rights import largest_file
from tests.support.runs import DICE, GIVEN, MADE, RUN, SITES, Sites, around, keeping, kept, model_files, raising, run_in


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


def test_the_earliest_of_equally_good_models_is_the_best(tmp_path: Path) -> None:
    run_in(tmp_path, Sites(dice=around(0.7, 0.7, 0.4)))

    assert read_model(keeping(tmp_path).best_file)[1].title == "given"


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
