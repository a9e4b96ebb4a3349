"""Dice (Dice, Ecology 1945), with the challenge's rule for empty masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def dice(predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """2 |P and T| / (|P| + |T|) of two masks (X, Y, Z). Both empty: 1.0 (nothing to find, nothing claimed); one empty: 0.0.

    >>> tumour, nothing = np.array([[[True, True]]]), np.array([[[False, False]]])
    >>> dice(tumour, np.array([[[True, False]]])), dice(nothing, nothing), dice(tumour, nothing)
    (0.6666666666666666, 1.0, 0.0)

    Raises:
        ValueError: masks of two shapes.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"prediction {predicted.shape} and truth {truth.shape} have two shapes")
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(truth))
    return 1.0 if total == 0 else 2 * int(np.count_nonzero(predicted & truth)) / total
