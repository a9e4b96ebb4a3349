"""Which of a network's weights belong to its normalisation: what stays with each site under FedBN."""

from __future__ import annotations

from typing import Final

from torch import nn

NORMALISATIONS: Final[tuple[type[nn.Module], ...]] = (
    nn.GroupNorm,
    nn.LayerNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


def norm_names(network: nn.Module) -> frozenset[str]:
    """Names, as in ``weights_of(network)``, of the scales, offsets and running statistics of every normalisation.

    Found by the kind of module and not by its name, so that an architecture may call its parts what it likes.

    >>> sorted(norm_names(nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))))
    ['1.bias', '1.running_mean', '1.running_var', '1.weight']
    """
    return frozenset(
        f"{place}.{name}" if place else name
        for place, module in network.named_modules()
        if isinstance(module, NORMALISATIONS)
        for name, value in module.state_dict().items()
        if value.is_floating_point()
    )
