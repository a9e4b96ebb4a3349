"""Which weights belong to normalisation, over every architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from brainunet.config import ModelConfig
from brainunet.model import build, weights_of
from brainunet.model.normalisation import norm_names
from tests.support.nets import NORMS, Norm, architectures, network

STATISTICS = {"running_mean", "running_var"}


@pytest.mark.parametrize(("preset", "norm"), architectures())
def test_the_normalisation_of_every_architecture_is_found_whole_and_nothing_else(preset: str, norm: Norm) -> None:
    with torch.device("meta"):
        made = build(ModelConfig(preset=preset, norm=norm))

    names = norm_names(made)

    # every parameter outside a normalisation belongs to a convolution
    convolutions = {
        f"{place}.{name}"
        for place, module in made.named_modules()
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d))
        for name, _ in module.named_parameters()
    }
    real_valued = {name for name, value in made.state_dict().items() if value.is_floating_point()}
    assert names
    assert names == real_valued - convolutions
    assert {name.rpartition(".")[2] for name in names} == {"weight", "bias"} | (STATISTICS if norm == "batch" else set())


@pytest.mark.parametrize("norm", NORMS)
def test_the_names_are_those_that_the_weights_have(norm: Norm) -> None:
    made = network(norm=norm)

    assert norm_names(made) < set(weights_of(made).names)


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (nn.LayerNorm(3), {"weight", "bias"}),
        (nn.InstanceNorm3d(3), set()),
        (nn.InstanceNorm3d(3, track_running_stats=True), STATISTICS),
        (nn.GroupNorm(1, 3), {"weight", "bias"}),
        (nn.BatchNorm2d(3, affine=False), STATISTICS),
        (nn.Conv3d(1, 1, 1), set()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_s_kind_decides_and_not_what_it_is_called(layer: nn.Module, names: set[str]) -> None:
    assert norm_names(layer) == names
    assert norm_names(nn.ModuleDict({"mix": layer, "norm": nn.Linear(2, 2)})) == {f"mix.{name}" for name in names}
