"""A head is told from a brain: with a background of noise, by its size, by its bone; and a brain is not taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.config import PreprocessConfig
from brainunet.data.checks import examine, read_facts
from brainunet.data.checks.heads import deepest_gap, shells_of
from brainunet.data.preprocess import prepare
from brainunet.data.skull import sign_of_a_head
from brainunet.errors import DataError
from brainunet.labels import Modality
from tests.support.cases import assert_helps
from tests.support.studies import LPS, Study, add_skull, sound, write_study

ALL = tuple(Modality)


def said_of(study: Study, folder: Path) -> list[str]:
    """What the check of skulls says."""
    findings = examine(read_facts(write_study(study, folder), ALL)).findings
    return [finding.said for finding in findings if finding.check == "skull"]


@pytest.mark.parametrize("noise", [0.5, 4, 20])
def test_a_head_before_noise_is_refused(tmp_path: Path, noise: float) -> None:
    study = sound()
    add_skull(study, noise=noise)

    (said,) = said_of(study, tmp_path)

    assert "not skull-stripped: the background is not 0 (6 of the volume's 6 faces are full of intensities)" in said
    assert all(modality in said for modality in ALL)


def test_a_background_of_minus_one_is_refused(tmp_path: Path) -> None:
    study = sound()
    outside = ~study.brain
    study.images[Modality.T2W][outside] = -1

    (said,) = said_of(study, tmp_path)

    assert said.startswith("BraTS-SSA-00002-000-t2w.nii.gz: not skull-stripped: the background is not 0")


def test_a_head_before_nothing_is_refused_by_its_size(tmp_path: Path) -> None:
    study = sound()
    brain_ml = np.count_nonzero(study.brain) / 1000
    add_skull(study)
    head_ml = np.count_nonzero(study.brain) / 1000
    per_voxel = 1400 / brain_ml  # as large as a man's
    study.affine = LPS @ np.diag([per_voxel ** (1 / 3)] * 3 + [1])

    (said,) = said_of(study, tmp_path)

    assert f"{head_ml * per_voxel:.0f} ml are not 0" in said


def test_a_small_head_before_nothing_is_refused_by_its_bone(tmp_path: Path) -> None:
    study = sound(96)
    add_skull(study)

    (said,) = said_of(study, tmp_path)

    assert "a bright rim around a dark shell" in said


@pytest.mark.parametrize("side", [32, 48, 64, 96])
def test_a_stripped_brain_of_any_size_is_none(tmp_path: Path, side: int) -> None:
    assert said_of(sound(side), tmp_path) == []


def test_a_slab_of_a_few_slices_through_a_brain_is_no_head(tmp_path: Path) -> None:
    study = sound()
    x, y, _ = np.nonzero(study.brain)
    crop = (slice(x.min(), x.max() + 1), slice(y.min(), y.max() + 1), slice(30, 36))
    study.images = {modality: image[crop].copy() for modality, image in study.images.items()}
    assert study.label is not None
    study.label = study.label[crop].copy()

    assert said_of(study, tmp_path) == []


def test_training_refuses_a_head_too(tmp_path: Path) -> None:
    study = sound()
    study.images[Modality.T2W][~study.brain] = 7
    case = write_study(study, tmp_path)

    with pytest.raises(DataError) as refused:
        prepare(case, ALL, PreprocessConfig())

    assert_helps(refused.value, where="BraTS-SSA-00002-000-t2w.nii.gz", found="not skull-stripped", exit_code=3)
    assert "HD-BET" in refused.value.remedy


def test_an_empty_mask_and_a_full_one() -> None:
    assert sign_of_a_head(np.zeros((8, 8, 8), bool), (1, 1, 1)) is None
    assert sign_of_a_head(np.ones((8, 8, 8), bool), (1, 1, 1)) is not None
    assert shells_of(np.zeros((8, 8, 8), bool)) is None
    assert shells_of(np.ones((8, 8, 8), bool)) is None
    assert deepest_gap(np.empty(0)) == 1.0


@given(st.lists(st.floats(0, 1000), max_size=14), st.floats(0.01, 100))
def test_a_gap_is_between_0_and_1_and_does_not_depend_on_the_scale(medians: list[float], scale: float) -> None:
    gap = deepest_gap(np.array(medians))

    assert 0 <= gap <= 1
    assert deepest_gap(scale * np.array(medians)) == pytest.approx(gap, abs=1e-6)


@given(st.lists(st.floats(0, 1000), min_size=3, max_size=14))
def test_medians_that_only_rise_or_only_fall_have_no_gap(medians: list[float]) -> None:
    assert deepest_gap(np.array(sorted(medians))) == 1.0
    assert deepest_gap(np.array(sorted(medians, reverse=True))) == 1.0
