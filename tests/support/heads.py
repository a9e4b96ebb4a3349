"""Batches of made-up heads as augmentation meets them."""

from __future__ import annotations

import torch
from torch import Tensor


def head_of(size: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A brain of correlated tissue in the middle, mean 0 and deviation 1 in it, air of 0 around it, and a labelled tumour."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(size, 3, 24, 20, 28)
    inside = torch.randn(size, 3, 8, 7, 9, generator=generator)
    images[..., 4:20, 3:17, 5:23] = torch.nn.functional.interpolate(inside, size=(16, 14, 18), mode="trilinear")
    brain = (images != 0).any(1, keepdim=True)
    for image, mask in zip(images, brain, strict=True):
        for channel in image:
            inner = channel[mask[0]]
            channel[mask[0]] = (inner - inner.mean()) / inner.std()
    labels = torch.zeros(size, 24, 20, 28, dtype=torch.uint8)
    labels[:, 6:14, 5:12, 8:17] = 2
    labels[:, 8:12, 7:10, 10:14] = 1
    labels[:, 9, 8, 11:13] = 3
    return images, labels
