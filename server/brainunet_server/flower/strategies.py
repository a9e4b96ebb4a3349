"""The server's step by name. The mathematics is Flower's; a strategy gets the admitted replies' weighted mean as one reply.

For FedAvg-like strategies that is the same number they would compute from all replies, and neither memory nor a single odd
record of one site can hurt the run (docs/adr/0002).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedProx
from flwr.supercore.task_identity import TaskIdentity

from brainunet.config import StrategyConfig, nearest
from brainunet.errors import ConfigError, FederationError
from brainunet.weights import Weights

ARRAYS, CASES = "arrays", "num-examples"


@dataclass(frozen=True)
class FlowerStrategy:
    """One of Flower's strategies seen as a server's step on :class:`Weights`."""

    inner: FedAvg
    proximal_mu: float = 0.0

    def step(self, exchange: int, current: Weights, mean: Weights, cases: int) -> Weights:
        """The model after ``exchange``.

        Raises:
            FederationError: the strategy gave nothing back.
        """
        content = RecordDict(
            {ARRAYS: ArrayRecord({ARRAYS: Array(mean.flat())}), "metrics": MetricRecord({CASES: float(cases)})}
        )
        arrays, _ = self.inner.aggregate_train(exchange, [_reply(content)])
        if arrays is None:
            raise FederationError(f"round {exchange}", found="no model from the strategy", expected="one")
        return Weights.from_flat(current.layout, arrays[ARRAYS].numpy().astype("float32", copy=False))


STRATEGIES: Final[Mapping[str, Callable[[StrategyConfig], FlowerStrategy]]] = MappingProxyType(
    {
        "fedavg": lambda config: FlowerStrategy(_quiet(FedAvg)),
        "fedprox": lambda config: FlowerStrategy(
            _quiet(FedProx, proximal_mu=config.proximal_mu), proximal_mu=config.proximal_mu
        ),
    }
)


def strategy_from(config: StrategyConfig) -> FlowerStrategy:
    """The configured strategy.

    Raises:
        ConfigError: a name that STRATEGIES does not hold.
    """
    try:
        return STRATEGIES[config.name](config)
    except KeyError:
        raise ConfigError("strategy.name", found=f"{config.name} is not known ({nearest(config.name, STRATEGIES)})") from None


def _quiet(kind: type[FedAvg], **numbers: float) -> FedAvg:
    # Flower logs a line for each aggregation; our own record says who answered and how
    logging.getLogger("flwr").setLevel(logging.ERROR)
    return kind(fraction_evaluate=0.0, weighted_by_key=CASES, arrayrecord_key=ARRAYS, **numbers)  # type: ignore[arg-type]


def _reply(content: RecordDict) -> Message:
    """A message as a strategy expects one, outside any grid: Flower fills in its task's identity, so one must be set."""
    if TaskIdentity._run_id is None:
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 0
    return Message(content, dst_node_id=0, message_type=MessageType.TRAIN)
