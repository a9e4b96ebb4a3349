"""A round of private training at a hospital: what leaves, what is written down before, and what stops it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from brainunet.config import ModelConfig, PrivacyConfig
from brainunet.errors import ConfigError, PrivacyError
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.privacy.purse import open_purse
from brainunet.privacy.spending import read_spending
from brainunet.records import EvaluateReply, FaultCode, SiteScore, TrainReply, TrainTask
from brainunet.wire import pack
from brainunet_client.faults import fault_code
from brainunet_client.site import PrivateSite, Site
from brainunet_client.site_settings import SitePrivacy
from brainunet_client.stopping import KeepGoing
from brainunet_client.tasks import do
from tests.support.nets import weights
from tests.support.sites import evaluate_task, train_task

RECEIVED = weights()


@pytest.fixture
def site(hospital: Site, tmp_path: Path) -> Site:
    """Two training cases of which it says that there are three; a work folder and a ledger of the test's own."""
    own = SitePrivacy(public_cases=3, epsilon=50.0)
    return replace(hospital, work=tmp_path / "work", privacy=PrivateSite(own, tmp_path / "home" / "privacy.jsonl"))


def task(round: int = 1, *, head: str = "", steps: int = 2, **privacy: Any) -> TrainTask:
    asked = {"epsilon": 20.0, "delta": 0.01, "rounds": 3, "cases_per_step": 1, **privacy}
    return train_task(RECEIVED, round=round, steps=steps, privacy=PrivacyConfig(**asked), ledger_head=head)


def private(site: Site, **changes: Any) -> Site:
    assert site.privacy is not None
    return replace(site, privacy=replace(site.privacy, **changes))


def changed(site: Site, **settings: Any) -> Site:
    assert site.privacy is not None
    return private(site, settings=site.privacy.settings.model_copy(update=settings))


def ledger(site: Site) -> Path:
    assert site.privacy is not None
    return site.privacy.ledger


def trained(site: Site, asked: TrainTask) -> TrainReply:
    reply = do(asked, site)
    assert isinstance(reply, TrainReply)
    return reply


def steps_spent(site: Site) -> int:
    spent = read_spending(ledger(site))
    return 0 if spent is None else sum(charge.steps for charge in spent.all_charges)


def test_a_private_reply_tells_the_delta_the_declared_count_the_spend_and_the_scores_and_nothing_else(site: Site) -> None:
    reply = trained(site, task())

    assert (reply.loss, reply.seconds) == (None, None)
    assert reply.cases.train == 3  # as declared, and not the two that there are
    assert reply.delta.norm > 0
    assert reply.spend is not None
    spent = read_spending(ledger(site))
    assert spent is not None
    assert (reply.spend.steps, reply.spend.sample_rate) == (2, 1 / 3)
    assert reply.spend.epsilon == epsilon_of([Charge(reply.spend.noise_multiplier, 1 / 3, 2)], 0.01)
    assert (reply.spend.ledger_head, reply.spend.ledger_entries) == (spent.head, spent.entries)
    assert "BraTS" not in pack(reply).header


def test_what_is_told_is_the_same_with_one_case_more_or_less(site: Site) -> None:
    """The part of a reply beside delta and ledger depends on no training case."""

    def told(site: Site, name: str) -> dict[str, Any]:
        own = private(replace(site, work=site.work / name), ledger=site.work / f"{name}.jsonl")
        header: dict[str, Any] = json.loads(pack(trained(own, task())).header)
        header["spend"].pop("ledger_head")  # holds the time
        return header

    assert told(site, "two") == told(replace(site, train=site.train[:1]), "one")


def test_rounds_add_up_and_three_of_them_cost_what_was_proposed(site: Site) -> None:
    head = ""
    for round in (1, 2, 3):
        spend = trained(site, task(round, head=head)).spend
        assert spend is not None
        head = spend.ledger_head
    assert spend is not None
    assert 19.5 < spend.epsilon <= 20.0
    assert spend.total_epsilon is not None

    fourth = do(task(4, head=head), site)
    assert isinstance(fourth, EvaluateReply)
    assert fourth.budget_spent
    assert fourth.score.cases == 1
    assert steps_spent(site) == 6


@pytest.mark.slow
def test_no_two_trainings_of_one_task_are_alike(site: Site) -> None:
    assert trained(site, task()).delta.digest != trained(site, task()).delta.digest
    assert steps_spent(site) == 4  # and both count


@pytest.mark.slow
def test_a_simulation_repeats_by_its_seed(site: Site, tmp_path: Path) -> None:
    one, two = (replace(private(site, seed=5, ledger=tmp_path / name), work=tmp_path / f"work-{name}") for name in ("a", "b"))

    assert trained(one, task()).delta.digest == trained(two, task()).delta.digest


