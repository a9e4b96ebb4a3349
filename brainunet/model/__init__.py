"""The network: presets by name, building one, and loading one from a model file.

>>> network = build(ModelConfig(preset="brainunet-nano"))
>>> tuple(network(torch.zeros(1, 3, 24, 20, 17)).shape)
(1, 4, 24, 20, 17)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from brainunet.config import ModelConfig
from brainunet.errors import ConfigError
from brainunet.labels import LABELS
from brainunet.model.activations import choose_checkpointing, set_activation_checkpointing
from brainunet.model.baselines import build_baseline
from brainunet.model.unet import BrainUNet
from brainunet.modelfile import read_model
from brainunet.presets import BASELINES, WIDTHS
from brainunet.settings import nearest
from brainunet.weights import Weights

__all__ = [
    "ARCHITECTURES",
    "ModelSize",
    "build",
    "choose_checkpointing",
    "default_device",
    "load",
    "set_activation_checkpointing",
    "set_weights",
    "size_of",
    "weights_of",
]

# inputs, outputs, norm -> network
Architecture = Callable[[int, int, str], nn.Module]


def _brainunet(widths: tuple[int, ...]) -> Architecture:
    return lambda inputs, outputs, norm: BrainUNet(inputs, outputs, widths, norm)


def _baseline(preset: str) -> Architecture:
    return lambda inputs, outputs, norm: build_baseline(preset, inputs, outputs, norm)


ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {
        **{preset: _brainunet(widths) for preset, widths in WIDTHS.items()},
        **{preset: _baseline(preset) for preset in BASELINES},
    }
)


def build(config: ModelConfig, seed: int | None = None) -> nn.Module:
    """A network with random weights: those of ``seed``, else of wherever torch's generator stands.

    Raises:
        ConfigError: an unknown preset; or a baseline with another norm than its own, or without its package.
    """
    try:
        architecture = ARCHITECTURES[config.preset]
    except KeyError:
        raise ConfigError(
            "model.preset", found=f"{config.preset} is not known ({nearest(config.preset, ARCHITECTURES)})"
        ) from None
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return architecture(len(config.modalities), len(LABELS), config.norm)


def load(path: Path | str) -> nn.Module:
    """The network of a model file in eval mode; its forward takes (B, C, X, Y, Z) and returns logits (B, L, X, Y, Z).

    Raises:
        ConfigError: not a model file, damaged, or weights that don't fit the architecture its card names.
    """
    weights, card = read_model(Path(path))
    network = build(card.model)
    set_weights(network, weights)
    return network.eval()


def default_device() -> torch.device:
    """Where to train and predict: the first CUDA GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def weights_of(network: nn.Module) -> Weights:
    """A copy of everything real-valued in the state dict, in its order; integer counters are left out."""
    state = network.state_dict()
    return Weights.of({k: v.detach().float().cpu().numpy().copy() for k, v in state.items() if v.is_floating_point()})


def set_weights(network: nn.Module, weights: Weights) -> None:
    """Copy weights into a network of the same architecture.

    Raises:
        ConfigError: a name missing, unknown, of another shape or in another place.
    """
    state = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    expected = {name: tuple(value.shape) for name, value in state.items()}
    if tuple(expected.items()) != weights.layout:
        odd = sorted(set(expected.items()) ^ set(weights.layout))
        found = f"of which {odd[0][0]} is missing, unknown or of another shape" if odd else "in another order"
        raise ConfigError(
            "model weights",
            found=f"{len(weights.names)} arrays, {found}",
            expected=f"the {len(expected)} arrays of this architecture",
            remedy="check that preset, norm and modalities are those the weights were trained with",
        )
    with torch.no_grad():
        for name, array in zip(weights.names, weights.arrays, strict=True):
            state[name].copy_(torch.tensor(array))


@dataclass(frozen=True)
class ModelSize:
    """What a network costs; ``multiply_adds`` of one forward pass over one patch."""

    parameters: int
    n_bytes: int
    multiply_adds: int
    patch: tuple[int, int, int]


def size_of(config: ModelConfig, patch: tuple[int, int, int] = (128, 128, 128)) -> ModelSize:
    """Parameters, bytes in fp32 and multiply-adds of convolutions, counted without allocating anything.

    >>> size = size_of(ModelConfig(preset="brainunet"), patch=(64, 64, 64))
    >>> size.parameters, size.n_bytes
    (22836333, 91345332)
    """
    with torch.device("meta"):
        network = build(config).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(torch.empty(1, len(config.modalities), *patch))
    parameters = sum(p.numel() for p in network.parameters())
    return ModelSize(parameters, 4 * parameters, counter.get_total_flops() // 2, patch)
