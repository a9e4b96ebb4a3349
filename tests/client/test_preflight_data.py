"""``--check`` of the cases: how many can be used, which are refused and why, on which side they lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.data.phantom import write_phantoms
from brainunet_client.home import Home
from tests.support.cases import head, write_case
from tests.support.health import federation
from tests.support.looks import SETTINGS, _nobody_answers, case_id, data, failed, home, look
from tests.support.nifti import write_nifti

__all__ = ["_nobody_answers", "data", "federation", "home"]  # fixtures


def test_refused_cases_are_named_with_their_reasons_up_to_five(home: Home, data: Path) -> None:
    for number in range(7):
        (data / case_id(number) / f"{case_id(number)}-t1c.nii.gz").write_bytes(b"")

    checks = look(home, data)

    assert checks["data"].said == "10 found, 3 usable (2 to train on, 1 for validation), 7 refused"
    refused = checks["refused cases"]
    assert refused.outcome == "WARN"
    assert refused.said.count("0 bytes") == 5
    assert refused.said.endswith("and 2 more")
    assert refused.said.startswith(f"{case_id(0)}")


def test_a_head_is_refused_with_what_to_do(home: Home, data: Path) -> None:
    for path in (data / case_id(0)).glob("*-t2w.nii.gz"):
        image = head(seed=1)
        write_nifti(path, np.where(image == 0, 3, image).astype(np.int16))

    checks = look(home, data)

    assert "9 usable" in checks["data"].said
    assert "not skull-stripped: the background is not 0" in checks["refused cases"].said
    assert "HD-BET" in checks["refused cases"].said
    assert "brainunet check" in checks["refused cases"].remedy


def test_no_usable_case_fails_and_so_does_a_folder_without_cases(home: Home, tmp_path: Path) -> None:
    folder = write_case(tmp_path / "data")
    for path in folder.iterdir():
        path.write_bytes(b"")
    check = look(home, tmp_path / "data")["data"]
    assert (check.outcome, check.exit_code) == ("FAIL", 3)

    (tmp_path / "empty").mkdir()
    check = look(home, tmp_path / "empty")["data"]
    assert (check.outcome, check.exit_code) == ("FAIL", 3)
    assert check.remedy


def test_too_few_cases_to_train_on_or_to_tell_figures_of_are_warned_of(home: Home, tmp_path: Path) -> None:
    home.settings.write_text(SETTINGS.replace("1", "3", 1))
    write_case(tmp_path / "data")
    checks = look(home, tmp_path / "data")

    assert checks["data"].outcome == "WARN"
    assert "nothing to train on" in checks["data"].said
    assert checks["validation cases"].said.startswith("1 for validation, and figures are withheld below 3")
    assert "min_cases" in checks["validation cases"].remedy


def test_made_up_cases_are_named_since_only_demonstrations_take_them(home: Home, data: Path, tmp_path: Path) -> None:
    assert "made-up cases" not in look(home, data)
    write_phantoms(tmp_path / "made up", cases=2, style="gli", seed=0, shape=(32, 36, 32), centres=("CRV",))

    check = look(home, tmp_path / "made up")["made-up cases"]

    assert check.outcome == "WARN"
    assert check.said.startswith("2 of 2 usable cases, as their files say: BraTS-SSA-")
    assert "no demonstration refuses" in check.remedy


def test_cases_are_counted_on_the_sides_that_they_have_already(home: Home, data: Path) -> None:
    home.sides.write_text(json.dumps({case_id(number): "train" for number in range(10)}))
    checks = look(home, data)
    assert "(10 to train on, 0 for validation)" in checks["data"].said

    home.sides.write_text('{"BraTS')
    assert look(home, data)["data"].exit_code == 3
    assert "data" in failed(look(home, data))


def test_a_second_look_reads_no_case_again(home: Home, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = look(home, data)["data"]

    def read_again(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("brainunet.data.cache.prepare", read_again)

    assert look(home, data)["data"] == first


def test_an_excluded_case_is_not_even_read(home: Home, data: Path) -> None:
    home.consent.write_text("BraTS-SSA-00003  # withdrew\nBraTS-SSA-99999-000\n")

    checks = look(home, data)

    assert len(list(home.cache.glob("*/*/facts.json"))) == 9
    assert checks["data"].said.endswith("1 excluded by the register")
    assert checks["consent"].outcome == "WARN"
    assert "1 is of no case in the data: BraTS-SSA-99999-000" in checks["consent"].said


def test_a_register_that_cannot_be_read_keeps_every_case_unread(home: Home, data: Path) -> None:
    home.consent.write_bytes(b"\xff\xff\xff\0")
    checks = look(home, data)

    assert checks["consent"].outcome == "FAIL"
    assert checks["data"].said.startswith("not checked")
    assert not any(home.cache.iterdir())
