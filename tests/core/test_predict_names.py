"""What `brainunet predict` calls a case: by its files' names, whatever they are, or by a pseudonym that hides them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from brainunet.folders import hold_folder
from brainunet.labels import Modality
from brainunet.prediction.run import OUTPUT
from tests.support.balls import SECRET, ball_case, nib
from tests.support.pace import first_fast
from tests.support.predictions import predict, two_cases


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return two_cases(tmp_path / "data")


def test_a_pseudonym_leaves_no_trace_of_the_name(data: Path, tmp_path: Path) -> None:
    ran = predict(data, tmp_path / "out", "--pseudonym", "X", "--json")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["X-001", "X-002"]
    assert SECRET not in ran.out
    for path in (tmp_path / "out").rglob("*"):
        assert SECRET not in str(path.relative_to(tmp_path))
        if path.is_file():
            raw = path.read_bytes()
            assert SECRET.encode() not in (raw if path.suffix != ".gz" else nib.load(path).header.binaryblock)


@pytest.mark.slow
def test_a_pseudonym_stays_with_its_patient_when_others_join(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(data, out, "--pseudonym", "X")
    reports = [out / name / "run_report.json" for name in ("X-001", "X-002")]
    before = [json.loads(path.read_text())["inputs_sha256"] for path in reports]
    ball_case(data / "0", np.eye(4), (44, 40, 40), "AAA-first")  # sorts before the others

    assert predict(data, out, "--pseudonym", "X", "--resume").code == 0

    assert [json.loads(path.read_text())["inputs_sha256"] for path in reports] == before
    assert sorted(path.name for path in out.iterdir()) == ["X-001", "X-002", "X-003"]
    assert predict(data, out, "--pseudonym", "X", "--overwrite").code == 0
    assert [json.loads(path.read_text())["inputs_sha256"] for path in reports] == before


def test_a_pseudonym_is_never_given_to_a_second_patient(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(data / "a", out, "--pseudonym", "X").code == 0

    for more in ("--resume", "--overwrite"):
        ended = predict(data / "b", out, "--pseudonym", "X", more)
        assert ended.code == 3
        assert "under this pseudonym" in ended.err

    assert predict(data / "a", out, "--pseudonym", "X", "--resume").code == 0


def test_pseudonyms_are_given_only_while_nobody_else_gives_them_in_the_same_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(data / "a", out, "--pseudonym", "X").code == 0
    with hold_folder(out, OUTPUT):  # a look at the names before would tell what the other one has not written yet
        assert predict(data / "b", out, "--pseudonym", "X", "--overwrite").code == 2
    (out / "X").rename(out / ".X.0123abcd.earlier")  # the power went while it was replaced
    assert predict(data / "b", out, "--pseudonym", "X").code == 3
    assert [path.name for path in out.iterdir()] == ["X"]


@pytest.mark.slow
def test_json_of_a_case_that_failed_holds_no_name_under_a_pseudonym(data: Path, tmp_path: Path) -> None:
    broken = data / "a" / f"{SECRET}-t2f.nii.gz"
    broken.write_bytes(broken.read_bytes()[:500])
    ball_case(data / "c", np.eye(4), (40, 40, 40), f"{SECRET}9").images[Modality.T1C].unlink()

    ended = predict(data, tmp_path / "out", "--pseudonym", "X", "--json")

    assert ended.code == 3
    assert len(json.loads(ended.out)["problems"]) == 2
    assert SECRET not in ended.out
    assert f"{SECRET}-t2f.nii.gz" in ended.err  # the person at the terminal must know which


def test_files_named_by_modality_alone_take_the_folders_own_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (data / "a").iterdir():
        path.rename(path.with_name(path.name.removeprefix(f"{SECRET}-")))
    (data / "a" / "below").mkdir()
    monkeypatch.chdir(data / "a" / "below")

    assert predict(Path(".."), tmp_path / "out").code == 0

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


@pytest.mark.parametrize("name", first_fast("red\x1b[31m", "p$\\frac$1", "odd\udcffbyte", "病人", "<b>&amp;"), ids=ascii)
def test_any_name_that_a_file_can_have_is_told_and_takes_over_no_screen_page_or_picture(
    data: Path, tmp_path: Path, name: str
) -> None:
    shutil.rmtree(data / "b")
    for path in (data / "a").iterdir():
        path.rename(path.with_name(path.name.replace(SECRET, name)))
    ball_case(data / "c", np.eye(4), (40, 40, 40), "broken").images[Modality.T2F].write_bytes(b"")
    (data / "c" / "broken-t2f.nii.gz").rename(data / "c" / f"broken{name}-t2f.nii.gz")

    ended = predict(data, tmp_path / "out")

    assert ended.code == 3, ended.err  # of the broken one
    assert (tmp_path / "out" / name / f"{name}-seg.nii.gz").exists()
    assert name.isprintable() == (name in ended.out)
    assert name.isprintable() == (f"broken{name}" in ended.err)
    assert "\x1b[31m" not in ended.out + ended.err
    assert "<b>" not in (tmp_path / "out" / name / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_name_too_long_for_files_is_told_and_the_others_go_on(data: Path, tmp_path: Path) -> None:
    ball_case(tmp_path / "long", np.eye(4), (40, 40, 40), "ö" * 100)  # sorts after the others: 200 bytes
    ball_case(data / "c", np.eye(4), (40, 40, 40), "A" * 235)

    ended = predict(data, tmp_path / "out", "-i", str(tmp_path / "long"), "--probabilities")

    assert ended.code == 3
    assert "a name of 235 bytes" in ended.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [SECRET, "Other-1", "ö" * 100]
