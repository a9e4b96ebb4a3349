"""The cache gives what preparing gives, once per content and settings, and survives whatever happens to it."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.preprocess import PreparedCase, prepare
from brainunet.errors import BrainUNetError, MissingModality, UnknownLabel, UnreadableVolume
from brainunet.labels import DEFAULT_MODALITIES, Convention, Modality
from brainunet.records import Case
from tests.support.caches import CONFIG, DAMAGE, KILLED, assert_same, cache, case, entries, get, times
from tests.support.cases import AFRICA, assert_helps, head, only_case, tumour, write_case
from tests.support.nifti import write_nifti
from tests.support.rights import open_folder, ordinary_rights

__all__ = ["cache", "case"]  # fixtures


@pytest.mark.parametrize("labelled", [True, False])
def test_the_first_and_the_second_reading_give_what_preparing_gives(labelled: bool, cache: CaseCache, case: Case) -> None:
    case = case if labelled else replace(case, label=None)
    expected = prepare(case, DEFAULT_MODALITIES, CONFIG)

    for _ in range(2):
        assert_same(get(cache, case), expected)


def test_the_second_reading_writes_and_prepares_nothing(cache: CaseCache, case: Case) -> None:
    get(cache, case)
    before = times(cache)

    second = get(cache, case)

    assert times(cache) == before
    assert isinstance(second.image, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second.image[0, 0, 0, 0] = 1


def edited(case: Case) -> Case:
    write_nifti(case.images[Modality.T1C], head(99))
    return case


ANOTHER: dict[str, Callable[[CaseCache, Case], PreparedCase]] = {
    "an edited file": lambda cache, case: get(cache, edited(case)),
    "other percentiles": lambda cache, case: get(cache, case, config=PreprocessConfig(clip_percentiles=(1, 99))),
    "another margin": lambda cache, case: get(cache, case, config=PreprocessConfig(crop_margin_voxels=0)),
    "another convention": lambda cache, case: get(cache, replace(case, convention=Convention.BRATS2021)),
    "no segmentation": lambda cache, case: get(cache, replace(case, label=None)),
    "other modalities": lambda cache, case: get(cache, case, DEFAULT_MODALITIES[:2]),
    "another order of the modalities": lambda cache, case: get(cache, case, DEFAULT_MODALITIES[::-1]),
}


@pytest.mark.parametrize("what", ANOTHER)
def test_another_content_or_setting_is_another_entry(what: str, cache: CaseCache, case: Case) -> None:
    get(cache, case)

    ANOTHER[what](cache, case)

    assert len(entries(cache)) == 2


def test_a_renamed_case_with_the_same_content_is_the_same_entry(cache: CaseCache, case: Case) -> None:
    get(cache, case)

    get(cache, replace(case, case_id="BraTS-SSA-00003-000"))

    assert len(entries(cache)) == 1


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_again(damage: str, cache: CaseCache, case: Case, caplog: pytest.LogCaptureFixture) -> None:
    expected = get(cache, case)
    copy = replace(expected, image=np.array(expected.image), label=np.array(expected.label))
    (entry,) = entries(cache)
    whole = {path.name: path.read_bytes() for path in entry.iterdir()}
    DAMAGE[damage](entry)

    with caplog.at_level(logging.WARNING):
        assert_same(get(cache, case), copy)

    assert caplog.messages == [f"{AFRICA}: its cached copy is damaged and is made again"]
    assert {path.name: path.read_bytes() for path in entry.iterdir()} == whole


def test_a_process_killed_while_it_writes_leaves_no_entry_and_the_next_one_cleans_up(cache: CaseCache, case: Case) -> None:
    data = case.images[Modality.T1C].parent

    killed = subprocess.run([sys.executable, "-c", KILLED, data, cache.folder, "label.npy"], check=False)

    assert killed.returncode == -9
    left = [path for path in cache.folder.rglob("*") if path.is_dir() and len(path.name) > 2]
    assert [path.suffix for path in left] == [".part"]
    assert list(left[0].iterdir()) != []
    assert_same(get(cache, case), prepare(case, DEFAULT_MODALITIES, CONFIG))
    assert list(cache.folder.rglob("*.part")) == []


TWO = """
import sys
from pathlib import Path
from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.labels import DEFAULT_MODALITIES

(case,) = find_cases(Path(sys.argv[1])).cases
for turn in range(8):
    print("ready", flush=True)
    sys.stdin.readline()
    ready = CaseCache(Path(sys.argv[2], str(turn))).get(case, DEFAULT_MODALITIES, PreprocessConfig())
    assert ready.image.any() and ready.label.any()
"""


@pytest.mark.slow
def test_two_processes_that_prepare_the_same_case_at_once_both_succeed(cache: CaseCache, case: Case) -> None:
    command = [sys.executable, "-c", TWO, str(case.images[Modality.T1C].parent), str(cache.folder)]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for _ in range(8):
        for process in both:
            assert process.stdout is not None
            process.stdout.readline()
        for process in both:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    for process in both:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    assert len(entries(cache)) == 8
    assert list(cache.folder.rglob("*.part")) == []


# --- what may no longer be kept ---------------------------------------------------------------------------------------------


# --- what can't be kept -----------------------------------------------------------------------------------------------------


def test_a_bad_case_leaves_nothing_behind(cache: CaseCache, case: Case) -> None:
    assert case.label is not None
    write_nifti(case.label, tumour(enhancing=4))

    with pytest.raises(UnknownLabel):
        get(cache, case)

    assert not cache.folder.exists()


def test_a_file_that_went_away_is_named(cache: CaseCache, case: Case) -> None:
    case.images[Modality.T2W].unlink()

    with pytest.raises(UnreadableVolume) as raised:
        get(cache, case)

    assert_helps(raised.value, where=f"{AFRICA}-t2w.nii.gz", found="No such file", exit_code=3)


def test_a_modality_that_the_case_lacks_is_named(cache: CaseCache, case: Case) -> None:
    with pytest.raises(MissingModality) as raised:
        get(cache, replace(case, images={Modality.T1C: case.images[Modality.T1C]}))

    assert_helps(raised.value, where=AFRICA, found="no file for t2w, t2f (has t1c)", exit_code=3)


def test_a_folder_that_is_a_file_or_closed_is_named(case: Case, tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(BrainUNetError, match=r"^cache: the cache can't be written: (Not a directory|File exists)\. Free space"):
        get(CaseCache(tmp_path / "cache"), case)

    with open_folder() as folder:
        write_case(folder)
        (folder / "cache").mkdir()
        (folder / "cache").chmod(0)
        with ordinary_rights(), pytest.raises(BrainUNetError, match=r"^cache: the cache can't be written: Permission denied\."):
            get(CaseCache(folder / "cache"), only_case(folder / AFRICA))
        (folder / "cache").chmod(0o755)
