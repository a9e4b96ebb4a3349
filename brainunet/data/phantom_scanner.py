"""How a made-up head looks in a scanner: a good one that everybody shares, or the worn one of a BraTS-Africa centre.

A site's signature is what its machine does to every patient alike: the tissue contrast of its own pulse sequences, an
intensity curve, thick slices along z, shading. On top come the accidents of one patient: motion, ghosts, noise. All of
it happens on thick slices, as in a scanner, which are then repeated onto the fine grid: the staircase of resampled
clinical images.

The numbers of ``SCANNERS`` lean on the signature rather than on the accidents: it costs a network trained on clean
images much of its Dice and can be learned back, where noise and blur would be lost for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brainunet.data.phantom_anatomy import Anatomy, Floats, Mask, Shape, smooth_noise
from brainunet.labels import Label, Modality


class Contrast(NamedTuple):
    """Signal of each tissue in one modality, in parts of the scanner's range."""

    csf: float
    grey: float
    white: float
    snfh: float
    netc: float
    et: float
    caps: float
    vessels: float


CLEAN: Final[Mapping[Modality, Contrast]] = MappingProxyType(
    {
        Modality.T1N: Contrast(0.26, 0.60, 0.80, snfh=0.58, netc=0.42, et=0.58, caps=0.76, vessels=0.50),
        Modality.T1C: Contrast(0.24, 0.58, 0.76, snfh=0.56, netc=0.36, et=1.15, caps=0.72, vessels=1.10),
        Modality.T2W: Contrast(1.00, 0.54, 0.40, snfh=0.72, netc=0.82, et=0.62, caps=0.52, vessels=0.35),
        Modality.T2F: Contrast(0.16, 0.56, 0.48, snfh=0.82, netc=0.62, et=0.74, caps=0.78, vessels=0.40),
    }
)


@dataclass(frozen=True)
class Scanner:
    """The signature of one site.

    Attributes:
        slice_mm: thickness of a slice, in millimetres of an adult brain.
        curve: exponent of the intensity curve of each modality.
        flair_white: added to healthy white matter on FLAIR: above 0.1 it outshines the cortex.
        flair_csf: added to fluid on FLAIR: a badly timed inversion leaves it as bright as a tumour.
        conspicuity: what remains of the contrast between tumour and the brain around it, T2 and FLAIR.
        uptake: what remains of the brightness of contrast agent on t1c.
        shading: deviation of the coil's bias field.
        noise: deviation of the noise, in parts of the range.
        ghosts: strength of the copies along y.
    """

    slice_mm: float
    curve: Mapping[Modality, float]
    flair_white: float
    flair_csf: float
    conspicuity: float
    uptake: float
    shading: float
    noise: float
    ghosts: float


def _curves(t1n: float, t1c: float, t2w: float, t2f: float) -> Mapping[Modality, float]:
    return MappingProxyType({Modality.T1N: t1n, Modality.T1C: t1c, Modality.T2W: t2w, Modality.T2F: t2f})


SCANNERS: Final[Mapping[str, Scanner]] = MappingProxyType(
    {
        "CRV": Scanner(4.5, _curves(1.4, 1.5, 0.6, 0.8), 0.22, 0.54, 0.95, 0.70, 0.06, 0.015, 0.05),
        "LASUTH": Scanner(3.5, _curves(0.7, 0.6, 1.5, 1.5), 0.05, 0.60, 0.95, 0.75, 0.07, 0.012, 0.05),
        "MEDHUB": Scanner(3.0, _curves(0.6, 0.7, 1.7, 1.3), 0.30, 0.64, 0.95, 0.60, 0.05, 0.018, 0.07),
        "NKDC": Scanner(5.0, _curves(1.3, 1.1, 0.7, 1.4), 0.12, 0.56, 0.95, 0.75, 0.06, 0.012, 0.05),
        "LILY": Scanner(4.0, _curves(0.8, 1.4, 1.2, 0.7), 0.18, 0.50, 0.95, 0.65, 0.06, 0.015, 0.06),
    }
)


