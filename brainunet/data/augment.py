"""Random changes to training patches, by TorchIO (Pérez-García et al., Comput. Methods Programs Biomed. 2021).

``AUGMENTATIONS`` is the table: a new one is a line here and its settings in ``config.AugmentConfig``. They run in its order,
which is that of a scan: where the head lies, what the scanner does to it, then contrast and what is missing.

Three rules hold for every line (``tests/core/test_augment.py`` goes over them): a patch keeps its shape and its numbers stay
finite; labels move with the head by nearest neighbour and are otherwise left alone to the bit; and the background, which is 0
in every modality, stays 0 unless the head itself moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, TypeAlias

import torch
import torchio as tio
from SimpleITK import ProcessObject
from torch import Tensor

from brainunet.config import AugmentConfig
from brainunet.data.augment_scanner import AsScanned, DropModalities, ThickSlices

# On patches ITK's threads gain nothing, and its pool was seen to wait for itself for ever.
ProcessObject.SetGlobalDefaultNumberOfThreads(1)

# images (B, C, X, Y, Z), labels (B, X, Y, Z), seed -> the same, changed
Augment: TypeAlias = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
Transform: TypeAlias = Callable[[tio.Subject], tio.Subject]

AUGMENTATIONS: Final[Mapping[str, Callable[[AugmentConfig], Transform]]] = MappingProxyType(
    {
        "flip": lambda c: tio.RandomFlip(axes=(0, 1, 2), flip_probability=c.flip_probability, copy=False),
        "affine": lambda c: tio.RandomAffine(
            scales=c.scale_range,
            degrees=c.rotation_degrees,
            isotropic=True,
            default_pad_value=0,
            p=c.affine_probability,
            copy=False,
        ),
        "motion": lambda c: AsScanned(
            tio.RandomMotion(c.motion_degrees, c.motion_shift_mm, num_transforms=c.motion_count, copy=False),
            p=c.motion_probability,
            margin_voxels=8,
        ),
        "ghosting": lambda c: AsScanned(tio.RandomGhosting(intensity=c.ghosting_range, copy=False), p=c.ghosting_probability),
        "bias": lambda c: AsScanned(
            tio.RandomBiasField(coefficients=c.bias_coefficient, copy=False), p=c.bias_probability, together=True
        ),
        "blur": lambda c: AsScanned(tio.RandomBlur(std=c.blur_range_mm, copy=False), p=c.blur_probability),
        "noise": lambda c: AsScanned(tio.RandomNoise(std=c.noise_range, copy=False), p=c.noise_probability),
        # last of the scanner's: noise and artefacts of thick slices are as thick as they are
        "anisotropy": lambda c: AsScanned(
            ThickSlices(c.through_plane_range, c.in_plane_range), p=c.anisotropy_probability, together=True
        ),
        "gamma": lambda c: tio.RandomGamma(log_gamma=c.log_gamma_range, p=c.gamma_probability, copy=False),
        "dropout": lambda c: DropModalities(c.dropout_most, p=c.dropout_probability),
    }
)


def probability_of(name: str) -> str:
    """The setting that switches an augmentation on.

    >>> probability_of("motion")
    'motion_probability'
    """
    return f"{name}_probability"


def alone(name: str, config: AugmentConfig) -> AugmentConfig:
    """The same strengths with one augmentation always on and every other one off.

    >>> alone("noise", AugmentConfig()).noise_probability, alone("noise", AugmentConfig()).flip_probability
    (1.0, 0.0)
    """
    return config.model_copy(update={probability_of(other): float(other == name) for other in AUGMENTATIONS})


def augment_from(config: AugmentConfig) -> Augment:
    """The configured changes; with every probability 0 a patch comes back as it was.

    TorchIO draws from torch's global generator, so each batch is seeded and the generator put back: the same seed gives the
    same patches whatever ran before, and in whatever process (see :func:`one_thread`).
    """
    transforms = [make(config) for name, make in AUGMENTATIONS.items() if getattr(config, probability_of(name)) > 0]

    def changed(image: Tensor, label: Tensor) -> tio.Subject:
        subject = _subject(image, label)
        torch.rand(1)  # drawn before the first change since the first release: what a seed gives must not change
        for transform in transforms:
            subject = transform(subject)
        return subject

    def augment(images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        if not transforms:
            return images, labels
        with torch.random.fork_rng(devices=[]), one_thread():
            torch.manual_seed(seed)
            subjects = [changed(image, label) for image, label in zip(images, labels, strict=True)]
        # TorchIO resamples labels to float32
        marks = [subject.label.data[0].to(labels.dtype) for subject in subjects]
        return torch.stack([subject.image.data for subject in subjects]), torch.stack(marks)

    return augment


@contextmanager
def one_thread() -> Iterator[None]:
    """Arithmetic on one thread: sums then have one order, and a process with one core makes the same bits as one with many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _subject(image: Tensor, label: Tensor) -> tio.Subject:
    # clones: the transforms work in place
    return tio.Subject(image=tio.ScalarImage(tensor=image.clone()), label=tio.LabelMap(tensor=label[None].clone()))
