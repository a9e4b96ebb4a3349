"""Whether a hospital and its budget allow a private round: numbers only."""

from __future__ import annotations

from typing import Any

import pytest

from brainunet.config import PrivacyConfig
from brainunet.errors import PrivacyError
from brainunet.privacy.accounting import Charge, epsilon_of
from brainunet.privacy.spending import Spent
from brainunet.records import TrainTask
from brainunet_client.privacy_plan import NO_SPENDING, PrivatePlan, plan_of, verdict
from brainunet_client.site_settings import SitePrivacy, SiteSettings, stricter
from tests.support.nets import weights
from tests.support.sites import train_task

OWN = SitePrivacy(public_cases=40, epsilon=8.0)


def task(round: int = 1, steps: int = 20, accumulate: int = 1, whole_share: float = 0.0, **privacy: Any) -> TrainTask:
    asked = {"epsilon": 8.0, "delta": 1e-3, "rounds": 10, **privacy}
    made = train_task(weights(), round=round, steps=steps, accumulate=accumulate, privacy=PrivacyConfig(**asked))
    return made.model_copy(update={"train": made.train.model_copy(update={"whole_share": whole_share})})


def plan(own: SitePrivacy = OWN, **asked: Any) -> PrivatePlan:
    return plan_of(stricter(SiteSettings(privacy=own), task(**asked)), own)


def after(made: PrivatePlan, rounds: int, run: str = "glioma-1", more_steps: int = 0) -> Spent:
    steps = made.a_round.steps * rounds + more_steps
    return Spent("lagos", 40, {run: (Charge(made.a_round.noise, made.a_round.rate, steps),)})


def test_the_noise_lets_all_rounds_of_the_run_cost_no_more_than_was_proposed() -> None:
    made = plan()

    assert (made.a_round.rate, made.a_round.steps) == (0.1, 20)  # 4 of 40 cases
    whole = epsilon_of([Charge(made.a_round.noise, 0.1, 200)], 1e-3)
    assert 7.9 < whole <= 8


def test_the_same_wish_needs_more_noise_at_a_smaller_hospital() -> None:
    assert plan(SitePrivacy(public_cases=20, epsilon=8)).a_round.noise > plan().a_round.noise


def test_the_stricter_of_hospital_and_federation_holds() -> None:
    careful = SitePrivacy(public_cases=40, epsilon=2.0, delta=1e-4, secure_noise=True)
    agreed = stricter(SiteSettings(privacy=careful), task())
    made = plan_of(agreed, careful)

    assert agreed.privacy is not None
    assert (agreed.privacy.epsilon, agreed.privacy.delta, agreed.privacy.secure_noise) == (2.0, 1e-4, True)
    assert epsilon_of([Charge(made.a_round.noise, 0.1, 200)], 1e-4) <= 2.0
    assert plan(OWN, epsilon=3.0).epsilon == 3.0
    assert plan(SitePrivacy(public_cases=40, epsilon=8.0, min_noise=9.0)).a_round.noise == 9.0


@pytest.mark.parametrize(
    ("own", "asked", "said"),
    [
        (None, {}, r"no part \[privacy\]"),
        (OWN, {"delta": 0.03}, r"at most 1 / 40 = 0.025"),
        (OWN, {"cases_per_step": 41}, "41 cases in a step, of 40"),
        (OWN, {"accumulate": 2}, "train.accumulate"),
        (OWN, {"whole_share": 0.5}, "train.whole_share"),
        (OWN, {"epsilon": 1e-5}, "Raise epsilon, or ask for fewer rounds"),
    ],
)
def test_what_can_not_be_kept_is_refused_with_what_to_do(own: SitePrivacy | None, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(PrivacyError, match=said):
        plan_of(stricter(SiteSettings(privacy=own), task(**asked)), own)


@pytest.mark.parametrize("clip", [0, 1e-30, 1e30])
def test_a_federation_can_not_ask_for_a_clip_whose_noise_single_precision_loses(clip: float) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        PrivacyConfig(clip=clip)


def test_a_private_hospital_refuses_training_without_privacy() -> None:
    with pytest.raises(PrivacyError, match=r"training without privacy, but expected privacy, which site\.toml demands"):
        plan_of(train_task(weights()), OWN)


@pytest.mark.parametrize(
    "settings", [{"epsilon": 0}, {"epsilon": -1}, {"delta": 1.0}, {"delta": 0.03}, {"public_cases": 0}, {}]
)
def test_a_hospital_can_not_allow_what_protects_nothing(settings: dict[str, Any]) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        SitePrivacy(**({"public_cases": 40, "epsilon": 8.0} | settings if settings else {}))


def test_a_run_is_trained_round_by_round_to_its_end_and_not_one_round_longer() -> None:
    made = plan()

    assert verdict(made, NO_SPENDING, 1) == "train"
    assert verdict(made, after(made, 9), 10) == "train"
    assert verdict(made, after(made, 10), 11) == "budget spent"
    assert made.left(after(made, 4)) == 6


def test_what_an_interruption_has_cost_ends_the_run_earlier() -> None:
    made = plan()

    assert verdict(made, after(made, 9, more_steps=1), 10) == "budget spent"


def test_an_interrupted_round_goes_on_until_its_next_step_is_too_much() -> None:
    made = plan()
    begun = after(made, 9, more_steps=10)

    assert verdict(made, Spent("lagos", 40, begun.charges, last=("glioma-1", 10)), 10) == "train"
    full = after(made, 10)
    assert verdict(made, Spent("lagos", 40, full.charges, last=("glioma-1", 10)), 10) == "budget spent"
    with pytest.raises(PrivacyError, match="budget is spent"):
        made.require_step(full)


def test_other_runs_spend_from_the_same_budget() -> None:
    made = plan()

    assert verdict(made, after(made, 20, run="another-model"), 1) == "budget spent"


def test_more_rounds_than_the_budget_bears_are_refused_before_the_first() -> None:
    made = plan()
    with pytest.raises(PrivacyError, match=r"10 rounds, of which the budget bears \d+ \(epsilon \d\.\d\d of 8 is spent\)"):
        verdict(made, after(made, 5, run="another-model"), 1)
    begun = Spent("lagos", 40, {**after(made, 5, run="another-model").charges, **after(made, 1).charges})
    assert verdict(made, begun, 2) == "train"  # one that has begun goes on as long as it can
