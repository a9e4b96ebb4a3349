"""What augmentation may change and what not."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from brainunet.config import AugmentConfig
from brainunet.data.augment import augment_from

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
