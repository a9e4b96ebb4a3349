"""MONAI as a second opinion on Dice, on the areas of surfaces, on distances and on normalised surface distance.

Where the two must agree, and where not:

* Dice of masks that are not empty: to the rounding of float32.
* MONAI's ``SurfaceDiceMetric(use_subvoxels=True)`` weighs elements by area with DeepMind's table, as the challenge does: the
  same figure. Without ``use_subvoxels`` it counts voxels, which is another metric.
* MONAI's ``HausdorffDistanceMetric`` ignores areas: its percentile is another one. Its distances and areas are compared here,
  and the percentile over them is worked out by hand.
* Empty masks: MONAI has NaN where the challenge has a rule, so they are left out.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from brainunet.data.volumes import read_volume
from brainunet.metrics.overlap import dice
from brainunet.metrics.surface import hd95_mm, surface_dice, surface_distances
from brainunet.metrics.surfels import CORNERS, areas_mm2
from tests.support.masks import MM, Mask, Spacing, masks, spacings

pytestmark = pytest.mark.slow  # importing MONAI takes seconds


@pytest.fixture(scope="module")
def monai() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, and those of what it imports
        import monai.metrics
        import monai.metrics.utils
    return monai


def batch(mask: Mask) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(mask))[None, None].float()


def their_nsd(monai: Any, predicted: Mask, truth: Mask, tolerance: float, spacing: Spacing) -> float:
    metric = monai.metrics.SurfaceDiceMetric([tolerance + 1e-4], include_background=True, use_subvoxels=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(metric(batch(predicted), batch(truth), spacing=list(spacing))[0, 0])


def their_hd95(monai: Any, predicted: Mask, truth: Mask, spacing: Spacing) -> float:
    """The weighted percentile of MONAI's distances, the worse direction."""
    import torch

    p, t = (torch.from_numpy(np.ascontiguousarray(mask)) for mask in (predicted, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        edges, distances, areas = monai.metrics.utils.get_edge_surface_distance(
            p, t, spacing=list(spacing), use_subvoxels=True, symmetric=True
        )
    worse = 0.0
    for edge, distance, area in zip(edges, distances, areas, strict=True):
        pairs = sorted(zip(distance.tolist(), area[edge].tolist(), strict=True))
        total, seen = sum(weight for _, weight in pairs), 0.0
        for mm, weight in pairs:
            seen += weight
            if seen >= 0.95 * total - 1e-6 * total:
                worse = max(worse, mm)
                break
    return worse


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 3.5), (0.45, 0.45, 6.0)])
def test_the_areas_between_eight_voxels_are_deepmind_s(monai: Any, spacing: Spacing) -> None:
    table, kernel = monai.metrics.utils.create_table_neighbour_code_to_surface_area(spacing)
    bits = kernel[0, 0].numpy()
    theirs = [sum(int(bits[corner]) for bit, corner in enumerate(CORNERS) if code >> bit & 1) for code in range(256)]

    np.testing.assert_allclose(areas_mm2(spacing), table.numpy()[theirs], rtol=1e-6)


@given(predicted=masks(), truth=masks(), spacing=spacings)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dice_and_surfaces_of_small_masks_agree(monai: Any, predicted: Mask, truth: Mask, spacing: Spacing) -> None:
    assume(predicted.any() and truth.any())
    distances = surface_distances(predicted, truth, spacing)

    theirs = monai.metrics.DiceMetric(include_background=True)(batch(predicted), batch(truth))
    assert dice(predicted, truth) == pytest.approx(float(theirs), rel=1e-6)
    for tolerance in (0.5, 1.0):
        expected = their_nsd(monai, predicted, truth, tolerance, spacing)
        assert surface_dice(distances, tolerance) == pytest.approx(expected, abs=1e-5)
    assert hd95_mm(distances) == pytest.approx(their_hd95(monai, predicted, truth, spacing), abs=1e-4)


@pytest.mark.real
def test_dice_and_surfaces_of_a_real_tumour_agree(monai: Any) -> None:
    folder = os.environ.get("BRAINUNET_REAL_CASES")
    if not folder:
        pytest.skip("BRAINUNET_REAL_CASES names no folder of real cases")
    truth = read_volume(sorted(Path(folder).rglob("*_seg.nii.gz"))[0]).array > 0
    predicted = np.roll(truth, (2, 0, 1), axis=(0, 1, 2))
    predicted[100:105, 100:105, 20:40] = True

    distances = surface_distances(predicted, truth, MM)
    assert surface_dice(distances, 1.0) == pytest.approx(their_nsd(monai, predicted, truth, 1.0, MM), abs=1e-5)
    assert hd95_mm(distances) == pytest.approx(their_hd95(monai, predicted, truth, MM), abs=1e-4)
