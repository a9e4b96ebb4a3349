"""Scores of a segmentation: numpy and scipy only, so that they can be checked and used without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from brainunet.metrics.overlap import dice

# predicted and truth, masks (X, Y, Z) -> value, or None where the metric has none
Metric: TypeAlias = Callable[[npt.NDArray[np.bool_], npt.NDArray[np.bool_]], float | None]

METRICS: Final[Mapping[str, Metric]] = MappingProxyType({"dice": dice})
