"""Surface distances: numbers by hand, and a slow second way that works triangle by triangle."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings

from brainunet.metrics.surface import hd95_mm, surface_dice, surface_distances, surface_of
from brainunet.metrics.surfels import CORNERS, areas_mm2
from tests.support import slow_metrics
from tests.support.masks import MM, SHAPE, Mask, Spacing, box, masks, spacings
from tests.support.slow_metrics import voxels_of

NOTHING = np.zeros(SHAPE, bool)


def hd95(predicted: Mask, truth: Mask, spacing: Spacing = MM) -> float:
    return hd95_mm(surface_distances(predicted, truth, spacing))


def nsd(predicted: Mask, truth: Mask, tolerance: float, spacing: Spacing = MM) -> float:
    return surface_dice(surface_distances(predicted, truth, spacing), tolerance)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 3.5), (0.45, 0.45, 6.0)])
def test_the_area_between_any_eight_voxels_is_that_of_its_triangles(spacing: Spacing) -> None:
    for code in range(256):
        inside = frozenset(corner for bit, corner in enumerate(CORNERS) if code >> bit & 1)

        assert areas_mm2(spacing)[code] == pytest.approx(slow_metrics.area_between(inside, spacing), abs=1e-9), code


def test_the_area_is_one_whichever_side_is_called_inside() -> None:
    areas = areas_mm2((1.0, 2.0, 3.5))

    np.testing.assert_allclose(areas, areas[::-1])


def test_one_voxel_is_an_octahedron() -> None:
    surface = surface_of(np.ones((1, 1, 1), bool), MM)

    assert len(surface.areas_mm2) == 8
    assert surface.areas_mm2.sum() == pytest.approx(math.sqrt(3))  # eight equilateral triangles with sides of 1/sqrt(2)


def test_a_large_flat_face_has_the_area_of_its_voxels() -> None:
    plate = box((2, 2, 2), (1, 20, 30))
    surface = surface_of(plate, (1.0, 2.0, 3.0))

    flat = np.isclose(surface.areas_mm2, 6.0)
    assert flat.sum() == 2 * 19 * 29


def test_an_oblique_face_is_not_taken_for_a_larger_one() -> None:
    x, y = np.indices((40, 40))
    stairs = np.repeat((x + y < 40)[..., None], 4, axis=2)
    middle = surface_of(stairs, MM)
    on_slope = np.abs(middle.points_mm[:, 0] + middle.points_mm[:, 1] - 40) <= 1

    across = on_slope & (middle.points_mm[:, 2] == 2) & (np.minimum(*middle.points_mm[:, :2].T) > 1)
    lengths = middle.areas_mm2[across].sum()
    # elements per voxel of the diagonal: two, whose areas add up to its length, sqrt(2), and not to 2
    assert lengths / (across.sum() / 2) == pytest.approx(math.sqrt(2))


def test_a_cube_moved_by_two_voxels_is_two_voxels_away() -> None:
    cube, moved = box((10, 10, 10), 8), box((12, 10, 10), 8)

    assert hd95(moved, cube) == 2.0
    assert hd95(moved, cube, (1.5, 1.0, 1.0)) == 3.0
    assert hd95(moved, cube, (1.0, 9.0, 9.0)) == 2.0
    assert nsd(moved, cube, 2.0) == 1.0
    assert nsd(moved, cube, 1.0) < 1.0


def test_the_worse_direction_counts() -> None:
    small, both = box((4, 4, 4), 4), box((4, 4, 4), 4) | box((4, 4, 30), 4)

    assert hd95(small, both) == hd95(both, small) == pytest.approx(26.0)
    assert hd95_mm(surface_distances(small, small, MM)) == 0.0


def test_a_far_piece_of_less_than_a_twentieth_of_the_area_is_left_out_by_the_percentile() -> None:
    large = box((4, 4, 4), 20)
    speck = large | box((45, 45, 45), 1)

    assert surface_of(box((0, 0, 0), 1), MM).areas_mm2.sum() < 0.05 * surface_of(large, MM).areas_mm2.sum()
    assert hd95(speck, large) == 0.0


def test_the_percentile_is_of_area_and_not_of_the_number_of_elements() -> None:
    # a plate of 20 x 20 faces, and single voxels 10 mm above it: 8 elements and sqrt(3) mm2 each
    plate = box((4, 4, 4), (20, 20, 2))
    specks = plate.copy()
    specks[4:24:4, 4:24:4, 16] = True
    surface = surface_of(specks, MM)
    above = surface.points_mm[:, 2] > 10

    assert above.sum() / len(above) > 0.15
    share = surface.areas_mm2[above].sum() / surface.areas_mm2.sum()
    assert 0.03 < share < 0.05
    assert hd95(specks, plate) == 0.0


def test_empty_masks_cost_what_the_challenge_says() -> None:
    something = box((2, 2, 2), 3, SHAPE)

    assert hd95(NOTHING, NOTHING) == 0.0
    assert hd95(something, NOTHING) == hd95(NOTHING, something) == 374.0
    assert nsd(NOTHING, NOTHING, 1.0) == 1.0
    assert nsd(something, NOTHING, 1.0) == nsd(NOTHING, something, 1.0) == 0.0


def test_a_mask_at_the_edge_of_the_volume_is_closed_there() -> None:
    inside, cut = surface_of(box((4, 4, 4), 3), MM), surface_of(np.ones((3, 3, 3), bool), MM)

    assert cut.areas_mm2.sum() == inside.areas_mm2.sum()


def test_a_spacing_with_the_rounding_of_an_affine_s_numbers_is_a_millimetre_all_the_same() -> None:
    cube, moved = box((10, 10, 10), 8), box((11, 10, 10), 8)

    assert nsd(moved, cube, 1.0, (1.0000001, 1.0, 1.0)) == nsd(moved, cube, 1.0) == 1.0


def test_masks_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="two shapes"):
        surface_distances(NOTHING, np.zeros((2, 2, 2), bool), MM)


@given(predicted=masks(), truth=masks(), spacing=spacings)
@settings(deadline=None, max_examples=40)
def test_distances_are_those_of_a_slow_second_way(predicted: Mask, truth: Mask, spacing: Spacing) -> None:
    p, t = voxels_of(predicted), voxels_of(truth)

    assert hd95(predicted, truth, spacing) == pytest.approx(slow_metrics.hd95(p, t, spacing))
    for tolerance in (0.5, 1.0):
        expected = slow_metrics.nsd(p, t, spacing, tolerance)
        assert nsd(predicted, truth, tolerance, spacing) == pytest.approx(expected)


@given(predicted=masks(), truth=masks(), spacing=spacings)
@settings(deadline=None, max_examples=40)
def test_more_tolerance_never_finds_less_and_scaling_the_voxels_scales_the_distance(
    predicted: Mask, truth: Mask, spacing: Spacing
) -> None:
    shares = [nsd(predicted, truth, tolerance, spacing) for tolerance in (0.0, 0.5, 1.0, 4.0, 1000.0)]
    twice: Spacing = (2 * spacing[0], 2 * spacing[1], 2 * spacing[2])

    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    if predicted.any() and truth.any():
        assert shares[-1] == 1
        assert hd95(predicted, truth, twice) == pytest.approx(2 * hd95(predicted, truth, spacing))
    else:
        assert hd95(predicted, truth, twice) == hd95(predicted, truth, spacing)


def test_every_symmetry_of_the_cube_gives_the_same_area() -> None:
    areas = areas_mm2(MM)
    for order, flips in itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)):
        turned = [tuple(corner[axis] ^ flip for axis, flip in zip(order, flips, strict=True)) for corner in CORNERS]
        places = [CORNERS.index(corner) for corner in turned]
        codes = [sum((code >> bit & 1) << place for bit, place in enumerate(places)) for code in range(256)]

        np.testing.assert_allclose(areas[codes], areas)
