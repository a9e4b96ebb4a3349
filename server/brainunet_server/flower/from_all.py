"""Strategies that compare the sites' models with each other, so that all of them are held at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg, MultiKrum

from brainunet.errors import FederationError
from brainunet.weights import Weights
from brainunet_server.flower.aggregation import aggregated, foreign_state, require_finite

SLICE: Final = 1 << 16  # values of each site that Flower gets at once where each value is looked at alone
COPIES: Final = 4  # of all models, at the height of multikrum's comparison; measured by a test


@dataclass(frozen=True)
class FromAll:
    """One of Flower's strategies seen as a server's step on :class:`Weights`; it remembers nothing between rounds.

    Attributes:
        least_sites: with fewer it could not do what it promises.
    """

    name: str
    inner: FedMedian | FedTrimmedAvg | MultiKrum
    least_sites: int = 1
    proximal_mu: float = 0.0

    @property
    def needs_every_reply(self) -> bool:
        return True

    def step(self, exchange: int, current: Weights, mean: Weights, cases: int) -> Weights:
        """Refused: a mean no longer shows which site said what.

        Raises:
            FederationError: always.
        """
        del exchange, current, mean, cases
        raise FederationError(f"strategy {self.name}", found="the mean of the sites' models", expected="each of them")

    def step_from_all(self, exchange: int, current: Weights, models: Sequence[tuple[Weights, float]]) -> Weights:
        """The model after ``exchange`` (from 1), from each site's model and its share, at which only multikrum looks.

        Raises:
            FederationError: too few models, one of another layout, or a step that leads out of the finite.
        """
        if len(models) < self.least_sites:
            raise FederationError(
                f"round {exchange}",
                found=f"{len(models)} sites' models for {self.name}",
                expected=f"at least {self.least_sites}",
                remedy="raise min_sites, or start a run with another strategy",
            )
        if any(model.layout != current.layout for model, _ in models):
            raise FederationError(f"strategy {self.name}", found="a model of another layout", expected="the current one's")
        # in an order of their own: who answers first decides neither a tie nor the last bit of a sum
        ordered = sorted(models, key=lambda pair: (pair[0].digest, pair[1]))
        combine = self._selected if isinstance(self.inner, MultiKrum) else self._by_value
        return require_finite(self.name, exchange, combine(exchange, current, ordered))

    def state(self) -> Weights | None:
        return None

    def restore(self, state: Weights) -> None:
        """Refused: there is nothing to take up.

        Raises:
            ConfigError: always.
        """
        raise foreign_state(self.name, state, "none")

    def memory_note(self, sites: int, n_bytes: int) -> str | None:
        """What a round of ``sites`` models of ``n_bytes`` each will hold at once, for a person to read beforehand."""
        each = f"{sites} x {_size(n_bytes)}"
        if isinstance(self.inner, MultiKrum):
            most = _size(COPIES * sites * n_bytes)
            return f"{self.name} holds every reply at once, {COPIES} times over while it compares: {COPIES} x {each} = {most}"
        return f"{self.name} holds every reply at once: {each} = {_size(sites * n_bytes)}"

    def _by_value(self, exchange: int, current: Weights, models: Sequence[tuple[Weights, float]]) -> Weights:
        # median and trimmed mean look at each value alone: slice by slice they give the same, and Flower's copies stay small
        made = []
        for number, array in enumerate(current.arrays):
            layers = [(model.arrays[number].ravel(), share) for model, share in models]
            parts = [
                aggregated(self.inner, exchange, [(values[start : start + SLICE], share) for values, share in layers])
                for start in range(0, array.size, SLICE)
            ]
            made.append(np.concatenate(parts).reshape(array.shape))
        return Weights(current.names, tuple(made))

    def _selected(self, exchange: int, current: Weights, models: Sequence[tuple[Weights, float]]) -> Weights:
        assert isinstance(self.inner, MultiKrum)
        # n - f - 2: the most that its authors allow, and so the smallest loss of honest sites
        self.inner.num_nodes_to_select = len(models) - self.inner.num_malicious_nodes - 2
        # Changes, not models: their distances are the same, but Flower takes them as |x|^2 + |y|^2 - 2xy in float32, where
        # the difference of two nearly equal models drowns in their length.
        changes = ((model.minus(current).flat(), share) for model, share in models)
        with np.errstate(over="ignore", invalid="ignore"):  # an absurdly long change is infinitely far off, and comes last
            change = aggregated(self.inner, exchange, changes)
        return current.plus(Weights.from_flat(current.layout, change))


def least_sites_of_trimming(share: float) -> int:
    """How many models there must be for one to be cut off at each end; any number for a share of 0.

    >>> [least_sites_of_trimming(share) for share in (0.0, 0.2, 0.34, 0.49)]
    [1, 5, 3, 3]
    """
    if share == 0:
        return 1
    sites = math.ceil(1 / max(share, 1e-6))
    return sites if int(share * sites) >= 1 else sites + 1  # int(share * sites) is Flower's own count


def _size(n_bytes: int) -> str:
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e7 else f"{n_bytes / 1e6:.1f} MB"
