"""Activation checkpointing: a training step in a fraction of the memory, for a third to a half more arithmetic.

Backpropagation needs what each layer was given. Instead of keeping all of it, a checkpointed part keeps only its own input and
is computed a second time on the way back (Chen et al., "Training deep nets with sublinear memory cost", arXiv:1604.06174). The
numbers are the same: this is how a machine computes, not what, so it is no setting of the model or of the task.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from brainunet.model.forward import logits_of

GRADIENTS_UNDER_WAY = 2  # as large as the largest of what is kept


class Frugal(nn.Module):
    """A module that can compute parts of itself again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.checkpoint_activations = False

    def run(self, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """``part(*inputs)``, where ``part`` uses no other layers than this module's."""
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            return checkpointed(part, *inputs, within=self)
        return part(*inputs)

    def set_checkpointing(self, on: bool) -> None:
        self.checkpoint_activations = on


def set_activation_checkpointing(network: nn.Module, on: bool) -> bool:
    """Switch it on or off; False of a network that can't (then nothing changes)."""
    if isinstance(network, Frugal):
        network.set_checkpointing(on)
        return True
    return False


def choose_checkpointing(network: nn.Module, batch: Sequence[int], *, half: bool, available: int | None) -> bool:
    """Whether a step on ``batch`` (B, C, X, Y, Z) should save memory: where the estimate exceeds what is available.

    Args:
        half: activations in bfloat16.
        available: bytes (``brainunet.memory.available_memory``); None if the system doesn't say, and then nothing is saved.
    """
    return available is not None and isinstance(network, Frugal) and step_bytes(network, batch, half=half) > available


def step_bytes(network: nn.Module, batch: Sequence[int], *, half: bool) -> int:
    """An estimate of what a training step takes at most, without checkpointing: weights, gradients, Adam's two moments, what
    each layer keeps for the backward pass, and the gradients under way. Counted on shapes; nothing of that size is allocated.

    Args:
        batch: the shape (B, C, X, Y, Z) of the network's input.
        half: activations in bfloat16.
    """
    twin = copy.deepcopy(network).to("meta").train()
    set_activation_checkpointing(twin, False)
    parameters = {id(p): p.numel() * p.element_size() for p in twin.parameters()}
    kept: dict[int, Tensor] = {}  # one of each storage: what was changed in place is kept once

    def note(saved: Tensor) -> Tensor:
        if id(saved) not in parameters:
            kept.setdefault(saved.untyped_storage()._cdata, saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        logits_of(twin, torch.empty(*batch, device="meta"))
    sizes = [value.untyped_storage().nbytes() for value in kept.values()]
    activations = sum(sizes) + GRADIENTS_UNDER_WAY * max(sizes, default=0)
    return 4 * sum(parameters.values()) + (activations // 2 if half else activations)


def checkpointed(part: Callable[..., Tensor], *inputs: Tensor, within: nn.Module) -> Tensor:
    """``part(*inputs)``, whose insides are computed again in the backward pass instead of kept.

    Args:
        within: a module that holds every layer of ``part``: its batch norms must not count the same batch twice.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(within)

    # no dropout anywhere, so there is no random state to keep
    result: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return result


@contextmanager
def _statistics_kept(within: nn.Module) -> Iterator[None]:
    """Batch norms count into copies of their running statistics, which are then forgotten."""
    norms = [module for module in within.modules() if isinstance(module, _BatchNorm)]
    originals = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, originals, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, originals, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
