"""Which settings of augmentation there are, what presets make of them, and that the rules hold for all of them."""

from __future__ import annotations

import pytest
import torch
import torchio as tio
from hypothesis import given, settings
from hypothesis import strategies as st

from brainunet.config import AugmentConfig
from brainunet.data.augment import AUGMENTATIONS, augment_from, probability_of
from brainunet.errors import ConfigError
from brainunet.pictures.augment_tiles import STRENGTHS
from brainunet.presets import AUGMENT_PRESETS
from brainunet.settings import load
from tests.support.heads import head_of


@pytest.mark.parametrize("preset", AUGMENT_PRESETS)
def test_every_preset_resolves_and_changes_patches_unless_it_is_none(preset: str) -> None:
    batch, augment = head_of(), augment_from(AugmentConfig(preset=preset))

    changed = any(not torch.equal(augment(*batch, seed)[0], batch[0]) for seed in range(4))

    assert changed == (preset != "none")


def test_light_gives_what_three_plain_transforms_in_a_row_give_to_the_bit() -> None:
    """So that runs made before there were others can be compared with those made since."""
    images, labels = head_of()
    plain = tio.Compose(
        [
            tio.RandomFlip(axes=(0, 1, 2), flip_probability=0.5),
            tio.RandomAffine(scales=(0.85, 1.15), degrees=0, isotropic=True, default_pad_value=0, p=0.3),
            tio.RandomGamma(log_gamma=(-0.3, 0.3), p=0.3),
        ]
    )
    for seed in range(12):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            subject = tio.Subject(image=tio.ScalarImage(tensor=images[0]), label=tio.LabelMap(tensor=labels))
            expected = plain(subject)

        changed, marks = augment_from(AugmentConfig(preset="light"))(images, labels, seed)

        assert torch.equal(changed[0], expected.image.data)
        assert torch.equal(marks[0], expected.label.data[0].to(torch.uint8))


def test_the_default_is_light_and_ssa_uses_all_that_a_scanner_does() -> None:
    assert AugmentConfig() == AugmentConfig(preset="light")
    ssa = AugmentConfig(preset="ssa")
    assert [name for name in AUGMENTATIONS if getattr(ssa, probability_of(name)) == 0] == ["dropout"]


def test_every_augmentation_has_a_probability_and_every_setting_an_augmentation_that_a_sheet_names() -> None:
    words = " ".join(STRENGTHS.values())
    settings_named = {name for name in AugmentConfig.model_fields if f"{{{name}" in words}
    probabilities = {probability_of(name) for name in AUGMENTATIONS}

    assert STRENGTHS.keys() == AUGMENTATIONS.keys()
    assert probabilities | settings_named | {"preset"} == AugmentConfig.model_fields.keys()


RANGES = {name: field for name, field in AugmentConfig.model_fields.items() if name.endswith("_range") or "_range_" in name}


@given(data=st.data(), name=st.sampled_from(sorted(RANGES)))
def test_a_range_either_is_taken_as_it_is_or_refused_by_name(data: st.DataObject, name: str) -> None:
    low, high = data.draw(st.tuples(st.floats(width=32), st.floats(width=32)))
    try:
        config = load(AugmentConfig, base={name: [low, high]})
    except ConfigError as error:
        refusal = str(error)
    else:
        assert low <= high
        assert getattr(config, name) == (low, high)
        return
    assert refusal.startswith(f"settings: {name}")
    assert "(found " in refusal


@given(seed=st.integers(0, 2**62), data=st.data())
@settings(max_examples=25)
def test_whatever_is_configured_the_rules_hold(seed: int, data: st.DataObject) -> None:
    probabilities = {probability_of(name): data.draw(st.floats(0, 1), label=name) for name in AUGMENTATIONS}
    config = AugmentConfig(
        **probabilities,
        rotation_degrees=data.draw(st.floats(0, 180)),
        ghosting_range=data.draw(st.sampled_from([(0, 0), (0, 3), (3, 3)])),
        through_plane_range=data.draw(st.sampled_from([(1, 1), (1, 12), (12, 12)])),
        noise_range=data.draw(st.sampled_from([(0, 0), (3, 3)])),
        blur_range_mm=data.draw(st.sampled_from([(0, 0), (5, 5)])),
        bias_coefficient=data.draw(st.sampled_from([0.0, 2.0])),
        log_gamma_range=data.draw(st.sampled_from([(-3, -3), (3, 3)])),
        motion_count=data.draw(st.integers(1, 3)),
    )
    images, labels = head_of(seed=seed % 5)

    changed, marks = augment_from(config)(images, labels, seed)

    assert torch.isfinite(changed).all()
    assert changed.shape == images.shape
    assert set(marks.flatten().tolist()) <= {0, 1, 2, 3}
    assert changed[0].flatten(1).any(1).any()
