"""Networks and augmentations by name: plain numbers, so that adding one is adding a line."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

WIDTHS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "brainunet": (64, 128, 256, 512),  # the paper's: 22.8 M parameters, 91 MB
        "brainunet-fast": (32, 64, 128, 256, 512),  # as many parameters, about a quarter of the arithmetic
        "brainunet-lite": (32, 64, 128, 256),
        "brainunet-small": (16, 32, 64, 128),  # learns most in few minutes on a CPU
        "brainunet-nano": (8, 16, 32, 64),  # for demonstrations and tests
    }
)

# Networks of others, in the same trainer for comparisons (brainunet.model.baselines) -> the package that holds each.
# nnU-Net's planners for M and L give BraTS patches one and the same network: they differ in the patch (train.patch).
BASELINES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("nnunet-plain", "nnunet-resenc-m", "nnunet-resenc-l"), "dynamic_network_architectures"),
        **dict.fromkeys(("mednext-s", "mednext-b", "mednext-m", "mednext-l"), "monai"),
    }
)
BASELINE_NORM: Final = "instance"  # what they have built in; MedNeXt's group norm of one channel per group is one


def default_norm(preset: str) -> str:
    """The norm of a preset where nobody chose one.

    >>> default_norm("brainunet"), default_norm("nnunet-plain")
    ('group', 'instance')
    """
    return BASELINE_NORM if preset in BASELINES else "group"


# Values of config.AugmentConfig that differ from its defaults; docs/adr/0018 says where those of "ssa" come from.
AUGMENT_PRESETS: Final[Mapping[str, Mapping[str, float | tuple[float, float]]]] = MappingProxyType(
    {
        "none": MappingProxyType({"flip_probability": 0.0, "affine_probability": 0.0, "gamma_probability": 0.0}),
        "light": MappingProxyType({}),  # flips, scaling and gamma: the defaults
        # clean research images made to look like thick slices of a 1.5 T scanner
        "ssa": MappingProxyType(
            {
                "flip_probability": 0.3,
                "affine_probability": 0.3,
                "rotation_degrees": 15.0,
                "motion_probability": 0.17,
                "ghosting_probability": 0.17,
                "bias_probability": 0.17,
                "bias_coefficient": 0.3,
                "blur_probability": 0.25,
                "noise_probability": 0.25,
                "anisotropy_probability": 0.4,
                "gamma_probability": 0.3,
            }
        ),
    }
)
