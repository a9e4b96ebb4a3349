"""Patients under names that tell nothing: a hospital's own list keeps their cases together."""

from __future__ import annotations

import json
import shutil
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.cli import main as brainunet
from brainunet.data.patients import patient_of, read_patients, same_patients
from brainunet.data.splits import SplitConfig, split_by
from brainunet.errors import ConfigError
from tests.support.simulation import Ended, run
from tests.support.trainings import IDS, TINY, write_cases

NAMES = ["scan1", "scan2", "scan3", "scan4", "scan5", "scan6"]
TOLD = dict(zip(NAMES, ["anna", "ben", "anna", "carl", "anna", "dora"], strict=True))

visits = st.builds("BraTS-SSA-{:05d}-{:03d}".format, st.integers(1, 6), st.integers(0, 2))
people = st.sampled_from(["anna", "ben", "carl", "dora"])
lists = st.dictionaries(visits | st.sampled_from(NAMES), people, min_size=1, max_size=20)


def listed(folder: Path, told: dict[str, str], *, heading: str = "case_id,patient") -> Path:
    path = folder / "patients.csv"
    path.write_text("\n".join([heading, *(f"{case},{patient}" for case, patient in told.items())]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases under names that tell neither a patient nor a centre."""
    given, folder = write_cases(tmp_path_factory.mktemp("given")), tmp_path_factory.mktemp("data")
    for case, name in zip(IDS, NAMES, strict=True):
        for path in (given / case).iterdir():
            shutil.copy(path, folder / path.name.replace(case, name))
    return folder


def command(name: str, data: Path, out: Path, *arguments: str | Path) -> Ended:
    return run(brainunet, name, "--data", data, "--out", out, "--convention", "brats2023", *TINY, *arguments)


def parted(split: dict[str, list[str]]) -> set[str]:
    """Patients on both sides."""
    return {TOLD[case] for case in split["train"]} & {TOLD[case] for case in split["validation"]}


@pytest.mark.slow  # of the folds alone: test_splits.py
def test_every_fold_keeps_a_patient_of_the_list_on_one_side(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = command("crossval", data, out, "--folds", "3", "--patients", listed(tmp_path, TOLD))

    assert ended.code == 0, ended.err
    splits = [json.loads(path.read_text()) for path in sorted(out.glob("folds/*/split.json"))]
    assert len(splits) == 3
    assert [parted(split) for split in splits] == [set()] * 3
    assert sorted(case for split in splits for case in split["validation"]) == NAMES
    by_name = [split_by(SplitConfig(by="fold", folds=3, fold=fold), NAMES) for fold in (1, 2, 3)]
    assert any(parted({"train": [*split.train], "validation": [*split.validation]}) for split in by_name)  # names part anna


@pytest.mark.slow
def test_a_resume_needs_the_list_no_more(data: Path, tmp_path: Path) -> None:
    path, out = listed(tmp_path, TOLD), tmp_path / "out"
    assert command("train", data, out, "--folds", "3", "--patients", path).code == 0
    path.unlink()

    assert run(brainunet, "train", "--out", out, "--resume").code == 0
    assert not parted(json.loads((out / "split.json").read_text()))


def test_naming_one_case_of_a_patient_to_keep_aside_is_refused(data: Path, tmp_path: Path) -> None:
    ended = command("train", data, tmp_path / "out", "--validation", "scan1", "--patients", listed(tmp_path, TOLD))

    assert (ended.code, "patient anna on both sides" in ended.err) == (4, True), ended.err


@given(lists, st.integers(2, 4))
def test_neither_the_list_nor_the_names_ever_part_a_patient(told: dict[str, str], count: int) -> None:
    same = same_patients(told, told)

    for one, other in combinations(sorted(told), 2):
        if told[one] == told[other] or patient_of(one) == patient_of(other):
            assert same[one] == same[other]
    config = SplitConfig(by="fold", folds=count, patients=told)
    if count <= len(set(same.values())):
        split = split_by(config, told)
        assert not {same[case] for case in split.train} & {same[case] for case in split.validation}


@given(lists, st.randoms())
def test_the_order_of_the_lines_does_not_matter(told: dict[str, str], random: object) -> None:
    lines = list(told.items())
    random.shuffle(lines)  # type: ignore[attr-defined]

    assert same_patients([case for case, _ in lines], dict(lines)) == same_patients(told, told)


def test_what_is_joined_through_a_third_is_joined() -> None:
    told = {"BraTS-SSA-00001-000": "anna", "BraTS-SSA-00001-001": "ben", "scan": "ben", "alone": "carl"}

    assert same_patients(told, told) == {**dict.fromkeys([*told][:3], "anna"), "alone": "carl"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("case,who\na,b\n", "no column case_id and no column patient"),
        ("case_id\na\n", "no column patient"),
        ("case_id,patient\nscan1,\n", "line 2 without a patient"),
        ("case_id,patient\n ,anna\n", "line 2 without a case"),
        ("case_id,patient\nscan1\n", "line 2 without a patient"),
        ("case_id,patient\nscan1,anna\nscan1,ben\n", "line 3: scan1 of a second patient"),
        ("case_id,patient\n", "no case"),
        ("", "no column case_id"),
        (b"case_id,patient\n\xff,\xfe\n", "no text in UTF-8 with commas"),
        ("case_id,patient\n" + "x" * 200_000 + ",anna\n", "no text in UTF-8 with commas"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_is_no_list_is_refused_in_words(content: str | bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(ConfigError, match=said) as refused:
        read_patients(path)
    assert "the columns case_id and patient" in str(refused.value)


def test_a_spreadsheet_s_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "patients.csv"
    path.write_bytes(b'\xef\xbb\xbfage,patient,case_id\r\n61," anna ","scan1"\r\n61,anna,scan2\r\n')

    assert read_patients(path) == {"scan1": "anna", "scan2": "anna"}


def test_a_case_that_the_list_forgets_is_named_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    path = listed(tmp_path, {case: patient for case, patient in TOLD.items() if case not in ("scan2", "scan6")})

    ended = command("crossval", data, tmp_path / "out", "--folds", "2", "--patients", path)

    assert (ended.code, "--patients: no line for scan2 and 1 more" in ended.err) == (4, True), ended.err
    assert not (tmp_path / "out").exists()
