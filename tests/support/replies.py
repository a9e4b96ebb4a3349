"""What sites send back: weights of two small arrays, and replies about them."""

from __future__ import annotations

from typing import Any

import numpy as np

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig, ValidationConfig
from brainunet.records import CaseCounts, EvaluateReply, ScoreRow, SiteScore, TrainReply
from brainunet.weights import Weights
from brainunet_server.rounds import Plan

START = Weights.of({"kernel": np.array([[1.0, 2.0], [3.0, 4.0]]), "bias": np.array([0.5])})
PLAN = Plan(
    run="glioma-1",
    rounds=2,
    min_sites=1,
    seed=7,
    model=ModelConfig(),
    preprocess=PreprocessConfig(),
    train=TrainConfig(),
    validation=ValidationConfig(),
)


def delta(value: float) -> Weights:
    """A change of ``value`` in every weight of START."""
    return Weights.of({name: np.full(shape, value, np.float32) for name, shape in START.layout})


def site_score(dice: float | None = 0.5, *, cases: int = 4) -> SiteScore:
    row = ScoreRow(
        structure="WT",
        metric="dice",
        mean=dice,
        median=dice,
        n=0 if dice is None else cases,
        missing=cases if dice is None else 0,
    )
    return SiteScore(cases=cases, rows=(row,))


def train_reply(change: float | Weights = 0.0, *, cases: int = 10, **fields: Any) -> TrainReply:
    given: dict[str, Any] = {
        "run": PLAN.run,
        "round": 1,
        "delta": delta(change) if isinstance(change, float) else change,
        "cases": CaseCounts(train=cases, validation=4),
        "score": site_score(),
        "loss": 0.25,
        "seconds": 60.0,
        "client_version": "0.1.0",
    }
    return TrainReply(**given | fields)


def evaluate_reply(**fields: Any) -> EvaluateReply:
    given: dict[str, Any] = {
        "run": PLAN.run,
        "round": PLAN.rounds + 1,
        "cases": CaseCounts(train=10, validation=4),
        "score": site_score(),
        "seconds": 6.0,
        "client_version": "0.1.0",
    }
    return EvaluateReply(**given | fields)
