"""Scores of a segmentation: numpy and scipy only, so that they can be checked and used without a network.

>>> import numpy as np
>>> truth = np.zeros((20, 20, 20), bool)
>>> truth[4:14, 4:14, 4:14] = True
>>> predicted = np.roll(truth, 1, axis=0)
>>> pair = pair_of(predicted, truth, spacing_mm=(1.0, 1.0, 1.0))
>>> {name: METRICS[name].of(pair) for name in ("dice", "hd95_mm", "lesion_dice", "volume_ml")}
{'dice': 0.9, 'hd95_mm': 1.0, 'lesion_dice': 0.9, 'volume_ml': 1.0}
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from brainunet.metrics.lesions import lesion_scores
from brainunet.metrics.overlap import dice, sensitivity, specificity, volume_ml
from brainunet.metrics.pair import Metric, Missing, Pair, pair_of
from brainunet.metrics.surface import hd95_mm, surface_dice, surface_distances

__all__ = ["METRICS", "Metric", "Missing", "Pair", "pair_of"]

METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "dice": Metric(lambda p: dice(p.predicted, p.truth), best=1, symmetric=True),
        "hd95_mm": Metric(lambda p: hd95_mm(p.once(surface_distances)), "mm", best=0, symmetric=True),
        "nsd_0_5mm": Metric(lambda p: surface_dice(p.once(surface_distances), 0.5), best=1, symmetric=True),
        "nsd_1mm": Metric(lambda p: surface_dice(p.once(surface_distances), 1.0), best=1, symmetric=True),
        "lesion_dice": Metric(lambda p: p.once(lesion_scores).dice, best=1),
        "lesion_hd95_mm": Metric(lambda p: p.once(lesion_scores).hd95_mm, "mm", best=0),
        "lesion_tp": Metric(lambda p: p.once(lesion_scores).found, "lesions"),
        "lesion_fp": Metric(lambda p: p.once(lesion_scores).false_positives, "lesions", best=0),
        "lesion_fn": Metric(lambda p: p.once(lesion_scores).missed, "lesions", best=0),
        "sensitivity": Metric(sensitivity, best=1),
        "specificity": Metric(specificity, best=1),
        "volume_ml": Metric(lambda p: volume_ml(p.predicted, p.spacing_mm), "ml"),
        "truth_volume_ml": Metric(lambda p: volume_ml(p.truth, p.spacing_mm), "ml"),
    }
)
