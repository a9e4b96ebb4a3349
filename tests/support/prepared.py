"""Prepared cases made of numbers, for what needs no file."""

from __future__ import annotations

import numpy as np

from brainunet.data.preprocess import PreparedCase
from brainunet.labels import Label


def prepared_case(
    shape: tuple[int, int, int] = (24, 24, 24), *, seed: int = 0, tumour_at: tuple[int, int, int] | None = (8, 8, 8)
) -> PreparedCase:
    """Noise around a bright cube of 6 voxels a side: SNFH, in it NETC (4 a side), in it ET (2 a side); or no tumour."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 0.5, size=(3, *shape))
    label = np.zeros(shape, np.uint8)
    if tumour_at is not None:
        for inset, tissue in enumerate((Label.SNFH, Label.NETC, Label.ET)):
            cube = tuple(slice(corner + inset, corner + 6 - inset) for corner in tumour_at)
            label[cube] = tissue
            image[inset][cube] += 3
    return PreparedCase(
        image=image.astype(np.float16),
        label=label,
        box=((0, shape[0]), (0, shape[1]), (0, shape[2])),
        affine=np.eye(4),
        shape=shape,
        spacing_mm=(1.0, 1.0, 1.0),
    )
