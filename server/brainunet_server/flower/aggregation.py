"""Flower's aggregation of flat arrays, outside any grid; the mathematics is Flower's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from brainunet.errors import ConfigError, FederationError
from brainunet.flower_records import values_of
from brainunet.weights import FloatArray, Weights

ARRAYS: Final = "arrays"  # the name of a record and of the one array in it
WEIGHT: Final = "num-examples"


def aggregated(inner: FedAvg, exchange: int, replies: Iterable[tuple[FloatArray, float]]) -> FloatArray:
    """What ``inner`` makes of flat arrays (N,) and their weights.

    Raises:
        FederationError: it gave nothing back.
    """
    arrays, _ = inner.aggregate_train(exchange, [_reply(values, weight) for values, weight in replies])
    if arrays is None:
        raise FederationError(f"round {exchange}", found="no model from the strategy", expected="one")
    return values_of(arrays[ARRAYS]).astype(np.float32, copy=False)


def require_finite(name: str, exchange: int, weights: Weights) -> Weights:
    """The same weights.

    Raises:
        FederationError: a step that was too long led to NaN or infinity.
    """
    if not weights.is_finite():
        raise FederationError(
            f"round {exchange}",
            found=f"{name} made a model with values that are not finite",
            remedy="lower strategy.server_learning_rate, and start a new run",
        )
    return weights


def foreign_state(name: str, state: Weights, expected: str) -> ConfigError:
    """The error for a ``state`` that strategy ``name`` can't take up."""
    arrays = ", ".join(f"{array} {shape}" for array, shape in state.layout)
    return ConfigError(
        f"state of strategy {name}",
        found=f"arrays {arrays or '(none)'}" + ("" if state.is_finite() else ", not all finite"),
        expected=expected,
        remedy="resume the run with the strategy that it was started with",
    )


def _reply(values: FloatArray, weight: float) -> Message:
    """A message as a strategy expects one: Flower fills in its task's identity, so one must be set."""
    if TaskIdentity._run_id is None:
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 0
    content = RecordDict({ARRAYS: ArrayRecord({ARRAYS: Array(values)}), "metrics": MetricRecord({WEIGHT: float(weight)})})
    return Message(content, dst_node_id=0, message_type=MessageType.TRAIN)
