"""The cache gives what preparing gives, once per content and settings, and survives whatever happens to it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.preprocess import PreparedCase, prepare
from brainunet.errors import BrainUNetError, MissingModality, UnknownLabel, UnreadableVolume
from brainunet.labels import DEFAULT_MODALITIES, Convention, Modality
from brainunet.records import Case
from tests.support.cases import AFRICA, assert_helps, head, only_case, tumour, write_case
from tests.support.nifti import write_nifti
from tests.support.rights import open_folder, ordinary_rights

CONFIG = PreprocessConfig()


@pytest.fixture
def case(tmp_path: Path) -> Case:
    write_case(tmp_path / "data", label=np.minimum(tumour(), 2))  # labels that both conventions know
    return only_case(tmp_path / "data")


@pytest.fixture
def cache(tmp_path: Path) -> CaseCache:
    return CaseCache(tmp_path / "cache")


def get(
    cache: CaseCache, case: Case, modalities: Sequence[Modality] = DEFAULT_MODALITIES, config: PreprocessConfig = CONFIG
) -> PreparedCase:
    return cache.get(case, modalities, config)


def entries(cache: CaseCache) -> list[Path]:
    return sorted(path.parent for path in cache.folder.rglob("facts.json"))


def times(cache: CaseCache) -> dict[Path, int]:
    """When each file of the cache was last written."""
    return {path: path.stat().st_mtime_ns for path in cache.folder.rglob("*") if path.is_file()}


def assert_same(a: PreparedCase, b: PreparedCase) -> None:
    assert np.array_equal(a.image, b.image)
    assert a.image.dtype == b.image.dtype
    assert (a.label is None) == (b.label is None)
    if a.label is not None and b.label is not None:
        assert np.array_equal(a.label, b.label)
        assert a.label.dtype == b.label.dtype
    assert np.array_equal(a.affine, b.affine)
    assert (a.box, a.shape, a.spacing_mm) == (b.box, b.shape, b.spacing_mm)


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


def change_facts(entry: Path, **facts: Any) -> None:
    path = entry / "facts.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def cut(path: Path, to: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * to)])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "an image cut off": lambda entry: cut(entry / "image.npy", 0.5),
    "an image cut off in its header": lambda entry: cut(entry / "image.npy", 0.001),
    "an empty image": lambda entry: cut(entry / "image.npy", 0),
    "no image": lambda entry: (entry / "image.npy").unlink(),
    "no label": lambda entry: (entry / "label.npy").unlink(),
    "an empty label": lambda entry: cut(entry / "label.npy", 0),
    "no facts": lambda entry: (entry / "facts.json").unlink(),
    "empty facts": lambda entry: cut(entry / "facts.json", 0),
    "facts cut off": lambda entry: cut(entry / "facts.json", 0.5),
    "facts that are a list": lambda entry: (entry / "facts.json").write_text("[1, 2]"),
    "facts that are bytes": lambda entry: (entry / "facts.json").write_bytes(b"\xff\xfe\0"),
    "facts of another box": lambda entry: change_facts(entry, box=[[0, 5], [0, 5], [0, 5]]),
    "facts of a short box": lambda entry: change_facts(entry, box=[[0, 5]]),
    "facts of a short spacing": lambda entry: change_facts(entry, spacing_mm=[1.0]),
    "an image of another number type": lambda entry: np.save(entry / "image.npy", np.zeros((3, 12, 11, 10), np.float32)),
    "a label of another shape": lambda entry: np.save(entry / "label.npy", np.zeros((2, 2, 2), np.uint8)),
    "a pickle": lambda entry: np.save(entry / "image.npy", np.array([{}]), allow_pickle=True),
}


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


KILLED = """
import os, signal, sys
from pathlib import Path
from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.labels import DEFAULT_MODALITIES

def kill_at_the_file(event, arguments):
    if event == "open" and str(arguments[0]).endswith(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill_at_the_file)
(case,) = find_cases(Path(sys.argv[1])).cases
CaseCache(Path(sys.argv[2])).get(case, DEFAULT_MODALITIES, PreprocessConfig())
"""


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
