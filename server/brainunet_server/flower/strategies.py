"""The server's step by name. The mathematics is Flower's (see ``aggregation``); here are the strategies' numbers.

Two families: the strategies of the first get the weighted mean of the admitted replies, those of the second every reply.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    MultiKrum,
)

from brainunet.config import StrategyConfig
from brainunet.errors import ConfigError
from brainunet.settings import nearest
from brainunet_server.flower.aggregation import ARRAYS, WEIGHT
from brainunet_server.flower.from_all import FromAll, least_sites_of_trimming
from brainunet_server.flower.from_mean import FromMean

FlowerStrategy: TypeAlias = FromMean | FromAll

# The server's learning rate where none is given. 1.0 takes the mean step as it is, as Hsu et al. 2019 do (and Flower).
# FedYogi's is Flower's own, and FedAdam gets the same instead of Flower's 0.1: with the usual momenta and adaptivity the
# first step is then at most as long as the sites' own change of each weight (0.1 would overshoot it up to seven times).
AVERAGED_RATE: Final = 1.0
ADAPTIVE_RATE: Final = 0.01

S = TypeVar("S", bound=FedAvg)


def _adaptive(kind: type[FedAdam] | type[FedYogi]) -> Callable[[StrategyConfig], FlowerStrategy]:
    """FedAdam or FedYogi, Reddi et al. 2021 (arXiv:2003.00295); to FedAdam, Flower adds Adam's correction of early steps."""
    return lambda config: FromMean(
        config.name,
        _quiet(
            kind,
            eta=_rate(config, ADAPTIVE_RATE),
            beta_1=config.momentum,
            beta_2=config.second_momentum,
            tau=config.adaptivity,
        ),
    )


STRATEGIES: Final[Mapping[str, Callable[[StrategyConfig], FlowerStrategy]]] = MappingProxyType(
    {
        "fedavg": lambda config: FromMean(config.name, _quiet(FedAvg)),  # McMahan et al. 2017, arXiv:1602.05629
        "fedprox": lambda config: FromMean(  # Li et al. 2020, arXiv:1812.06127: averages alike, the sites train otherwise
            config.name, _quiet(FedProx, proximal_mu=config.proximal_mu), proximal_mu=config.proximal_mu
        ),
        "fedavgm": lambda config: FromMean(  # Hsu et al. 2019, arXiv:1909.06335
            config.name,
            _quiet(FedAvgM, server_learning_rate=_rate(config, AVERAGED_RATE), server_momentum=config.momentum),
        ),
        "fedadam": _adaptive(FedAdam),
        "fedyogi": _adaptive(FedYogi),
        "fedmedian": lambda config: FromAll(config.name, _quiet(FedMedian)),  # Yin et al. 2018, arXiv:1803.01498
        "fedtrimmedavg": lambda config: FromAll(  # Yin et al. 2018
            config.name,
            _quiet(FedTrimmedAvg, beta=config.trimmed_share),
            least_sites=least_sites_of_trimming(config.trimmed_share),
        ),
        "multikrum": lambda config: FromAll(  # Blanchard et al. 2017, arXiv:1703.02757: 2f + 2 < n
            config.name,
            _quiet(MultiKrum, num_malicious_nodes=config.malicious_sites),
            least_sites=2 * config.malicious_sites + 3,
        ),
    }
)


def strategy_from(config: StrategyConfig, sites: int | None = None) -> FlowerStrategy:
    """The configured strategy.

    Args:
        sites: how many take part in a round at least (the run's ``min_sites``); None leaves the check to each round.

    Raises:
        ConfigError: a name that STRATEGIES does not hold, or too few sites for the strategy to do what it promises.
    """
    make = STRATEGIES.get(config.name)
    if make is None:
        raise ConfigError("strategy.name", found=f"{config.name} is not known ({nearest(config.name, STRATEGIES)})")
    strategy = make(config)
    if isinstance(strategy, FromAll) and sites is not None and sites < strategy.least_sites:
        number = "malicious_sites" if config.name == "multikrum" else "trimmed_share"
        raise ConfigError(
            "strategy.name",
            found=f"{config.name} with rounds of {sites} sites",
            expected=f"at least {strategy.least_sites} with {number} = {getattr(config, number)}",
            remedy=f"raise min_sites, change strategy.{number}, or take another strategy",
        )
    return strategy


def _rate(config: StrategyConfig, default: float) -> float:
    return default if config.server_learning_rate is None else config.server_learning_rate


def _quiet(kind: type[S], **numbers: Any) -> S:
    # Flower logs a line for each aggregation; our own record says who answered and how
    logging.getLogger("flwr").setLevel(logging.ERROR)
    return kind(fraction_evaluate=0.0, weighted_by_key=WEIGHT, arrayrecord_key=ARRAYS, **numbers)
