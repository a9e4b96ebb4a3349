"""Which replies may enter the average, and what is said of the others."""

from __future__ import annotations

import numpy as np
import pytest

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig, ValidationConfig
from brainunet.records import EvaluateTask, Fault, FaultCode, Reply, ScoreRow, SiteScore, TrainTask
from brainunet.weights import Weights
from brainunet_server.admission import RULES, AdmissionConfig, admit, outliers
from tests.support.replies import PLAN, START, delta, evaluate_reply, site_score, train_reply

TRAIN = TrainTask(
    run=PLAN.run, round=1, model=ModelConfig(), preprocess=PreprocessConfig(), train=TrainConfig(), seed=7, weights=START
)
EVALUATE = EvaluateTask(run=PLAN.run, round=3, model=ModelConfig(), preprocess=PreprocessConfig(), weights=START)


def changed(name: str, value: float) -> Weights:
    """A delta of which one value is ``value``."""
    arrays = {key: array.copy() for key, array in delta(0.0).as_dict().items()}
    arrays[name].flat[-1] = value
    return Weights.of(arrays)


def renamed() -> Weights:
    return Weights(("kernel", "biass"), delta(0.0).arrays)


def reordered() -> Weights:
    return Weights.of(dict(reversed(delta(0.0).as_dict().items())))


def told(*metrics: str) -> SiteScore:
    rows = (ScoreRow(structure="WT", metric=name, mean=1.0, median=1.0, n=4, missing=0) for name in metrics)
    return SiteScore(cases=4, rows=tuple(rows))


def test_distances_are_admitted_where_they_were_asked_for() -> None:
    asked = TRAIN.model_copy(update={"validation": ValidationConfig(metrics=("dice", "hd95_mm"))})

    assert admit(train_reply(score=told("dice", "hd95_mm")), asked) is None
    assert admit(train_reply(score=told("dice")), asked) is None


def test_what_was_asked_for_is_admitted() -> None:
    assert admit(train_reply(0.5), TRAIN) is None
    assert admit(evaluate_reply(), EVALUATE) is None


def test_a_fault_breaks_no_rule_for_it_is_counted_apart() -> None:
    fault = Fault(run=PLAN.run, round=1, code=FaultCode.NO_USABLE_CASES)

    assert admit(fault, TRAIN) is None
    assert admit(fault.model_copy(update={"round": 3}), EVALUATE) is None


def test_who_cant_read_a_task_need_not_know_its_round() -> None:
    assert admit(Fault(run="unknown", round=0, code=FaultCode.TASK_NOT_UNDERSTOOD), TRAIN) is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (train_reply(round=2), "replies to round 2 of run glioma-1, asked was round 1 of run glioma-1"),
        (train_reply(run="glioma-2"), "replies to round 1 of run glioma-2, asked was round 1 of run glioma-1"),
        (Fault(run="unknown", round=0, code=FaultCode.INTERNAL), "replies to round 0 of run unknown"),
        (evaluate_reply(round=1), "sent evaluate_reply, asked was train_reply"),
        (train_reply(cases=0), "trained on no case"),
        (train_reply(renamed()), "the update's names or shapes are not the model's"),
        (train_reply(reordered()), "the update's names or shapes are not the model's"),
        (train_reply(Weights.of({})), "the update's names or shapes are not the model's"),
        (train_reply(Weights.of({"kernel": np.zeros(4), "bias": np.zeros(1)})), "the update's names or shapes"),
        (train_reply(changed("bias", np.nan)), "the update holds NaN or infinite values"),
        (train_reply(changed("kernel", np.inf)), "the update holds NaN or infinite values"),
        (train_reply(changed("kernel", -np.inf)), "the update holds NaN or infinite values"),
        (train_reply(cases=5_000), "claims 5004 cases, more than 5000 are not believed"),
        (train_reply(score=site_score(cases=5)), "scored 5 cases of 4"),
        (train_reply(score=told("dice", "hd95_mm")), "tells hd95_mm, asked was dice"),
        (train_reply(70.0), "an update of length 156.5, the bound for this model is 65"),
    ],
)
def test_what_may_not_enter_the_average_is_refused_with_the_reason(reply: Reply, reason: str) -> None:
    said = admit(reply, TRAIN)

    assert said is not None
    assert said.startswith(reason)


def test_a_training_is_no_answer_to_an_evaluation() -> None:
    assert admit(train_reply(round=3), EVALUATE) == "sent train_reply, asked was evaluate_reply"


def test_the_first_rule_that_fails_names_the_reason() -> None:
    wrong_in_every_way = train_reply(changed("bias", np.nan), cases=0, round=9)

    limits = AdmissionConfig()

    broken = [rule(wrong_in_every_way, TRAIN, limits) is not None for rule in RULES]
    assert broken == [True, False, False, True, False, False, True, False]
    assert admit(wrong_in_every_way, TRAIN) == RULES[0](wrong_in_every_way, TRAIN, limits)


def test_an_update_far_longer_than_the_others_is_an_outlier_however_the_sites_are_called() -> None:
    norms = {"A": 1.0, "B": 2.0, "C": 3.0, "D": 31.0}

    assert list(outliers(norms, AdmissionConfig())) == ["D"]  # the median of four is 2.5
    assert outliers({**norms, "D": 24.9}, AdmissionConfig()) == {}
    assert list(outliers({**norms, "D": 24.9}, AdmissionConfig(norm_factor=5))) == ["D"]


@pytest.mark.parametrize("norms", [{}, {"A": 9.0}, {"A": 1.0, "B": 1e6}, {"A": 0.0, "B": 0.0, "C": 5.0}])
def test_too_few_sites_or_still_ones_give_nothing_to_compare_with(norms: dict[str, float]) -> None:
    assert outliers(norms, AdmissionConfig()) == {}
