"""A training from its first step to its last, scored on the way: the loop of one machine, not of a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import nn

from brainunet.data.preprocess import PreparedCase
from brainunet.errors import ConfigError
from brainunet.inference.predictor import predict_labels
from brainunet.metrics.report import empty_truths, score_case
from brainunet.metrics.summary import mean_region_dice, site_score
from brainunet.records import SiteScore, Structure
from brainunet.study.settings import FitConfig
from brainunet.training.average import averaged
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.loop import Training, begin, take_step
from brainunet.training.optimizer import learning_rate_at
from brainunet.training.whole_cases import takes_whole

FOREVER: Final = 10**9  # steps


@dataclass(frozen=True)
class Scored:
    """The validation figures of one moment.

    Attributes:
        seconds: of training, not counting scoring.
        empty: of how many of the cases the truth has none of a structure.
    """

    step: int
    seconds: float
    score: SiteScore
    empty: Mapping[Structure, int]

    @property
    def mean_dice(self) -> float | None:
        """Mean over ET, TC and WT; None without a validation case."""
        return mean_region_dice([self.score])

    @property
    def rank(self) -> float:
        """The mean to compare scorings by, below every possible one where there is none."""
        return -1.0 if self.mean_dice is None else self.mean_dice


@dataclass(frozen=True)
class Moment:
    """A scoring with the network that it belongs to, whose weights are the running mean where one is kept."""

    scored: Scored
    network: nn.Module
    is_best: bool


@dataclass(frozen=True)
class Fitted:
    """Loss and learning rate of each step, all scorings, and why it ended: "steps", "minutes" or "patience"."""

    losses: tuple[float, ...]
    rates: tuple[float, ...]
    scores: tuple[Scored, ...]
    ended_by: str


def fit(
    network: nn.Module,
    training_cases: Sequence[PreparedCase],
    validation_cases: Sequence[PreparedCase],
    config: FitConfig,
    *,
    checkpoint: Checkpoint,
    on_step: Callable[[Training, float], None] = lambda training, share: None,
    on_scored: Callable[[Moment], None] = lambda moment: None,
) -> Fitted:
    """Train ``network`` in place, scoring it on the way; goes on from ``checkpoint`` to the same result.

    Args:
        on_step: told the training and the share of it that is done (0 to 1).
        on_scored: told each scoring before the checkpoint knows of it: killed in between, it is told again.

    Raises:
        ConfigError: no case to train on, or settings that can't be.
        TrainingDivergedError: the loss or a gradient is NaN or infinite.
    """
    if config.patience is not None and not validation_cases:
        raise ConfigError("patience", found="no validation case", expected="at least one, to see when it gets no better")
    until = FOREVER if config.minutes is not None else None
    training = begin(network, training_cases, config.train, seed=config.seed, checkpoint=checkpoint, until=until)
    rates: list[float] = training.rest.setdefault("rates", [])
    empty = empty_truths(_truth(case) for case in validation_cases)
    scores = [_from_plain(plain, empty) for plain in training.rest.get("scores", [])]
    with closing(training):
        while (share := _share_done(training, config)) < 1 and not _exhausted(scores, config.patience):
            progress = None if config.minutes is None else share
            rates.append(learning_rate_at(training.done, config.train, progress))
            take_step(training, rates[-1], whole=takes_whole(training.done, config.train, progress))
            share = _share_done(training, config)
            on_step(training, share)
            if share >= 1 or training.done % config.score_every == 0:
                scores.append(_scored(training, validation_cases, empty, config, on_scored, scores))
                training.rest["scores"] = [_to_plain(each) for each in scores]
                training.save(checkpoint)
            elif training.done % checkpoint.every_steps == 0:
                training.save(checkpoint)
    by = "minutes" if config.minutes is not None else "steps"
    return Fitted(tuple(training.losses), tuple(rates), tuple(scores), by if _share_done(training, config) >= 1 else "patience")


def _share_done(training: Training, config: FitConfig) -> float:
    if config.minutes is not None:
        return training.seconds / (60 * config.minutes)
    return training.done / config.train.steps


def _exhausted(scores: Sequence[Scored], patience: int | None) -> bool:
    """Whether the last ``patience`` scorings brought nothing better than the best before them."""
    if patience is None or len(scores) <= patience:
        return False
    ranks = [scored.rank for scored in scores]
    return max(ranks[-patience:]) <= max(ranks[:-patience])


def _scored(
    training: Training,
    cases: Sequence[PreparedCase],
    empty: Mapping[Structure, int],
    config: FitConfig,
    on_scored: Callable[[Moment], None],
    before: Sequence[Scored],
) -> Scored:
    network = averaged(training.network, training.average)
    figures = []
    for number, case in enumerate(cases):
        predicted = predict_labels(network, case.image, config.validation.window)
        figures.append(score_case(str(number), predicted, _truth(case), case.spacing_mm, config.validation.metrics))
    scored = Scored(training.done, training.seconds, site_score(figures), empty)
    mean = scored.mean_dice
    best = max((m for s in before if (m := s.mean_dice) is not None), default=None)
    on_scored(Moment(scored, network, is_best=mean is not None and (best is None or mean > best)))
    training.network.train()
    return scored


def _truth(case: PreparedCase) -> npt.NDArray[np.uint8]:
    assert case.label is not None
    return case.label


def _to_plain(scored: Scored) -> dict[str, Any]:
    return {"step": scored.step, "seconds": scored.seconds, "score": scored.score.model_dump_json()}


def _from_plain(plain: dict[str, Any], empty: Mapping[Structure, int]) -> Scored:
    return Scored(plain["step"], plain["seconds"], SiteScore.model_validate_json(plain["score"]), empty)
