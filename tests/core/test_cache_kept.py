"""Which copies of cases may stay in the cache, when others are asked for or cases go."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.labels import DEFAULT_MODALITIES, Modality
from brainunet.records import Case
from tests.support.caches import CONFIG, DAMAGE, KILLED, assert_same, cache, case, change_facts, entries, get, times
from tests.support.cases import head, only_case, write_case
from tests.support.rights import open_folder, ordinary_rights

__all__ = ["cache", "case"]  # fixtures


@pytest.fixture
def other(tmp_path: Path) -> Case:
    write_case(tmp_path / "others", "BraTS-SSA-00003-000", images={m: head(50 + i) for i, m in enumerate(Modality)})
    return only_case(tmp_path / "others")


def keep_only(
    cache: CaseCache, case_ids: set[str], modalities: Sequence[Modality] = DEFAULT_MODALITIES, config: PreprocessConfig = CONFIG
) -> int:
    return cache.keep_only(case_ids, modalities, config)


OTHER_SETTINGS: dict[str, tuple[Sequence[Modality], PreprocessConfig]] = {
    "other percentiles": (DEFAULT_MODALITIES, PreprocessConfig(clip_percentiles=(1, 99))),
    "another margin": (DEFAULT_MODALITIES, PreprocessConfig(crop_margin_voxels=0)),
    "other modalities": (DEFAULT_MODALITIES[:2], CONFIG),
    "another order of the modalities": (DEFAULT_MODALITIES[::-1], CONFIG),
}


@pytest.mark.parametrize("what", OTHER_SETTINGS)
def test_a_copy_that_was_prepared_by_other_settings_goes(what: str, cache: CaseCache, case: Case) -> None:
    modalities, config = OTHER_SETTINGS[what]
    get(cache, case)
    before = times(cache)
    get(cache, case, modalities, config)

    assert keep_only(cache, {case.case_id}) == 1
    assert times(cache) == before
    assert keep_only(cache, {case.case_id}, modalities, config) == 1
    assert list(cache.folder.rglob("*.npy")) == []


@pytest.mark.parametrize("settings", [None, 3, "", []])
def test_a_copy_that_does_not_say_how_it_was_prepared_goes(settings: object, cache: CaseCache, case: Case) -> None:
    get(cache, case)
    change_facts(entries(cache)[0], settings=settings)

    assert keep_only(cache, {case.case_id}) == 1


def test_every_copy_of_a_case_that_is_no_longer_among_them_goes_and_the_others_stay(
    cache: CaseCache, case: Case, other: Case
) -> None:
    get(cache, case)
    before = times(cache)
    for labelled in (other, replace(other, label=None)):
        get(cache, labelled)

    assert keep_only(cache, {case.case_id, "BraTS-SSA-00004-000"}) == 2
    assert times(cache) == before
    assert keep_only(cache, {case.case_id}) == 0
    assert keep_only(cache, set()) == 1
    assert list(cache.folder.rglob("*.npy")) == []


def test_a_cache_that_is_not_there_yet_has_nothing_to_remove(cache: CaseCache) -> None:
    assert keep_only(cache, set()) == 0


@pytest.mark.parametrize("damage", [name for name in DAMAGE if "facts" in name and "facts of" not in name])
def test_a_copy_that_does_not_say_whose_it_is_goes(damage: str, cache: CaseCache, case: Case) -> None:
    get(cache, case)
    DAMAGE[damage](entries(cache)[0])

    assert keep_only(cache, {case.case_id}) == 1
    assert list(cache.folder.rglob("*.npy")) == []


def test_a_copy_that_was_never_finished_goes_with_the_others_of_its_case(cache: CaseCache, case: Case) -> None:
    data = case.images[Modality.T1C].parent
    subprocess.run([sys.executable, "-c", KILLED, data, cache.folder, "label.npy"], check=False)
    assert len(list(cache.folder.rglob("image.npy"))) == 1

    assert keep_only(cache, {case.case_id}) == 0
    assert keep_only(cache, {"BraTS-SSA-00004-000"}) == 1
    assert list(cache.folder.rglob("*.npy")) == []


def test_of_two_cases_with_the_same_images_one_may_go(cache: CaseCache, case: Case) -> None:
    twin = replace(case, case_id="BraTS-SSA-00003-000")
    expected = get(cache, case)
    get(cache, twin)

    keep_only(cache, {twin.case_id})

    assert list(cache.folder.rglob("*.npy")) == []
    assert_same(get(cache, twin), expected)
    assert keep_only(cache, {twin.case_id}) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of another user needs root")
def test_a_copy_that_can_not_be_removed_is_named_in_the_log(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    with open_folder() as folder:
        cache = CaseCache(folder / "cache")
        get(cache, case)
        with ordinary_rights():
            assert keep_only(cache, set()) == 0

    assert "a copy that is not used, and can't be removed: Permission denied" in caplog.text
