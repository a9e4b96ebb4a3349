"""What a prediction is: probabilities, and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from brainunet.config import Window
from brainunet.inference.window import FloatArray
from brainunet.labels import Label


@dataclass(frozen=True)
class RunFacts:
    """How a prediction was made.

    Attributes:
        engine: openvino | torch.
        precision: fp32 | bf16, of the convolutions.
        device: cpu | cuda.
        threads: of the CPU.
        way: one-pass | windows.
        window: sides of the windows; None in one pass.
        passes: how often the network was run.
        estimated_bytes: of memory, that the whole program was thought to need at most.
        seconds_load: before the network could run on this image: opening the model (in the first prediction) and compiling it.
        seconds_network: in the network, with blending and softmax.
        warnings: sentences for the reader of a report.
    """

    engine: str
    precision: str
    device: str
    threads: int
    way: str
    window: Window | None
    passes: int
    estimated_bytes: int
    seconds_load: float
    seconds_network: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of the image that was given, all its voxels.

    Attributes:
        probabilities: (L, X, Y, Z) float32, the softmax, in the order of ``labels.Label``.
        facts: how it was made.
    """

    probabilities: FloatArray
    facts: RunFacts

    @cached_property
    def labels(self) -> npt.NDArray[np.uint8]:
        """(X, Y, Z) numbers of ``labels.Label``: the most probable one of each voxel."""
        return largest(self.probabilities)

    @property
    def entropy(self) -> FloatArray:
        """(X, Y, Z) float32: 0 where one label is certain, 1 where all are as likely. Computed anew each time."""
        return entropy_of(self.probabilities)

    @property
    def undecided(self) -> float | None:
        """Voxels that are tumour with a probability of 20 to 80 %, of any of its labels, as a share of those labelled so.

        Of what a network knows of its own doubt this went best with Dice (``benchmarks/review_thresholds.py``); entropy, which
        counts the doubt between two labels of the tumour too, did not go with it. None where nothing was labelled tumour.
        """
        tumour = np.count_nonzero(self.labels != Label.BACKGROUND)
        if not tumour:
            return None
        background = self.probabilities[Label.BACKGROUND]
        return np.count_nonzero((background > 0.2) & (background < 0.8)) / tumour


def entropy_of(probabilities: Iterable[FloatArray]) -> FloatArray:
    """Of each voxel, as a share of the most there can be: the labels' probabilities (X, Y, Z), one after the other.

    >>> entropy_of(np.array([[1.0, 0.5, 0.25], [0.0, 0.5, 0.25], [0, 0, 0.25], [0, 0, 0.25]], np.float32)).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    total, labels = np.zeros((), np.float32), 0
    for probability in probabilities:
        # the limit of p log p at 0 is 0
        total = total - probability * np.log(np.maximum(probability, np.finfo(np.float32).tiny))
        labels += 1
    total /= math.log(labels)
    return np.clip(total, 0, 1, out=total)


def largest(values: Iterable[FloatArray]) -> npt.NDArray[np.uint8]:
    """Values (X, Y, Z) of each label -> the index of each voxel's largest, of the first one among equals.

    >>> largest(np.array([[0.1, 0.4], [0.9, 0.4], [0.0, 0.2]], np.float32)).tolist()
    [1, 0]
    """
    rest = iter(values)
    best = next(rest).copy()
    index = np.zeros(best.shape, np.uint8)
    for number, value in enumerate(rest, start=1):  # argmax over the first axis would copy all of them
        index[value > best] = number
        np.maximum(best, value, out=best)
    return index


def softmax(logits: FloatArray) -> FloatArray:
    """Logits (L, X, Y, Z) -> probabilities, in the same memory."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits
