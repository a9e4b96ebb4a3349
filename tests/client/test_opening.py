"""The site of a task: which cases, on which side, under which name."""

from __future__ import annotations

import json
import logging
import shutil
import stat
from pathlib import Path

import pytest

from brainunet import chain
from brainunet.certificates import make_request, new_site_key
from brainunet.config import PreprocessConfig
from brainunet.data.cache import settings_digest
from brainunet.data.phantom import write_phantoms
from brainunet.data.splits import hold_out
from brainunet.errors import BrainUNetError, ConfigError, DataError, PrivacyError
from brainunet.labels import Convention, Modality
from brainunet.records import EvaluateTask
from brainunet_client.home import Home, open_home
from brainunet_client.ledger import CONSENT_CHANGED
from brainunet_client.opening import UNNAMED, open_site
from tests.support.cases import touch_case
from tests.support.coordinator import DAY, coordinator
from tests.support.messages import WEIGHTS
from tests.support.rights import open_folder, ordinary_rights
from tests.support.sites import evaluate_task

TASK: EvaluateTask = evaluate_task(WEIGHTS)
KINDS = ("t1c", "t2w", "t2f", "seg")
IDS = [f"BraTS-SSA-{number:05}-000" for number in range(1, 11)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for case_id in IDS:
        touch_case(tmp_path / "data", case_id, KINDS)
    return tmp_path / "data"


def prepared(home: Home, data: Path) -> dict[str, str]:
    """Prepared copies of all cases, as the cache finds them: entry by entry, whose it is."""
    settings = settings_digest(TASK.model.modalities, TASK.preprocess)
    for number, case_id in enumerate(IDS):
        entry = home.cache / f"{number:02}" / f"{number:064}"
        entry.mkdir(parents=True)
        (entry / "facts.json").write_text(json.dumps({"case": case_id, "settings": settings}))
        (entry / "image.npy").touch()
    return left(home)


def left(home: Home) -> dict[str, str]:
    return {entry.parent.name: json.loads(entry.read_text())["case"] for entry in home.cache.rglob("facts.json")}


def sides(home: Home) -> dict[str, str]:
    kept: dict[str, str] = json.loads(home.sides.read_text())
    return kept


def test_the_cases_are_split_once_and_keep_their_side(home: Home, data: Path) -> None:
    site = open_site(home.path, data, TASK)

    assert {case.case_id for case in (*site.train, *site.validation)} == set(IDS)
    assert len(site.validation) == 2
    assert sides(home) == hold_out(IDS)
    assert (site.cache.folder, site.work) == (home.cache, home.work)

    before = home.sides.stat()
    assert open_site(home.path, data, TASK) == site
    assert home.sides.stat().st_mtime_ns == before.st_mtime_ns


def test_new_cases_leave_the_old_ones_where_they_were(home: Home, data: Path) -> None:
    open_site(home.path, data, TASK)
    before = sides(home)
    for number in range(100, 140):
        touch_case(data, f"BraTS-SSA-{number:05}-000", KINDS)

    site = open_site(home.path, data, TASK)

    assert len(site.validation) == 10
    assert {case: sides(home)[case] for case in IDS} == before


def test_a_case_that_was_away_comes_back_to_its_side(home: Home, data: Path) -> None:
    open_site(home.path, data, TASK)
    before = sides(home)
    held_out = [case for case, side in before.items() if side == "validation"]
    home.consent.write_text("\n".join(held_out))

    site = open_site(home.path, data, TASK)
    assert not {case.case_id for case in (*site.train, *site.validation)} & set(held_out)
    home.consent.unlink()

    assert {case.case_id for case in open_site(home.path, data, TASK).validation} >= set(held_out)
    assert {case: sides(home)[case] for case in held_out} == dict.fromkeys(held_out, "validation")


def test_a_register_that_cannot_be_read_opens_nothing(home: Home, data: Path) -> None:
    home.consent.write_bytes(b"\x00\xff")

    with pytest.raises(PrivacyError):
        open_site(home.path, data, TASK)
    assert not home.sides.exists()


def test_a_folder_in_which_nothing_is_usable_says_why(home: Home, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    for case_id in IDS[:8]:
        (data / f"{case_id}-t2f.nii.gz").unlink()
    home.consent.write_text("\n".join(IDS[8:]))

    with caplog.at_level(logging.WARNING), pytest.raises(DataError, match=r"no usable case \(8 with problems, 2 excluded by"):
        open_site(home.path, data, TASK)
    assert all(case_id in caplog.text for case_id in IDS[:8])

    shutil.rmtree(data)
    with pytest.raises(DataError):
        open_site(home.path, data, TASK)
    assert not home.sides.exists()


def test_a_case_needs_the_modalities_of_the_task_alone(home: Home, data: Path) -> None:
    (data / f"{IDS[0]}-t2f.nii.gz").unlink()
    fewer = TASK.model.model_copy(update={"modalities": (Modality.T1C,)})

    assert len(open_site(home.path, data, TASK).train) == 8
    site = open_site(home.path, data, TASK.model_copy(update={"model": fewer}))
    assert len((*site.train, *site.validation)) == 10


def test_cases_of_a_house_s_own_names_are_read_by_the_convention_that_is_given(home: Home, tmp_path: Path) -> None:
    for number in range(4):
        touch_case(tmp_path / "own", f"patient{number}", KINDS)

    site = open_site(home.path, tmp_path / "own", TASK, convention=Convention.BRATS2021)

    assert {case.convention for case in site.train} == {Convention.BRATS2021}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": "test"}', '{"a": 1}', "null"])
def test_sides_that_are_damaged_are_never_drawn_anew(content: str, home: Home, data: Path) -> None:
    home.sides.write_text(content)

    with pytest.raises(DataError, match=r"sides\.json: something else .* Put back a copy"):
        open_site(home.path, data, TASK)
    assert home.sides.read_text() == content


def test_sides_are_for_no_other_eyes(home: Home, data: Path) -> None:
    open_site(home.path, data, TASK)

    assert stat.S_IMODE(home.sides.stat().st_mode) == 0o600


def test_the_site_has_the_name_of_its_kit(home: Home, data: Path) -> None:
    assert open_site(home.path, data, TASK).name == UNNAMED

    home.kit.write_bytes(coordinator().kit(make_request(new_site_key(), "lagos")))
    assert open_site(home.path, data, TASK).name == "lagos"

    home.kit.write_bytes(coordinator().kit(make_request(new_site_key(), "lagos"), valid=-DAY))
    with pytest.raises(ConfigError, match="has expired"):
        open_site(home.path, data, TASK)


def test_a_home_that_cannot_be_written_opens_nothing(data: Path) -> None:
    with open_folder() as folder, ordinary_rights(), pytest.raises(BrainUNetError):
        open_site(folder / "home", data, TASK)


def test_a_change_of_the_register_is_written_down_once_by_the_tasks_that_count(home: Home, data: Path) -> None:
    open_site(home.path, data, TASK, in_earnest=True)
    assert not home.ledger.exists()
    home.consent.write_text(f"{IDS[0]}\n{IDS[1]}\nnobody\n")

    open_site(home.path, data, TASK)
    assert not home.ledger.exists()
    for _ in range(2):
        open_site(home.path, data, TASK, in_earnest=True)

    (entry,) = chain.entries(home.ledger)
    assert entry.kind == CONSENT_CHANGED
    assert (entry.data["listed"], entry.data["excluded"]) == (3, 2)


def test_the_prepared_copies_of_an_excluded_patient_leave_at_the_next_task(home: Home, data: Path) -> None:
    before = prepared(home, data)
    home.consent.write_text("BraTS-SSA-00002\n")

    open_site(home.path, data, TASK)
    assert left(home) == before
    open_site(home.path, data, TASK, in_earnest=True)

    assert set(left(home).values()) == set(IDS) - {"BraTS-SSA-00002-000"}
    assert len(list(home.cache.rglob("image.npy"))) == len(IDS) - 1


def test_the_prepared_copies_for_another_task_leave_at_the_first_that_needs_others(home: Home, data: Path) -> None:
    before = prepared(home, data)
    other = TASK.model_copy(update={"preprocess": PreprocessConfig(crop_margin_voxels=0)})

    open_site(home.path, data, other)
    open_site(home.path, data, TASK, in_earnest=True)
    assert left(home) == before
    open_site(home.path, data, other, in_earnest=True)

    assert left(home) == {}


def test_they_leave_as_well_when_the_files_of_the_patient_have_gone_too(home: Home, data: Path) -> None:
    prepared(home, data)
    home.consent.write_text("BraTS-SSA-00002\n")
    for file in data.glob("BraTS-SSA-00002-*"):
        file.unlink()

    open_site(home.path, data, TASK, in_earnest=True)

    assert set(left(home).values()) == set(IDS) - {"BraTS-SSA-00002-000"}


def test_they_leave_as_well_when_no_case_remains(home: Home, data: Path) -> None:
    prepared(home, data)
    home.consent.write_text("\n".join(IDS))

    with pytest.raises(DataError, match="10 excluded"):
        open_site(home.path, data, TASK, in_earnest=True)

    assert left(home) == {}
    assert [entry.data["excluded"] for entry in chain.entries(home.ledger)] == [10]


def test_a_disk_that_is_away_for_an_hour_costs_no_copy(home: Home, data: Path) -> None:
    before = prepared(home, data)
    data.rename(data.with_name("away"))
    data.mkdir()

    for case_id in ("", IDS[0]):  # nothing at all, and a case with a part of its files alone
        if case_id:
            touch_case(data, case_id, ("t1c",))
        with pytest.raises(DataError):
            open_site(home.path, data, TASK, in_earnest=True)

    assert left(home) == before


def made_up_beside_real(data: Path) -> None:
    """One made-up case among those of patients."""
    write_phantoms(data, cases=1, style="gli", seed=0, shape=(32, 36, 32), centres=("LILY",))


def test_one_made_up_case_among_those_of_patients_is_enough_to_be_refused(home: Home, data: Path) -> None:
    made_up_beside_real(data)

    with pytest.raises(DataError, match="1 of 11 cases are made up, as their files say") as refused:
        open_site(home.path, data, TASK.model_copy(update={"demo": False}))

    assert "keep made-up cases in a folder of their own" in str(refused.value).lower()
    assert not home.sides.exists()  # and they get no side


def test_in_a_demonstration_made_up_cases_take_part(home: Home, data: Path) -> None:
    made_up_beside_real(data)

    site = open_site(home.path, data, TASK.model_copy(update={"demo": True}))

    assert len(site.train) + len(site.validation) == 11