def image_clean(rng: np.random.Generator, anatomy: Anatomy) -> Mapping[Modality, npt.NDArray[np.int16]]:
    """The four modalities as a research scanner gives them."""
    images = {}
    for modality, signal in _signals(rng, anatomy, CLEAN).items():
        shading = 1 + 0.03 * smooth_noise(rng, _shape(signal), max(signal.shape) / 2)
        noisy = signal * shading + rng.standard_normal(signal.shape, np.float32) * np.float32(0.02)
        images[modality] = _stored(noisy, anatomy, range_=rng.uniform(400, 2200))
    return MappingProxyType(images)


def image_at(rng: np.random.Generator, anatomy: Anatomy, scanner: Scanner) -> Mapping[Modality, npt.NDArray[np.int16]]:
    """The four modalities as this site gives them."""
    slices = _slices(rng, anatomy.brain.shape[2], scanner.slice_mm / anatomy.voxel_mm)
    brain = _averaged(anatomy.brain.astype(np.float32), slices)
    contrasts = {modality: _worn(modality, contrast, scanner) for modality, contrast in CLEAN.items()}
    images = {}
    for modality, signal in _signals(rng, anatomy, contrasts).items():
        # over the share of brain: a slice that is half outside must not be half as bright
        thick = _averaged(signal * anatomy.brain, slices) / np.maximum(brain, np.float32(0.05))
        curved = np.asarray(np.maximum(thick, 0) ** np.float32(scanner.curve[modality]), np.float32)
        seen = _ghosted(rng, _moved(rng, curved), scanner.ghosts * rng.uniform(0.3, 1.4))
        if modality in (Modality.T2F, Modality.T2W):
            seen += _pulsation(rng, _shape(seen), scanner.ghosts * rng.uniform(0.5, 1.5))
        seen *= np.exp(scanner.shading * smooth_noise(rng, _shape(seen), max(seen.shape) / 1.6))
        deviation = np.float32(scanner.noise * rng.uniform(0.7, 1.4))
        real, imaginary = deviation * rng.standard_normal((2, *seen.shape), np.float32)
        # A magnitude image has Rician noise (Gudbjartsson and Patz 1995). Some exports subtract an offset: the darkest
        # voxels are then below 0, which is why a brain is where an image is not 0.
        magnitude = np.hypot(seen + real, imaginary)
        magnitude -= np.quantile(magnitude[brain > 0.5], rng.uniform(0, 0.006))
        images[modality] = _stored(magnitude[:, :, slices], anatomy, range_=rng.uniform(300, 1200))
    return MappingProxyType(images)


def _signals(rng: np.random.Generator, anatomy: Anatomy, contrasts: Mapping[Modality, Contrast]) -> dict[Modality, Floats]:
    """Noiseless signal per modality, with what differs between patients: contrast of tissue and tumour, texture."""
    shape = _shape(anatomy.csf)
    mm = 1 / anatomy.voxel_mm
    texture = 1 + 0.045 * smooth_noise(rng, shape, 28 * mm) + 0.025 * smooth_noise(rng, shape, 6 * mm)
    box = _around_tumour(anatomy)
    mottle, wisps = smooth_noise(rng, shape, 9 * mm)[box], smooth_noise(rng, shape, 16 * mm)[box]
    snfh, netc, et = (_softened(anatomy.label[box] == label) for label in (Label.SNFH, Label.NETC, Label.ET))
    snfh *= np.clip(0.8 + 0.15 * wisps, 0.35, 1)  # the brain shows through oedema
    signals = {}
    for modality, contrast in contrasts.items():
        jitter = np.exp(rng.normal(0, 0.05, len(contrast))).tolist()
        c = Contrast(*(value * factor for value, factor in zip(contrast, jitter, strict=True)))
        image = anatomy.csf * c.csf + anatomy.grey * c.grey + anatomy.white * c.white
        image += anatomy.caps * (c.caps - c.white) + anatomy.vessels * (c.vessels - image)
        lesion = image[box]  # a view: what is added to it is added to the image
        lesion += snfh * (c.snfh - lesion)
        lesion += netc * (c.netc * (1 + 0.16 * mottle) - lesion)
        lesion += et * (c.et * (1 + 0.10 * wisps) - lesion)
        signals[modality] = image * texture
    return signals


def _around_tumour(anatomy: Anatomy) -> tuple[slice, ...]:
    """The box of the tumour and the voxels that its softened border reaches."""
    found = ndimage.find_objects((anatomy.label > 0).astype(np.uint8))[0]
    return tuple(slice(max(0, side.start - 2), side.stop + 2) for side in found)


