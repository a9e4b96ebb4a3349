"""Training patches: where they are cut, how they are padded, how they become a batch; and whole cases, which are one each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from brainunet.data.preprocess import PreparedCase
from brainunet.labels import TUMOUR_LABELS

CENTRES_PER_LABEL = 4096


class PatchSource:
    """Patches of one labelled case: around a tumour voxel, or anywhere.

    Tumour voxels are listed once and thinned to some thousands per label, so that a rare label is as likely a centre as a
    common one and memory stays small.
    """

    def __init__(self, case: PreparedCase) -> None:
        if case.label is None:
            raise ValueError("a case without a segmentation can't be trained on")
        self.image, self.label = case.image, case.label
        self.centres = [found for value in TUMOUR_LABELS if len(found := _thinned(np.argwhere(case.label == value)))]

    def draw(
        self, rng: np.random.Generator, patch: tuple[int, int, int], foreground_probability: float
    ) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
        """Image (C, *patch) and label (*patch); zeros where the patch reaches beyond the case."""
        shape = np.array(self.label.shape)
        if self.centres and rng.random() < foreground_probability:
            among = self.centres[rng.integers(len(self.centres))]
            # the tumour voxel lies anywhere in the middle half of the patch
            jitter = [int(rng.integers(-side // 4, side // 4 + 1)) for side in patch]
            centre = among[rng.integers(len(among))] + jitter
        else:
            centre = np.array([int(rng.integers(side)) for side in shape])
        start = np.clip(centre - np.array(patch) // 2, np.minimum(0, shape - patch), np.maximum(0, shape - patch))
        return self._cut(start, patch)

    @property
    def voxels(self) -> int:
        return self.label.size

    def _cut(
        self, start: npt.NDArray[np.int64], patch: tuple[int, int, int]
    ) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint8]]:
        image = np.zeros((self.image.shape[0], *patch), np.float16)
        label = np.zeros(patch, np.uint8)
        low, high = np.maximum(start, 0), np.minimum(start + patch, self.label.shape)
        source = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        target = tuple(slice(int(a), int(b)) for a, b in zip(low - start, high - start, strict=True))
        image[(slice(None), *target)] = self.image[(slice(None), *source)]
        label[target] = self.label[source]
        return image, label


def draw_batch(
    sources: Sequence[PatchSource],
    rng: np.random.Generator,
    *,
    size: int,
    patch: tuple[int, int, int],
    foreground_probability: float,
) -> tuple[Tensor, Tensor]:
    """Images (B, C, *patch) float32 and labels (B, *patch) uint8, from ``size`` cases, different ones as far as they reach."""
    order = np.concatenate([rng.permutation(len(sources)) for _ in range(-(-size // len(sources)))])[:size]
    pairs = [sources[i].draw(rng, patch, foreground_probability) for i in order]
    images = torch.from_numpy(np.stack([image for image, _ in pairs]).astype(np.float32))
    return images, torch.from_numpy(np.stack([label for _, label in pairs]))


def whole_case(source: PatchSource) -> tuple[Tensor, Tensor]:
    """A batch of one: image (1, C, X, Y, Z) float32 and label (1, X, Y, Z) uint8 of the case as it is.

    Nothing is cut off or added: air at the edges would change what a norm counts, and the network takes any size.
    """
    image, label = np.array(source.image[None], np.float32), np.array(source.label[None])
    return torch.from_numpy(image), torch.from_numpy(label)


def _thinned(centres: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    step = max(1, len(centres) // CENTRES_PER_LABEL)
    return centres[::step]
