"""Server's steps in tests: strategies by name, and what sites that train on from a model send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from brainunet.config import StrategyConfig
from brainunet.weights import WeightedMean, Weights
from brainunet_server.flower.strategies import FlowerStrategy, strategy_from
from tests.support.replies import START

REMEMBERING: Final = ("fedavgm", "fedadam", "fedyogi")
COMPARING: Final = ("fedmedian", "fedtrimmedavg", "multikrum")
SIZE: Final = START.flat().size


def made_of(numbers: Sequence[float] | npt.NDArray[np.generic]) -> Weights:
    """Weights of START's layout."""
    return Weights.from_flat(START.layout, np.asarray(numbers, np.float32))


def mean_of(sites: Sequence[tuple[Weights, float]]) -> tuple[Weights, int]:
    mean = WeightedMean()
    for weights, cases in sites:
        mean.fold(weights, weight=cases)
    return mean.result(), int(mean.total)


def strategy(name: str, **numbers: object) -> FlowerStrategy:
    return strategy_from(StrategyConfig.model_validate({"name": name} | numbers))


def stepped(taken: FlowerStrategy, exchange: int, current: Weights, sites: Sequence[tuple[Weights, float]]) -> Weights:
    """One step, of either family, the way rounds are run."""
    if taken.needs_every_reply:
        return taken.step_from_all(exchange, current, sites)
    return taken.step(exchange, current, *mean_of(sites))


def around(current: Weights, random: np.random.Generator, *, sites: int = 7) -> list[tuple[Weights, float]]:
    """Models of sites that have trained on from ``current``, and their numbers of cases."""
    drift = random.normal(0, 0.05, SIZE)
    return [
        (made_of(current.flat() + drift + random.normal(0, 0.02, SIZE)), float(random.integers(5, 80))) for _ in range(sites)
    ]
