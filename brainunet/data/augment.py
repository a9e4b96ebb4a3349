"""Random changes to training patches, by TorchIO (Pérez-García et al., Comput. Methods Programs Biomed. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torchio as tio
from torch import Tensor

from brainunet.config import AugmentConfig

# images (B, C, X, Y, Z), labels (B, X, Y, Z), seed -> the same, changed
Augment: TypeAlias = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def augment_from(config: AugmentConfig) -> Augment:
    """The configured changes; with every probability 0 a patch comes back as it was.

    TorchIO draws from torch's global generator, so each batch is seeded and the generator put back: the same seed gives the
    same patches whatever ran before.
    """
    transform = tio.Compose(
        [
            tio.RandomFlip(axes=(0, 1, 2), flip_probability=config.flip_probability),
            tio.RandomAffine(
                scales=config.scale_range,
                degrees=0,
                isotropic=True,
                default_pad_value=0,
                p=config.scale_probability,
            ),
            tio.RandomGamma(log_gamma=config.log_gamma_range, p=config.gamma_probability),
        ]
    )

    def augment(images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed = [transform(_subject(image, label)) for image, label in zip(images, labels, strict=True)]
        # TorchIO resamples labels to float32
        marks = [subject.label.data[0].to(labels.dtype) for subject in changed]
        return torch.stack([subject.image.data for subject in changed]), torch.stack(marks)

    return augment


def _subject(image: Tensor, label: Tensor) -> tio.Subject:
    return tio.Subject(image=tio.ScalarImage(tensor=image), label=tio.LabelMap(tensor=label[None]))
