"""One message of every kind, each field filled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from brainunet.config import ModelConfig, PreprocessConfig, PrivacyConfig, TrainConfig
from brainunet.records import (
    AnyTask,
    CaseCounts,
    EvaluateReply,
    EvaluateTask,
    Fault,
    FaultCode,
    PrivacySpend,
    Reply,
    ScoreRow,
    SiteScore,
    TrainReply,
    TrainTask,
)
from brainunet.weights import Weights

WEIGHTS = Weights.of({"w": np.arange(6).reshape(2, 3), "b": np.float32(0.5)})
SCORE = SiteScore(
    cases=3,
    rows=(
        ScoreRow(structure="ET", metric="dice", mean=0.5, median=0.25, n=2, missing=1),
        ScoreRow(structure="NETC", metric="dice", mean=None, median=None, n=0, missing=3),
    ),
)
SPEND = PrivacySpend(
    epsilon=3.5,
    delta=1e-5,
    noise_multiplier=1.1,
    sample_rate=0.1,
    steps=20,
    total_epsilon=4.5,
    total_delta=1e-4,
    ledger_head="a1" * 32,
    ledger_entries=43,
)
COUNTS = CaseCounts(train=9, validation=3)


def train_task(weights: Weights = WEIGHTS) -> TrainTask:
    return TrainTask(
        run="run-1",
        round=3,
        model=ModelConfig(preset="brainunet-nano"),
        preprocess=PreprocessConfig(clip_percentiles=(1, 99)),
        weights=weights,
        train=TrainConfig(steps=7),
        privacy=PrivacyConfig(epsilon=3.0, rounds=30),
        seed=2**63 - 1,
        proximal_mu=0.01,
        ledger_head="0f" * 32,
    )


def evaluate_task() -> EvaluateTask:
    return EvaluateTask(run="run-1", round=3, model=ModelConfig(), preprocess=PreprocessConfig(), weights=WEIGHTS)


def train_reply(delta: Weights = WEIGHTS) -> TrainReply:
    return TrainReply(
        run="run-1",
        round=3,
        delta=delta,
        cases=COUNTS,
        score=SCORE,
        loss=0.7,
        seconds=12.5,
        client_version="0.1.0",
    )


def private_reply(delta: Weights = WEIGHTS) -> TrainReply:
    """What a training under privacy tells, which is less."""
    return train_reply(delta).model_copy(update={"loss": None, "seconds": None, "spend": SPEND})


def evaluate_reply() -> EvaluateReply:
    return EvaluateReply(run="run-1", round=3, cases=COUNTS, score=SCORE, seconds=1, client_version="0.1.0+local")


def fault() -> Fault:
    return Fault(run="run-1", round=0, code=FaultCode.DISK_FULL)


MESSAGES: dict[str, Callable[[], AnyTask | Reply]] = {
    "train_task": train_task,
    "evaluate_task": evaluate_task,
    "train_reply": train_reply,
    "private_reply": private_reply,
    "evaluate_reply": evaluate_reply,
    "fault": fault,
}