def stops_in(steps: int) -> KeepGoing:
    left = [steps]

    def keep_going() -> bool:
        left[0] -= 1
        return left[0] >= 0

    return keep_going


def test_an_orderly_stop_costs_no_step_twice(site: Site) -> None:
    from brainunet_client.faults import Stopped

    asked = task(steps=3)
    with pytest.raises(Stopped):
        do(asked, site, keep_going=stops_in(3))  # asked before each of three cases, and after the first step
    assert steps_spent(site) == 1

    reply = trained(site, asked)

    assert steps_spent(site) == 3
    assert reply.spend is not None
    assert reply.spend.steps == 3


def test_figures_of_validation_cases_can_be_kept_here(site: Site) -> None:
    quiet = changed(site, tell_scores=False)

    for reply in (trained(quiet, task()), do(evaluate_task(RECEIVED), quiet)):
        assert reply.score == SiteScore(cases=0, rows=(), withheld=True)
        assert reply.cases.validation == 0
    assert do(evaluate_task(RECEIVED), quiet).cases.train == 3


BEFORE_ANYTHING: dict[str, tuple[Callable[[Site], Site], Callable[[], TrainTask], str]] = {
    "no privacy asked for": (lambda site: site, lambda: train_task(RECEIVED), "site.toml demands"),
    "no privacy allowed": (lambda site: replace(site, privacy=None), task, r"no part \[privacy\]"),
    "a delta above one over the cases": (lambda site: site, lambda: task(delta=0.5), "at most 1 / 3"),
    "a step of more cases than declared": (lambda site: site, lambda: task(cases_per_step=4), "4 cases in a step, of 3"),
    "more rounds than the budget bears": (lambda site: changed(site, epsilon=10.0), task, "the budget bears"),
    "a head that the ledger has not": (lambda site: site, lambda: task(head="a" * 64), "it was lost"),
    "another number of cases than declared first": (
        lambda site: changed(begun(site), public_cases=4),
        task,
        "which was declared first",
    ),
    "the ledger of another site": (lambda site: replace(begun(site), name="accra"), task, "ledger of another site"),
    "a clock that was set back": (
        lambda site: private(begun(site), now=lambda: datetime.now(UTC) - timedelta(days=1)),
        task,
        "only goes forward",
    ),
    "a ledger that was cut": (lambda site: private(begun(site), least_entries=99), task, "rolled back"),
}  # fmt: skip


def begun(site: Site) -> Site:
    with open_purse(ledger(site), site="CRV", cases=3, run="another", round=1) as purse:
        purse.pay(Charge(30.0, 0.1))
    return site


@pytest.mark.parametrize("name", BEFORE_ANYTHING)
def test_what_may_not_be_is_refused_with_a_sentence_and_nothing_is_trained_or_spent(site: Site, name: str) -> None:
    change, asked, said = BEFORE_ANYTHING[name]
    other = change(site)
    before = steps_spent(site)

    with pytest.raises(PrivacyError, match=said) as raised:
        do(asked(), other, on_step=lambda step, loss: pytest.fail("a step was taken"))

    assert fault_code(raised.value) is FaultCode.PRIVACY_REFUSED
    assert steps_spent(site) == before


def test_batch_norm_is_refused_before_anything_is_spent(site: Site) -> None:
    from brainunet.model import weights_of
    from tests.support.nets import network as net

    batch = task().model_copy(
        update={"model": ModelConfig(preset="brainunet-nano", norm="batch"), "weights": weights_of(net(norm="batch"))}
    )

    with pytest.raises(ConfigError, match="BatchNorm3d"):
        do(batch, site)
    assert steps_spent(site) == 0


def test_fewer_cases_than_a_step_draws_are_refused_before_anything_is_spent(site: Site) -> None:
    with pytest.raises(PrivacyError, match="0 cases to train on"):
        do(task(), replace(site, train=()))
    assert steps_spent(site) == 0


def test_two_clients_on_one_ledger_do_not_train_at_a_time(site: Site) -> None:
    with (
        open_purse(ledger(site), site="CRV", cases=3, run="another", round=1),
        pytest.raises(PrivacyError, match="another client"),
    ):
        do(task(), site)


def test_a_ledger_that_goes_away_while_the_site_still_scores_is_missed(site: Site) -> None:
    head = trained(site, task()).spend.ledger_head  # type: ignore[union-attr] # a private reply has one

    def goes_away() -> bool:
        ledger(site).unlink(missing_ok=True)
        return True

    with pytest.raises(PrivacyError, match="it was lost"):
        do(task(2, head=head), site, keep_going=goes_away)
    assert not ledger(site).exists()  # no new one with a whole budget


def test_secure_noise_trains_too(site: Site) -> None:
    assert trained(site, task(secure_noise=True, steps=1)).delta.norm > 0
