"""Whether an engine gets a network right in half precision: tried once, since a processor's flags don't tell
(brainunet.training.precision met one that has the instructions and gives wrong gradients)."""

from __future__ import annotations

from typing import Final

import numpy as np

from brainunet.errors import ConfigError
from brainunet.inference.window import FloatArray, Network

WRONG: Final = 0.1  # root mean square, of the logits' own spread; bfloat16's rounding stays below 0.03


def agree(half: Network, full: Network, image: FloatArray) -> bool:
    """Whether logits in half precision are those in full precision but for rounding; those with a NaN are not."""
    true = full(image)
    wrong = np.sqrt(np.mean((half(image) - true) ** 2))
    return bool(wrong <= WRONG * true.std(axis=(1, 2, 3)).mean())


def trial_image(channels: int, side: int) -> FloatArray:
    """(C, side, side, side): a ball of noise with a brighter ball in it, 0 around them; the same each time."""
    rng = np.random.default_rng(0)
    x, y, z = np.ogrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j, -1 : 1 : side * 1j]
    image = rng.normal(size=(channels, side, side, side))
    image[:, x**2 + (y - 0.2) ** 2 + z**2 < 0.2] += 2
    image[:, x**2 + y**2 + z**2 > 0.9] = 0
    return image.astype(np.float32)


def wrong_in_bf16() -> ConfigError:
    """For a user who insists."""
    return ConfigError(
        "precision",
        found="bf16, in which this processor gets the network wrong",
        expected="auto or fp32",
        remedy="leave --precision to auto",
    )
