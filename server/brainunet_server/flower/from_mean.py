"""Strategies that need no more than the weighted mean of the sites' models, and get it as a single reply.

It is the same number that they would compute from all replies; memory doesn't grow with the number of sites, and a single
odd record of one site can't hurt the run (docs/adr/0002).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedYogi

from brainunet.errors import FederationError
from brainunet.weights import WeightedMean, Weights
from brainunet_server.flower.aggregation import ARRAYS, aggregated, foreign_state, require_finite


@dataclass(frozen=True)
class FromMean:
    """One of Flower's strategies seen as a server's step on :class:`Weights`.

    What it remembers between two rounds is taken out by :meth:`state` and handed back by :meth:`restore`, because a
    coordinator may be started anew between them.
    """

    name: str
    inner: FedAvg
    proximal_mu: float = 0.0

    @property
    def needs_every_reply(self) -> bool:
        return False

    def step(self, exchange: int, current: Weights, mean: Weights, cases: int) -> Weights:
        """The model after ``exchange`` (from 1), from the current one and the mean of the sites' models over ``cases``.

        Raises:
            FederationError: the mean or what is remembered belongs to another model, or the step leads out of the finite.
        """
        values = current.flat()
        kept = self.state()
        remembered = kept.arrays[0].size if kept is not None and kept.arrays else values.size
        if mean.layout != current.layout or remembered != values.size:
            found = f"a mean of {mean.flat().size} values and a memory of {remembered}"
            raise FederationError(f"strategy {self.name}", found=found, expected=f"{values.size} values, as the model has")
        # Flower's configure_train would note the model that is sent; here it's never called
        match self.inner:
            case FedAdam() | FedYogi():
                self.inner.current_arrays = {ARRAYS: values}
            case FedAvgM():
                self.inner.current_arrays = ArrayRecord({ARRAYS: Array(values)})
        made = aggregated(self.inner, exchange, [(mean.flat(), cases)])
        return require_finite(self.name, exchange, Weights.from_flat(current.layout, made))

    def step_from_all(self, exchange: int, current: Weights, models: Sequence[tuple[Weights, float]]) -> Weights:
        """As :meth:`step`, from each site's model and its share.

        Raises:
            FederationError: as :meth:`step`; or no model, or a share that is not positive.
        """
        mean = WeightedMean()
        for model, share in models:
            mean.fold(model, weight=share)
        return self.step(exchange, current, mean.result(), cases=1)  # a single reply's weight cancels out

    def state(self) -> Weights | None:
        """What must outlive a restart, each array flat in the order of the model's values.

        No arrays before the first step; None of a strategy that never remembers anything.
        """
        match self.inner:
            case FedAdam(m_t=dict(m_t), v_t=dict(v_t)) | FedYogi(m_t=dict(m_t), v_t=dict(v_t)):
                return Weights.of({"m_t": m_t[ARRAYS], "v_t": v_t[ARRAYS]})
            case FedAvgM(momentum_vector=[momentum]):
                return Weights.of({"momentum": momentum})
        return Weights.of({}) if self._remembers else None

    def restore(self, state: Weights) -> None:
        """Go on as the strategy that gave this :meth:`state`: its next step is equal to the bit.

        Raises:
            ConfigError: not a state of this strategy.
        """
        size = state.arrays[0].size if state.arrays else 0
        if not self._remembers or not state.is_finite() or any(shape != (size,) for _, shape in state.layout):
            expected = "flat arrays of one length, all finite" if self._remembers else "none"
            raise foreign_state(self.name, state, expected)
        match (self.inner, state.names):
            case (FedAdam() | FedYogi() as adaptive, ("m_t", "v_t")):
                adaptive.m_t, adaptive.v_t = {ARRAYS: state["m_t"]}, {ARRAYS: state["v_t"]}
            case (FedAdam() | FedYogi() as adaptive, ()):
                adaptive.m_t = adaptive.v_t = None
            case (FedAvgM() as with_momentum, ("momentum",)):
                with_momentum.momentum_vector = [state["momentum"]]
            case (FedAvgM() as with_momentum, ()):
                with_momentum.momentum_vector = None
            case _:
                raise foreign_state(self.name, state, "those of this strategy")

    def memory_note(self, sites: int, n_bytes: int) -> str | None:
        """None: replies are folded into one mean as they arrive."""
        del sites, n_bytes
        return None

    @property
    def _remembers(self) -> bool:
        match self.inner:
            case FedAdam() | FedYogi():
                return True
            case FedAvgM(server_momentum=momentum):
                return bool(momentum > 0)
        return False
