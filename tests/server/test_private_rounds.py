"""Private rounds at the coordinator: what they cost is kept whatever becomes of them, and each site gets its own head back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from brainunet.config import ModelConfig, PrivacyConfig, StrategyConfig
from brainunet.errors import ConfigError
from brainunet.modelfile import read_model
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.records import AnyTask, FaultCode, PrivacySpend, Reply, TrainTask
from brainunet_server.admission import AdmissionConfig, admit
from brainunet_server.answers import Answer
from brainunet_server.any_run import plan as plan_for
from brainunet_server.cli_privacy import all_that
from brainunet_server.federation import Folder, read_settings
from brainunet_server.round_results import LastingFaults
from brainunet_server.running import RunSettings, take_up_run
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import SpendRow
from brainunet_server.store.writer import StoreWriter
from tests.support.federation import done, told
from tests.support.replies import PLAN, START, evaluate_reply, train_reply
from tests.support.runs import GIVEN, RUN, keeping, run_in
from tests.support.store import RUN as STORED

PRIVACY = PrivacyConfig(epsilon=8.0, delta=1e-3, rounds=2)
PRIVATE = replace(PLAN, privacy=PRIVACY)


def spend(round: int, site: str, **changes: Any) -> PrivacySpend:
    digit = str(len(site) % 10)
    facts: dict[str, Any] = {
        "epsilon": 2.0 * round, "delta": 1e-3, "noise_multiplier": 1.5, "sample_rate": 0.1, "steps": 20,
        "total_epsilon": 3.0 * round, "total_delta": 0.0025,
        "ledger_head": f"{digit}{round}" * 32, "ledger_entries": 21 * round,
    }  # fmt: skip
    return PrivacySpend(**facts | changes)


def private_reply(task: AnyTask, site: str, **changes: Any) -> Reply:
    if not isinstance(task, TrainTask):
        return evaluate_reply(run=task.run, round=task.round)
    return train_reply(0.5, run=task.run, round=task.round, loss=None, seconds=None, spend=spend(task.round, site), **changes)


@dataclass(frozen=True)
class PrivateSites:
    """Two hospitals; ``answers`` makes their replies."""

    answers: Callable[[AnyTask, str], Reply] = private_reply

    def is_member(self, site: str) -> bool:
        return True

    def sites(self) -> Sequence[str]:
        return ["boston", "lagos"]

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        for site in sites:
            yield Answer(site, self.answers(task, site), 200, 100)


def spends_of(folder: Path) -> list[tuple[int, str, float]]:
    with StoreReader(folder / "store.sqlite") as store:
        return [(row.round, row.site, row.epsilon) for row in store.spends(RUN.id)]


def run_private(folder: Path, answers: Callable[[AnyTask, str], Reply] = private_reply, **changes: Any) -> None:
    run_in(folder, PrivateSites(answers), plan=replace(PRIVATE, **changes))  # type: ignore[arg-type] # an exchange of its own


def test_each_round_leaves_what_it_cost_and_each_model_says_so(tmp_path: Path) -> None:
    run_private(tmp_path)

    assert spends_of(tmp_path) == [(1, "boston", 2.0), (1, "lagos", 2.0), (2, "boston", 4.0), (2, "lagos", 4.0)]
    _, card = read_model(keeping(tmp_path).model_file(2))
    assert {site: (s.epsilon, s.delta) for site, s in card.spends.items()} == {"boston": (4.0, 1e-3), "lagos": (4.0, 1e-3)}
    assert {s.ledger_head for s in card.spends.values()} == {""}  # a matter of the two alone
    assert read_model(keeping(tmp_path).model_file(0))[1].spends == {}


def test_the_head_that_each_site_told_last_is_known(tmp_path: Path) -> None:
    run_private(tmp_path)

    with StoreReader(tmp_path / "store.sqlite") as store:
        assert store.ledger_heads() == {"boston": "62" * 32, "lagos": "52" * 32}


def test_what_a_refused_reply_has_cost_is_kept_too(tmp_path: Path) -> None:
    def too_long(task: AnyTask, site: str) -> Reply:
        reply = private_reply(task, site)
        if site == "lagos" and isinstance(task, TrainTask):
            return train_reply(1e9, run=task.run, round=task.round, loss=None, seconds=None, spend=spend(task.round, site))
        return reply

    run_private(tmp_path, too_long)

    assert [row for row in spends_of(tmp_path) if row[1] == "lagos"] == [(1, "lagos", 2.0), (2, "lagos", 4.0)]


def test_a_site_whose_budget_is_spent_only_scores_and_the_others_go_on(tmp_path: Path) -> None:
    def spent_after_one(task: AnyTask, site: str) -> Reply:
        if site == "lagos" and isinstance(task, TrainTask) and task.round > 1:
            return evaluate_reply(run=task.run, round=task.round, budget_spent=True)
        return private_reply(task, site)

    run_private(tmp_path, spent_after_one)

    with StoreReader(tmp_path / "store.sqlite") as store:
        assert store.run(RUN.id).status == "completed"
        lagos = [row for row in store.site_rounds(RUN.id) if row.site == "lagos"]
        assert [(row.outcome, row.reason) for row in lagos] == [
            ("answered", None), ("fault", "budget_spent"), ("answered", None),
        ]  # fmt: skip
        assert {score.round for score in store.scores(RUN.id) if score.site == "lagos"} == {0, 1, 2}


def test_a_run_whose_sites_have_all_spent_their_budget_ends_with_what_to_do(tmp_path: Path) -> None:
    def all_spent(task: AnyTask, site: str) -> Reply:
        if isinstance(task, TrainTask):
            return evaluate_reply(run=task.run, round=task.round, budget_spent=True)
        return private_reply(task, site)

    with pytest.raises(LastingFaults, match="budget of privacy bears no further round") as raised:
        run_private(tmp_path, all_spent, min_sites=2)

    assert raised.value.fault is FaultCode.BUDGET_SPENT


def task(privacy: PrivacyConfig | None = PRIVACY) -> TrainTask:
    return TrainTask(
        run=PLAN.run, round=1, model=PLAN.model, preprocess=PLAN.preprocess, train=PLAN.train, seed=7, weights=START,
        privacy=privacy,
    )  # fmt: skip


def test_training_that_is_not_as_private_as_was_asked_is_not_averaged() -> None:
    limits = AdmissionConfig()
    private: dict[str, Any] = {"loss": None, "seconds": None, "spend": spend(1, "lagos")}

    assert admit(train_reply(0.5, **private), task(), limits) is None
    assert admit(train_reply(0.5), task(), limits) == "trained without privacy, asked was with it"
    assert admit(train_reply(0.5, **private), task(None), limits) == "trained under privacy, which was not asked"
    loose: dict[str, Any] = {**private, "spend": spend(1, "lagos", delta=0.1)}
    assert admit(train_reply(0.5, **loose), task(), limits) == "counts at delta 0.1, asked was 0.001 at most"
    much: dict[str, Any] = {**private, "spend": spend(1, "lagos", epsilon=8.5)}
    assert admit(train_reply(0.5, **much), task(), limits) == "spent epsilon 8.5 of this run, asked was 8 at most"
    assert admit(evaluate_reply(round=1, budget_spent=True), task(), limits) is None
    assert admit(evaluate_reply(round=1, budget_spent=True), task(None), limits) is not None
    assert admit(evaluate_reply(round=1), task(), limits) is not None


def test_a_task_says_how_many_rounds_its_noise_is_for() -> None:
    def planned(privacy: PrivacyConfig) -> PrivacyConfig | None:
        settings = RunSettings.model_construct(
            model=PLAN.model, preprocess=PLAN.preprocess, train=PLAN.train, validation=PLAN.validation,
            strategy=StrategyConfig(), rounds=30, seed=0, privacy=privacy, admission=AdmissionConfig(),
        )  # fmt: skip
        return plan_for("run-1", settings, 2).privacy

    assert planned(PrivacyConfig()) == PrivacyConfig(rounds=30)
    assert planned(PrivacyConfig(rounds=5)) == PrivacyConfig(rounds=5)


def test_a_coordinator_sees_epsilon_by_site_and_round_and_the_words_for_a_lost_ledger(fed: Path) -> None:
    prepared(fed, ())
    assert "no private training yet" in done("privacy", fed)
    rows = [
        SpendRow(run_id=STORED.id, round=round, site=site, told_at=datetime.now(UTC), **spend(round, site).model_dump())
        for round in (1, 2)
        for site in ("boston", "lagos")
    ]
    prepared(fed, rows)

    shown = done("privacy", fed)
    assert all(word in shown for word in ("boston", "lagos", "2.000", "4.000", "6.000"))
    assert "boston, lagos: epsilon at delta 0.001, all runs at delta 0.0025; each case in 0.1 of the steps" in shown
    assert "--privacy --settle 1.5,0.1,451,glioma-1\n" in done(
        "privacy", fed, "--site", "lagos"
    )  # what makes the 6.000 that it told
    assert "boston" not in done("privacy", fed, "--site", "lagos")
    facts = told("privacy", fed)["spends"]
    assert [(row["site"], row["round"], row["epsilon"]) for row in facts] == [
        ("boston", 1, 2.0), ("lagos", 1, 2.0), ("boston", 2, 4.0), ("lagos", 2, 4.0),
    ]  # fmt: skip
    assert told("scores", fed)["privacy"] == {name: {"epsilon": 4.0, "delta": 1e-3} for name in ("boston", "lagos")}
    assert "lagos: epsilon 4.000 at delta 0.001 after round 2" in done("scores", fed)


@pytest.mark.parametrize("total", [None, 0.0, 1.0, 6.0])
def test_the_words_for_a_lost_ledger_cost_no_less_than_the_site_has_told(total: float | None) -> None:
    """A reply that never came is in its ledger alone; so is the first of two trainings of a round."""
    row = SpendRow(
        run_id=STORED.id, round=1, site="lagos", told_at=datetime.now(UTC),
        **spend(1, "lagos", total_epsilon=total, total_delta=None if total is None else 0.0025).model_dump(),
    )  # fmt: skip
    told = epsilon_of([Charge(1.5, 0.1, 20)], 0.0025)

    ((charge,),) = all_that([row]).values()

    assert (charge.noise, charge.rate) == (1.5, 0.1)
    if total is None or total < told:
        assert charge.steps == 20
    else:
        assert epsilon_of([replace(charge, steps=charge.steps - 1)], 0.0025) < total <= epsilon_of([charge], 0.0025)


def test_what_a_site_told_that_costs_what_its_rounds_cost_adds_nothing() -> None:
    total = epsilon_of([Charge(1.5, 0.1, 40)], 0.0025)
    rows = [
        SpendRow(
            run_id=STORED.id, round=round, site="lagos", told_at=datetime.now(UTC),
            **spend(round, "lagos", total_epsilon=total).model_dump(),
        )
        for round in (1, 2)
    ]  # fmt: skip

    assert all_that(rows) == {STORED.id: [Charge(1.5, 0.1, 40)]}


def prepared(fed: Path, rows: Sequence[SpendRow]) -> None:
    with StoreWriter(Folder(fed).store) as store:
        store.start_run(STORED)
        store.record_spends(rows)


def test_batch_norm_and_privacy_do_not_begin_a_run(fed: Path) -> None:
    config = read_settings(Folder(fed), ["privacy.epsilon=8"])
    card = GIVEN.model_copy(update={"model": ModelConfig(norm="batch")})

    with pytest.raises(ConfigError, match='norm "group"'):
        take_up_run(Folder(fed), config, card, new_run=False)
