"""FedProx: keep a site's weights near those it was sent (Li et al., MLSys 2020, arXiv:1812.06127)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def add_proximal_gradient(parameters: Iterable[nn.Parameter], anchors: Sequence[Tensor], mu: float) -> None:
    """Add the gradient of mu / 2 * ||w - w_received||^2, which is mu * (w - w_received), to each parameter's gradient.

    Done on the gradients after backward, so that the term costs no graph; mu 0 changes nothing.
    """
    if mu == 0:
        return
    with torch.no_grad():
        for parameter, anchor in zip(parameters, anchors, strict=True):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - anchor, alpha=mu)
