"""Where training patches are cut, and what is in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainunet.data.patches import CENTRES_PER_LABEL, PatchSource, draw_batch
from brainunet.data.preprocess import PreparedCase
from tests.support.prepared import prepared_case

sides = st.sampled_from([16, 24, 40])
case_sides = st.integers(6, 44)


def with_tumour_voxels(shape: tuple[int, int, int], *where: tuple[int, int, int], label: int = 3) -> PreparedCase:
    case = prepared_case(shape, tumour_at=None)
    assert case.label is not None
    for at in where:
        case.label[at] = label
    return case


def tumour_free(shape: tuple[int, int, int]) -> PreparedCase:
    return prepared_case(shape, tumour_at=None)


@given(
    shape=st.tuples(case_sides, case_sides, case_sides),
    patch=st.tuples(sides, sides, sides),
    where=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 3),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None)
def test_a_foreground_patch_holds_the_tumour_even_a_single_voxel_in_a_corner_of_any_case(
    shape: tuple[int, int, int], patch: tuple[int, int, int], where: tuple[float, float, float], seed: int
) -> None:
    at = (int(where[0] * shape[0]), int(where[1] * shape[1]), int(where[2] * shape[2]))
    source = PatchSource(with_tumour_voxels(shape, at))

    _, label = source.draw(np.random.default_rng(seed), patch, foreground_probability=1)

    assert np.count_nonzero(label) == 1


def test_away_from_the_edges_the_tumour_lies_anywhere_in_the_middle_half_of_the_patch() -> None:
    source, rng = PatchSource(with_tumour_voxels((64, 64, 64), (32, 32, 32))), np.random.default_rng(0)

    found = np.array([np.argwhere(source.draw(rng, (16, 24, 32), 1)[1])[0] for _ in range(400)])

    assert found.min(axis=0).tolist() == [4, 6, 8]
    assert found.max(axis=0).tolist() == [12, 18, 24]


def test_the_probability_of_a_foreground_patch_is_the_one_asked_for() -> None:
    # the tumour is 1 voxel in 200,000: a patch drawn anywhere holds it in less than 1 of 20 cases
    source = PatchSource(with_tumour_voxels((60, 60, 60), (30, 30, 30)))

    def share(probability: float) -> float:
        rng = np.random.default_rng(1)
        return float(np.mean([source.draw(rng, (16, 16, 16), probability)[1].any() for _ in range(600)]))

    assert share(1.0) == 1.0
    assert share(0.0) < 0.1
    assert share(0.5) == pytest.approx(0.5 + 0.5 * share(0.0), abs=0.06)


def test_a_rare_label_is_as_likely_a_centre_as_a_common_one() -> None:
    case = with_tumour_voxels((64, 64, 64), (50, 50, 50), label=1)
    assert case.label is not None
    case.label[4:36, 4:36, 4:36] = 2
    source, rng = PatchSource(case), np.random.default_rng(2)

    share = np.mean([(source.draw(rng, (16, 16, 16), 1)[1] == 1).any() for _ in range(400)])

    assert share == pytest.approx(0.5, abs=0.08)


def test_a_large_tumour_is_thinned_over_its_whole_extent() -> None:
    case = tumour_free((48, 48, 48))
    assert case.label is not None
    case.label[:] = 3
    (centres,) = PatchSource(case).centres

    assert CENTRES_PER_LABEL <= len(centres) < 2 * CENTRES_PER_LABEL
    assert centres.min(axis=0).max() == 0
    assert centres.max(axis=0).min() >= 44


@given(shape=st.tuples(case_sides, case_sides, case_sides), patch=st.tuples(sides, sides, sides), seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_a_patch_is_a_piece_of_the_case_with_zeros_beyond_it(
    shape: tuple[int, int, int], patch: tuple[int, int, int], seed: int
) -> None:
    places = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    label = (places % 4).astype(np.uint8)
    # three channels that spell out where a voxel comes from, exactly in half precision
    image = np.stack([np.array(axis) + 1 for axis in np.indices(shape)]).astype(np.float16)
    source = PatchSource(replace(tumour_free(shape), image=image, label=label))

    drawn, drawn_label = source.draw(np.random.default_rng(seed), patch, 0.5)

    assert drawn.shape == (3, *patch)
    assert drawn_label.shape == patch
    inside = (drawn > 0).all(axis=0)
    assert (drawn[:, ~inside] == 0).all()
    assert (drawn_label[~inside] == 0).all()
    # a patch wider than the case holds all of it, a narrower one lies wholly inside
    assert inside.sum() == np.prod(np.minimum(shape, patch))
    x, y, z = (drawn[axis][inside].astype(int) - 1 for axis in range(3))
    np.testing.assert_array_equal(drawn_label[inside], label[x, y, z])


def test_every_part_of_a_case_can_be_drawn() -> None:
    source, rng = PatchSource(with_tumour_voxels((30, 30, 30), (0, 29, 15))), np.random.default_rng(3)

    assert any(source.draw(rng, (16, 16, 16), 0.0)[1].any() for _ in range(300))


def test_a_case_without_tumour_gives_patches_too_and_one_without_segmentation_is_refused() -> None:
    image, label = PatchSource(tumour_free((24, 24, 24))).draw(np.random.default_rng(0), (16, 16, 16), 1.0)

    assert image.any()
    assert not label.any()
    with pytest.raises(ValueError, match="without a segmentation"):
        PatchSource(replace(tumour_free((24, 24, 24)), label=None))


def test_the_same_generator_gives_the_same_batch() -> None:
    sources = [PatchSource(prepared_case(seed=seed)) for seed in range(3)]

    def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        return draw_batch(sources, np.random.default_rng(seed), size=2, patch=(16, 16, 16), foreground_probability=0.5)

    assert all(torch.equal(a, b) for a, b in zip(batch(1), batch(1), strict=True))
    assert not torch.equal(batch(1)[0], batch(2)[0])


def test_a_batch_takes_every_case_before_it_takes_one_twice() -> None:
    cases = [prepared_case(tumour_at=None) for _ in range(3)]
    for number, case in enumerate(cases):
        case.image[:] = number + 1
    sources = [PatchSource(case) for case in cases]

    images, labels = draw_batch(sources, np.random.default_rng(0), size=7, patch=(16, 24, 16), foreground_probability=0)

    assert (images.shape, images.dtype) == ((7, 3, 16, 24, 16), torch.float32)
    assert (labels.shape, labels.dtype) == ((7, 16, 24, 16), torch.uint8)
    order = [int(image.mean()) for image in images]
    assert set(order[:3]) == set(order[3:6]) == {1, 2, 3}


def test_drawing_does_not_change_the_case_even_one_that_may_not_be_written_to() -> None:
    case = prepared_case()
    assert case.label is not None
    for array in (case.image, case.label):
        array.setflags(write=False)  # as a case mapped from the cache

    images, labels = draw_batch(
        [PatchSource(case)], np.random.default_rng(0), size=1, patch=(16, 16, 16), foreground_probability=1
    )
    images += 1
    labels += 1