def _softened(tissue: Mask) -> Floats:
    """Membership 0-1 of a tissue with half a voxel of blur: its border is never sharper than a voxel."""
    return np.asarray(ndimage.gaussian_filter(tissue.astype(np.float32), 0.6, truncate=3, mode="constant"), np.float32)


def _worn(modality: Modality, clean: Contrast, scanner: Scanner) -> Contrast:
    """A modality's contrast after the site's own pulse sequences."""
    if modality is Modality.T1N:
        return clean
    if modality is Modality.T1C:
        return clean._replace(
            et=clean.white + scanner.uptake * (clean.et - clean.white),
            vessels=clean.white + scanner.uptake * (clean.vessels - clean.white),
        )
    healthy, seen = max(clean.white, clean.grey), clean
    if modality is Modality.T2F:
        added = scanner.flair_white
        seen = clean._replace(white=clean.white + added, csf=clean.csf + scanner.flair_csf, caps=clean.caps + added / 2)
    around = max(seen.white, seen.grey)
    worn = {name: around + scanner.conspicuity * (getattr(clean, name) - healthy) for name in ("snfh", "netc", "et")}
    return seen._replace(**worn)


def _slices(rng: np.random.Generator, depth: int, thickness: float) -> npt.NDArray[np.intp]:
    """The thick slice that each plane of the fine grid lies in; at least two planes share one."""
    thickness = max(thickness, 2.0)
    first = (np.arange(depth) + rng.uniform(0, thickness)) // thickness
    return np.asarray(first - first[0], np.intp)


def _averaged(image: Floats, slices: npt.NDArray[np.intp]) -> Floats:
    starts = np.flatnonzero(np.diff(slices, prepend=-1))
    return np.asarray(np.add.reduceat(image, starts, axis=2) / np.bincount(slices), np.float32)


def _moved(rng: np.random.Generator, image: Floats) -> Floats:
    """A patient who moved: a share of the data saw the head elsewhere, and all of it is a little blurred."""
    shift = rng.normal(0, 0.018, 2) * image.shape[:2]
    elsewhere = ndimage.shift(image, (*shift, 0), order=1)
    share = rng.uniform(0.1, 0.3)
    return np.asarray(
        ndimage.gaussian_filter((1 - share) * image + share * elsewhere, (0.4, rng.uniform(0.4, 0.9), 0), truncate=3),
        np.float32,
    )


def _ghosted(rng: np.random.Generator, image: Floats, strength: float) -> Floats:
    """Copies along the phase-encoding axis y, each the weaker the further away."""
    side = image.shape[1]
    step = side // int(rng.integers(3, 6))
    ghosts = (
        sum(np.roll(image, way * step, axis=1) for way in (-1, 1)) * 0.6
        + sum(np.roll(image, 2 * way * step, axis=1) for way in (-1, 1)) * 0.3
    )
    return np.asarray(image + strength * ghosts, np.float32)


def _pulsation(rng: np.random.Generator, shape: Shape, strength: float) -> Floats:
    """A row of soft blobs along y, the ghosts of a beating artery: bright like a lesion, and in a single modality."""
    x, y, z = (np.arange(side, dtype=np.float32) / side for side in shape)
    at, height, phase = rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.75), rng.uniform(0, np.pi)
    period = rng.uniform(0.12, 0.25)
    row = np.exp(-(((x - at) / 0.06) ** 2))[:, None, None] * np.exp(-(((z - height) / 0.08) ** 2))
    return np.asarray(strength * 1.5 * row * np.cos(2 * np.pi * y / period + phase)[:, None] ** 3, np.float32)


def _stored(image: Floats, anatomy: Anatomy, range_: float) -> npt.NDArray[np.int16]:
    """Whole numbers as in a raw file: exactly 0 outside the brain and never 0 inside."""
    whole = np.asarray(np.clip(np.rint(image * np.float32(range_)), -32000, 32000), np.int16)
    whole[(whole == 0) & anatomy.brain] = 1
    whole[~anatomy.brain] = 0
    return whole


def _shape(array: npt.NDArray[np.float32]) -> Shape:
    return (array.shape[0], array.shape[1], array.shape[2])
