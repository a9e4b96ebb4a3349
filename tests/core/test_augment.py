"""What augmentation may change and what not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brainunet.config import AugmentConfig
from brainunet.data.augment import AUGMENTATIONS, alone, augment_from, probability_of
from brainunet.data.augment_scanner import slice_matrix
from brainunet.pictures.augment_tiles import strongest
from tests.support.heads import head_of

NOTHING = AugmentConfig(flip_probability=0, affine_probability=0, gamma_probability=0)
STRONG = AugmentConfig(flip_probability=0.5, affine_probability=1, scale_range=(0.6, 1.5), gamma_probability=1)


def batch_of(size: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images with values on both sides of 0, and labels 0 to 3."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (size, 12, 16, 20), generator=generator, dtype=torch.uint8)
    return torch.randn(size, 3, 12, 16, 20, generator=generator), labels


def same(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_with_every_probability_zero_a_batch_comes_back_as_it_was() -> None:
    images, labels = batch_of()

    assert same(augment_from(NOTHING)(images, labels, 1), (images, labels))


def test_the_same_seed_changes_a_batch_the_same_way_whatever_ran_before() -> None:
    augment, batch = augment_from(STRONG), batch_of()
    first = augment(*batch, 7)
    torch.rand(5)

    assert same(augment_from(STRONG)(*batch, 7), first)
    assert not same(augment(*batch, 8), first)


def test_torch_s_generator_stays_where_it_was_and_so_does_the_batch() -> None:
    images, labels = batch_of()
    before, state = (images.clone(), labels.clone()), torch.get_rng_state()

    augment_from(STRONG)(images, labels, 3)

    assert torch.equal(torch.get_rng_state(), state)
    assert same((images, labels), before)


def test_the_patches_of_a_batch_are_changed_each_in_its_own_way() -> None:
    one = batch_of(1)
    images, labels = one[0].repeat(4, 1, 1, 1, 1), one[1].repeat(4, 1, 1, 1)

    changed, _ = augment_from(STRONG)(images, labels, 0)

    assert not any(torch.equal(changed[i], changed[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize("seed", range(8))
def test_types_and_shapes_are_kept_labels_stay_labels_and_numbers_stay_finite(seed: int) -> None:
    images, labels = batch_of(seed=seed)

    changed, changed_labels = augment_from(STRONG)(images, labels, seed)

    assert (changed.shape, changed.dtype) == (images.shape, torch.float32)
    assert (changed_labels.shape, changed_labels.dtype) == (labels.shape, torch.uint8)
    assert set(changed_labels.flatten().tolist()) <= {0, 1, 2, 3}
    assert torch.isfinite(changed).all()


def test_an_empty_patch_stays_empty() -> None:
    images, labels = torch.zeros(2, 3, 16, 16, 16), torch.zeros(2, 16, 16, 16, dtype=torch.uint8)

    assert same(augment_from(STRONG)(images, labels, 0), (images, labels))


@pytest.mark.parametrize("seed", range(6))
def test_the_label_follows_the_image_through_flips_and_scaling(seed: int) -> None:
    labels = torch.zeros(1, 24, 24, 24, dtype=torch.uint8)
    labels[0, 3:11, 6:18, 13:21] = 3  # off the middle on two axes
    images = labels[:, None].float().repeat(1, 3, 1, 1, 1)

    config = AugmentConfig(flip_probability=0.5, affine_probability=1, scale_range=(0.8, 1.2), gamma_probability=0)
    changed, changed_labels = augment_from(config)(images, labels, seed)

    bright, marked = changed[0, 0] > 1.5, changed_labels[0] == 3
    overlap = 2 * (bright & marked).sum() / (bright.sum() + marked.sum())
    assert overlap > 0.93
    assert marked.any()


def test_every_one_of_the_eight_flips_occurs_and_nothing_else() -> None:
    images, labels = batch_of(1)
    axes = [
        tuple(axis for axis, flipped in zip((-3, -2, -1), choice, strict=True) if flipped)
        for choice in product((0, 1), repeat=3)
    ]
    flips = [(images.flip(a), labels.flip(a)) if a else (images, labels) for a in axes]
    augment = augment_from(NOTHING.model_copy(update={"flip_probability": 0.5}))

    seen = set()
    for seed in range(60):
        changed = augment(images, labels, seed)
        seen.add(next(i for i, flip in enumerate(flips) if same(changed, flip)))

    assert seen == set(range(8))


def test_gamma_changes_contrast_and_keeps_sign_order_and_the_empty_background() -> None:
    images, labels = batch_of()
    images[:, :, :4] = 0
    augment = augment_from(NOTHING.model_copy(update={"gamma_probability": 1.0}))

    changed, changed_labels = augment(images, labels, 0)

    assert torch.equal(changed_labels, labels)
    assert not torch.equal(changed, images)
    assert torch.equal(changed.sign(), images.sign())
    assert torch.equal(changed[0, 0].flatten().argsort(stable=True), images[0, 0].flatten().argsort(stable=True))


# --- every line of the table ------------------------------------------------------------------------------------------------

AT_ITS_END = strongest(AugmentConfig(preset="ssa"))
SPATIAL = ("flip", "affine")


@pytest.mark.parametrize("name", AUGMENTATIONS)
class TestEveryAugmentation:
    def test_keeps_shape_type_and_finite_numbers_and_invents_no_label(self, name: str) -> None:
        images, labels = head_of(2)
        for seed in range(4):
            changed, marks = augment_from(alone(name, AT_ITS_END))(images, labels, seed)

            assert (changed.shape, changed.dtype) == (images.shape, torch.float32)
            assert (marks.shape, marks.dtype) == (labels.shape, torch.uint8)
            assert torch.isfinite(changed).all()
            assert set(marks.flatten().tolist()) <= {0, 1, 2, 3}

    def test_changes_something_when_it_is_on_and_nothing_when_it_is_off(self, name: str) -> None:
        batch = head_of()
        off = AT_ITS_END.model_copy(update={probability_of(other): 0.0 for other in AUGMENTATIONS})

        assert same(augment_from(off)(*batch, 3), batch)
        assert not torch.equal(augment_from(alone(name, AT_ITS_END))(*batch, 3)[0], batch[0])

    def test_happens_about_as_often_as_it_is_set_to(self, name: str) -> None:
        batch = head_of()
        augment = augment_from(alone(name, AT_ITS_END).model_copy(update={probability_of(name): 0.5}))

        changed = sum(not torch.equal(augment(*batch, seed)[0], batch[0]) for seed in range(24))

        assert 5 <= changed <= 24 if name == "flip" else 5 <= changed <= 19  # a flip has three axes to happen on

    def test_leaves_labels_alone_to_the_bit_and_air_at_0_unless_it_moves_the_head(self, name: str) -> None:
        if name in SPATIAL:
            pytest.skip("moves the head")
        images, labels = head_of()
        for seed in range(4):
            changed, marks = augment_from(alone(name, AT_ITS_END))(images, labels, seed)

            assert torch.equal(marks, labels)
            assert not changed[:, :, (images == 0).all(1)[0]].any()

    def test_is_the_same_for_the_same_seed_whatever_ran_before_and_on_however_many_threads(self, name: str) -> None:
        config = alone(name, AugmentConfig(preset="ssa"))
        batch, augment = head_of(2), augment_from(config)
        first, threads = augment(*batch, 7), torch.get_num_threads()
        torch.rand(5)
        try:
            torch.set_num_threads(3)
            again = augment_from(config)(*batch, 7)
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(threads)

        assert same(first, again)
        assert not same(first, augment(*batch, 8)) or name == "flip"  # each axis always

    def test_leaves_the_batch_and_torch_s_generator_as_they_were(self, name: str) -> None:
        images, labels = head_of()
        before, state = (images.clone(), labels.clone()), torch.get_rng_state()

        augment_from(alone(name, AT_ITS_END))(images, labels, 3)

        assert same((images, labels), before)
        assert torch.equal(torch.get_rng_state(), state)

    def test_an_empty_patch_stays_empty_and_one_voxel_or_a_constant_brain_stays_finite(self, name: str) -> None:
        images, labels = head_of()
        augment = augment_from(alone(name, AT_ITS_END))
        one_voxel, constant = torch.zeros_like(images), (images != 0).any(1, keepdim=True).expand_as(images).float()
        one_voxel[..., 12, 10, 14] = 2.5

        assert not augment(torch.zeros_like(images), labels, 0)[0].any()
        assert torch.isfinite(augment(one_voxel, labels, 0)[0]).all()
        assert torch.isfinite(augment(constant, labels, 0)[0]).all()

    def test_takes_one_modality_and_odd_sides(self, name: str) -> None:
        images, labels = head_of()

        changed, _ = augment_from(alone(name, AT_ITS_END))(images[:, :1, :23, :19, :21], labels[:, :23, :19, :21], 1)

        assert changed.shape == (1, 1, 23, 19, 21)
        assert changed.any()

    def test_a_patch_of_no_numbers_does_not_stop_it(self, name: str) -> None:
        """The training says what is wrong (the loss is no number), and not the library that happens to meet it first."""
        images, labels = head_of()
        images[0, 0, 12, 10, 14] = torch.nan

        augment_from(alone(name, AT_ITS_END))(images, labels, 1)


@pytest.mark.parametrize("name", ["motion", "ghosting", "bias", "blur", "noise", "anisotropy"])
def test_what_the_scanner_does_leaves_mean_and_spread_of_the_brain_as_normalisation_makes_them(name: str) -> None:
    images, labels = head_of()
    brain = (images != 0).any(1)[0]

    changed, _ = augment_from(alone(name, AT_ITS_END))(images, labels, 5)

    inside = changed[0][:, brain]
    assert inside.mean(dim=1).tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    assert inside.std(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-3)


@pytest.mark.parametrize("name", ["motion", "ghosting", "blur", "noise"])
def test_each_modality_is_a_scan_of_its_own(name: str) -> None:
    images, labels = head_of()
    alike = images[:, :1].expand_as(images)

    changed, _ = augment_from(alone(name, AugmentConfig(preset="ssa")))(alike, labels, 2)

    assert not torch.equal(changed[0, 0], changed[0, 1])


@pytest.mark.parametrize("most", [1, 2, 3])
def test_dropout_takes_up_to_so_many_modalities_and_never_the_last(most: int) -> None:
    images, labels = head_of()
    augment = augment_from(alone("dropout", AugmentConfig(dropout_most=most)))

    left = {int(augment(images, labels, seed)[0][0].flatten(1).any(1).sum()) for seed in range(40)}

    assert left == set(range(max(1, 3 - most), 3))
    assert same(augment(images[:, :1], labels, 0), (images[:, :1], labels))


# --- thick slices -----------------------------------------------------------------------------------------------------------


def slow_slices(row: Sequence[float], thickness: float, phase: float, grain: int = 200) -> npt.NDArray[np.float64]:
    """An independent account: cut each voxel into grains, average the grains of each slice, and read between the middles."""
    places = (np.arange(len(row) * grain) + 0.5) / grain
    grains = np.repeat(np.asarray(row, float), grain)
    belongs = np.floor(places / thickness + phase).astype(int)
    numbers = np.unique(belongs)
    means = [grains[belongs == number].mean() for number in numbers]
    middles = (numbers - phase + 0.5) * thickness
    return np.asarray(np.interp(np.arange(len(row)) + 0.5, middles, means))


@given(
    row=st.lists(st.floats(-3, 3), min_size=1, max_size=24),
    thickness=st.floats(1, 12),
    phase=st.floats(0, 0.99),
)
@settings(max_examples=60)
def test_slices_are_what_averaging_grain_by_grain_gives(row: list[float], thickness: float, phase: float) -> None:
    made = slice_matrix(len(row), thickness, phase) @ np.array(row, np.float32)

    assert made == pytest.approx(slow_slices(row, thickness, phase), abs=0.1)


def test_slices_of_one_voxel_change_nothing_and_a_constant_row_stays_so() -> None:
    assert np.array_equal(slice_matrix(9, 1.0, 0.0), np.eye(9))
    assert slice_matrix(23, 5.3, 0.4) @ np.ones(23) == pytest.approx(np.ones(23))


def test_slices_are_thick_from_foot_to_head_only() -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(12)
    labels = torch.zeros(1, 24, 24, 24, dtype=torch.uint8)
    augment = augment_from(alone("anisotropy", AugmentConfig(through_plane_range=(4, 4), in_plane_range=(1, 1))))

    def after(axis: int) -> Tensor:
        shape = [24 if i == axis else 1 for i in range(3)]
        ramp = torch.linspace(1, 2, 24) if axis == 2 else torch.zeros(24)  # or nothing would be left to normalise
        images = (stripes + ramp).reshape(1, 1, *shape).expand(1, 1, 24, 24, 24)
        return (augment(images, labels, 0)[0] - images).abs().max()

    assert after(0) < 1e-5
    assert after(1) < 1e-5
    assert after(2) > 0.9
