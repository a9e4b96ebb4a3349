"""Whether to train in bfloat16: where the hardware has instructions for it, and gets the gradients right."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from brainunet.errors import ConfigError
from brainunet.model.forward import has_bf16_instructions, logits_of

WRONG_GRADIENT = 0.05  # of its largest entry; bfloat16's own rounding stays below 0.02
SHORT_SIDE = 4  # below it a 3x3x3 convolution can reach over two borders at once


def uses_bf16(precision: str, device: torch.device, network: nn.Module, batch: Sequence[int]) -> bool:
    """Whether to autocast to bfloat16; "auto" does so where the hardware has instructions for it and the gradients are right.

    Args:
        batch: the shape (B, C, X, Y, Z) of what ``network`` will be trained on.

    Raises:
        ConfigError: "bf16" on a CPU where a gradient of this network would be wrong.
    """
    if precision == "fp32" or (precision == "auto" and not has_bf16_instructions(device)):
        return False
    wrong = wrong_in_bf16(network, batch) if device.type == "cpu" else None
    if wrong and precision == "bf16":
        raise ConfigError(
            "train.precision",
            found=f"bf16, in which this processor gets the gradient of {wrong} wrong",
            expected="fp32 or auto for patches this small",
            remedy="set train.precision to auto, or choose larger sides for train.patch",
        )
    return wrong is None


def wrong_in_bf16(network: nn.Module, batch: Sequence[int]) -> str | None:
    """The first convolution whose gradients in bfloat16 on this CPU are not those in float32, in words; None if all are right.

    A processor's flags don't tell: oneDNN 3.12 for AVX-512 takes the weight gradient of a padded 3x3x3 convolution over two
    slices from the wrong slice and from memory behind the last one, and by its source the same code serves processors that
    have instructions for bfloat16 but no AMX. So every convolution is tried once, on numbers of its own.

    Args:
        batch: the shape (B, C, X, Y, Z) of the network's input.
    """
    twin = copy.deepcopy(network).to("meta")  # shapes without arithmetic; the network itself stays as it is
    seen: dict[tuple[str, tuple[int, ...]], tuple[str, nn.Module]] = {}

    def note(name: str, layer: nn.Module, x: torch.Tensor) -> None:
        shape = tuple(x.shape)
        if min(shape[2:]) >= SHORT_SIDE:  # a short one is tried as it is: how it is shared among threads matters too
            shape = (min(shape[0], 2), shape[1], SHORT_SIDE, SHORT_SIDE, SHORT_SIDE)
        seen.setdefault((repr(layer), shape), (name, layer))

    for name, layer in twin.named_modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.register_forward_pre_hook(lambda layer, inputs, name=name: note(name, layer, *inputs))
    logits_of(twin, torch.empty(*batch, device="meta"))
    for (_, shape), (name, layer) in seen.items():
        if not _same_gradients_in_bf16(layer.to_empty(device="cpu"), shape):
            return f"{name} over {' x '.join(str(side) for side in shape[2:])} voxels"
    return None


def _same_gradients_in_bf16(layer: nn.Module, shape: Sequence[int]) -> bool:
    generator = torch.Generator().manual_seed(0)
    parameters = list(layer.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.requires_grad_(True).normal_(generator=generator)
    x = torch.randn(*shape, generator=generator).to(memory_format=torch.channels_last_3d).requires_grad_(True)

    def gradients(*, half: bool) -> tuple[torch.Tensor, ...]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            y = layer(x)
        towards = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
        return torch.autograd.grad(y, [x, *parameters], towards)

    pairs = zip(gradients(half=True), gradients(half=False), strict=True)
    # "not <=" of the largest difference: a NaN is wrong too
    return all(bool((ours - true).abs().max() <= WRONG_GRADIENT * true.abs().max()) for ours, true in pairs)
