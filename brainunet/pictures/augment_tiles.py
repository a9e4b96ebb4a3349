"""The patches of the sheet: one patch as it is, with each augmentation alone, and with all of them as configured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from brainunet.config import AugmentConfig, ModelConfig, PreprocessConfig, TrainConfig
from brainunet.data.augment import AUGMENTATIONS, alone, augment_from, probability_of
from brainunet.data.patches import PatchSource, draw_batch
from brainunet.pictures.augment_sheet import Tile
from brainunet.settings import Settings


class PreviewConfig(Settings):
    """The settings that bear on a training patch, under the names that they have in a federation's file."""

    model: ModelConfig = ModelConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    train: TrainConfig = TrainConfig()


# The settings beside the probability that say how strong each augmentation is, in words for a sheet.
STRENGTHS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "flip": "each axis p {flip_probability:g}",
        "affine": "scale {scale_range}, up to {rotation_degrees:g} degrees",
        "motion": "{motion_count} moves, up to {motion_degrees:g} degrees, {motion_shift_mm:g} mm",
        "ghosting": "strength {ghosting_range}",
        "bias": "coefficients up to {bias_coefficient:g}",
        "blur": "std {blur_range_mm} mm",
        "noise": "std {noise_range} of the brain's",
        "anisotropy": "slices {through_plane_range}, in plane {in_plane_range}",
        "gamma": "log {log_gamma_range}",
        "dropout": "up to {dropout_most} missing",
    }
)


# The ranges whose upper end is the strongest; the others have no change in their middle.
_STRONGEST_LAST: Final = ("ghosting_range", "blur_range_mm", "noise_range", "through_plane_range", "in_plane_range")


def strength_of(name: str, config: AugmentConfig) -> str:
    """How strong an augmentation is set to be.

    >>> strength_of("noise", AugmentConfig())
    "std 0 to 0.33 of the brain's"
    """
    values = {
        key: f"{value[0]:g} to {value[1]:g}" if isinstance(value, tuple) else value
        for key, value in config.model_dump().items()
    }
    return STRENGTHS[name].format_map(values)


def strongest(config: AugmentConfig) -> AugmentConfig:
    """The same settings with every range that grows drawn in to its upper end.

    >>> strongest(AugmentConfig()).blur_range_mm
    (1.5, 1.5)
    """
    return config.model_copy(update={name: (getattr(config, name)[1],) * 2 for name in _STRONGEST_LAST})


def make_tiles(source: PatchSource, config: TrainConfig, *, seed: int, draws: int) -> Iterator[Tile]:
    """``1 + len(AUGMENTATIONS) + draws`` patches, all of the same place in one case; equal seeds give equal ones.

    What stands alone is shown as strong as it is set to become.
    """
    images, labels = draw_batch(
        [source],
        np.random.default_rng(seed),
        size=1,
        patch=config.patch,
        foreground_probability=config.foreground_probability,
    )
    yield Tile("as it is", "", images[0].numpy(), labels[0].numpy())
    for name in AUGMENTATIONS:
        probability = getattr(config.augment, probability_of(name))
        title = f"{name} alone ({f'else p {probability:g}' if probability else 'else off'})"
        changed, marks = augment_from(alone(name, strongest(config.augment)))(images, labels, seed)
        yield Tile(title, strength_of(name, config.augment), changed[0].numpy(), marks[0].numpy())
    for i in range(draws):
        changed, marks = augment_from(config.augment)(images, labels, seed + i)
        yield Tile(f"all as configured, draw {i + 1}", f"seed {seed + i}", changed[0].numpy(), marks[0].numpy())
