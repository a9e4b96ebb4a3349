"""The authors' weights: their state dict, read without running anything, under our names.

Their network is the paper's (``brainunet`` with batch norm, see ``brainunet.presets``), so an import is a renaming: no value
changes, and the logits are the same. The first convolution tells how many modalities it takes, and nothing in such a file
tells which.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from brainunet.config import ModelConfig
from brainunet.errors import ConfigError
from brainunet.labels import Modality
from brainunet.model import build
from brainunet.model.state_files import read_tensors
from brainunet.settings import nearest
from brainunet.weights import FloatArray, Weights

PRESET: Final = "brainunet"
NORM: Final = "batch"
CHANNELS: Final = (3, 4)

_BLOCK: Final = {
    "double_conv.0": "conv1",
    "double_conv.1": "norm1",
    "double_conv.3": "conv2",
    "double_conv.4": "norm2",
    "residual": "shortcut",
}
_GATE: Final = {
    "W_g.0": "gate_conv",
    "W_g.1": "gate_norm",
    "W_x.0": "skip_conv",
    "W_x.1": "skip_norm",
    "psi.0": "psi_conv",
    "psi.1": "psi_norm",
}
_LAYER: Final = {"": ""}  # a convolution by itself

# Their part -> our part, and what is inside it. Their decoder counts levels from the top, ours from the bottom.
_PARTS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "in_conv": ("encoder.0", _BLOCK),
    "down1": ("encoder.1", _BLOCK),
    "down2": ("encoder.2", _BLOCK),
    "bottleneck": ("encoder.3", _BLOCK),
    "up3": ("up.0", _LAYER),
    "up2": ("up.1", _LAYER),
    "up1": ("up.2", _LAYER),
    "att3": ("attention.0", _GATE),
    "att2": ("attention.1", _GATE),
    "att1": ("attention.2", _GATE),
    "up_conv3": ("decoder.0", _BLOCK),
    "up_conv2": ("decoder.1", _BLOCK),
    "up_conv1": ("decoder.2", _BLOCK),
    "out_conv": ("head", _LAYER),
}

# Our module -> theirs, such as "encoder.0.conv1" -> "in_conv.double_conv.0".
MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        f"{ours}.{our}".rstrip("."): f"{theirs}.{their}".rstrip(".")
        for theirs, (ours, inside) in _PARTS.items()
        for their, our in inside.items()
    }
)
FIRST: Final = f"{MODULES['encoder.0.conv1']}.weight"

# Where a training program may have put the state dict, and what a wrapper around the network puts before each name.
_WRAPPERS: Final = ("state_dict", "model_state_dict", "model")
_PREFIXES: Final = ("module.", "model.", "_orig_mod.")
_COUNTER: Final = ".num_batches_tracked"  # no weight: it counts training steps, and some programs leave it out
_REMEDY: Final = "ask where you got it for the state dict of the paper's network"


def import_official(path: Path, modalities: tuple[Modality, ...]) -> tuple[Weights, ModelConfig]:
    """Weights and architecture of a file of the authors' names.

    Args:
        modalities: what its input channels are, in their order.

    Raises:
        ConfigError: missing, damaged, holding code, another network's weights, another number of channels than
            ``modalities``, or values that are NaN or infinite. The message names the first wrong key.
    """
    state = _plain(path, read_tensors(path, wrappers=_WRAPPERS))
    _require_channels(path, state, modalities)
    config = ModelConfig(preset=PRESET, norm=NORM, modalities=modalities)
    with torch.device("meta"):
        ours = build(config).state_dict()
    expected = {_their_name(name): value for name, value in ours.items()}
    _require_keys(path, state, expected)
    for name, value in state.items():  # all shapes before any value is copied: a stride of 0 makes a small file a huge array
        _require_fits(path, name, value, expected[name])
    weights = Weights.of({name: _array(state[_their_name(name)]) for name in ours if not name.endswith(_COUNTER)})
    for name, array in weights.as_dict().items():
        if not Weights((name,), (array,)).is_finite():
            raise ConfigError(
                path,
                found=f"values of {_their_name(name)} that are NaN or infinite",
                expected="finite weights",
                remedy="the training that made it went wrong, or the file is damaged: fetch it again",
            )
        if name.endswith("running_var") and float(array.min()) < 0:
            raise ConfigError(
                path,
                found=f"a negative variance in {_their_name(name)}",
                expected="variances of 0 or more",
                remedy="fetch the file again",
            )
    return weights, config


def _their_name(ours: str) -> str:
    module, _, leaf = ours.rpartition(".")
    return f"{MODULES[module]}.{leaf}"


def _plain(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same without what a wrapper put before every name."""
    plain = dict(state)
    while prefix := next((p for p in _PREFIXES if plain and all(name.startswith(p) for name in plain)), None):
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
    if len(plain) < len(state):
        raise ConfigError(path, found="two arrays of one name", expected="each name once", remedy=_REMEDY)
    return plain


def _require_channels(path: Path, state: Mapping[str, Tensor], modalities: tuple[Modality, ...]) -> None:
    first = state.get(FIRST)
    if first is None or first.ndim != 5:
        return  # said with all other keys
    channels = first.shape[1]
    if channels not in CHANNELS:
        raise ConfigError(
            path,
            found=f"{FIRST} for {channels} input channels",
            expected=" or ".join(str(number) for number in CHANNELS),
            remedy=_REMEDY,
        )
    if channels != len(modalities):
        raise ConfigError(
            path,
            found=f"a network of {channels} input channels",
            expected=f"{len(modalities)} for --modalities {','.join(modalities)}",
            remedy=f"name the {channels} modalities in the order the network was trained with",
        )


def _require_keys(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in state and not name.endswith(_COUNTER)]
    unknown = [name for name in state if name not in expected]
    if not missing and not unknown:
        return
    found = []
    if missing:
        found.append(f"no {missing[0]}{_and_more(missing)}")
    if unknown:
        found.append(
            f"an unknown key {_shown(unknown[0])}{_and_more(unknown)} ({nearest(unknown[0], missing or expected)})"[:400]
        )
    if len(missing) == sum(not name.endswith(_COUNTER) for name in expected):
        found = [
            f"{len(state)} arrays, none of this network: {_shown(unknown[0])}{_and_more(unknown)}" if unknown else "no arrays"
        ]
    raise ConfigError(
        path, found="; ".join(found), expected=f"the {len(expected)} keys of the paper's network, from {FIRST}", remedy=_REMEDY
    )


def _require_fits(path: Path, name: str, value: Tensor, expected: Tensor) -> None:
    """A plain tensor of this shape whose numbers are real; counters may be of any size that holds one number."""
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    wanted = tuple(expected.shape)
    real = value.is_floating_point() or name.endswith(_COUNTER)
    if plain and real and (tuple(value.shape) == wanted or (name.endswith(_COUNTER) and value.numel() == 1)):
        return
    kind = str(value.dtype).removeprefix("torch.") if plain else f"{value.layout} on {value.device.type}".replace("torch.", "")
    raise ConfigError(
        path,
        found=f"{name} of shape {_sides(tuple(value.shape))} ({kind})",
        expected=f"{_sides(wanted)} ({str(expected.dtype).removeprefix('torch.')})",
        remedy=_REMEDY,
    )


def _array(value: Tensor) -> FloatArray:
    array: FloatArray = value.detach().float().contiguous().numpy()
    return array


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) or "scalar"


def _shown(name: str) -> str:
    return repr(name[:80])


def _and_more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
