"""The folder that `brainunet predict` writes into: what is kept, replaced, refused, and left after a kill."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from brainunet.evaluation.matching import case_of
from brainunet.files import clear_folders, writing_folder_aside
from brainunet.folders import hold_folder
from brainunet.prediction.run import OUTPUT
from brainunet.starter import STARTER
from tests.support.balls import SECRET, ball_case
from tests.support.predictions import predict, two_cases
from tests.support.simulation import Ended


class TestCommand:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        return two_cases(tmp_path / "data")

    def run(self, data: Path, out: Path, *more: str) -> Ended:
        return predict(data, out, *more)

    def test_output_is_kept_by_resume_and_replaced_by_overwrite_and_else_refused(self, data: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert self.run(data, out).code == 0
        assert self.run(data, out).code == 3
        (out / ".Other-1.0123abcd.part").mkdir()  # of a killed process
        shutil.rmtree(out / "Other-1")
        kept = {case["name"]: case["kept"] for case in json.loads(self.run(data, out, "--resume", "--json").out)["cases"]}
        assert kept == {SECRET: True, "Other-1": False}
        assert sorted(path.name for path in out.iterdir()) == [SECRET, "Other-1"]
        again = json.loads(self.run(data, out, "--resume", "--no-uncertainty", "--json").out)["cases"]
        assert not any(case["kept"] for case in again)
        (out / SECRET / f"{SECRET}-seg.nii.gz").unlink()
        whole = json.loads(self.run(data, out, "--resume", "--no-uncertainty", "--json").out)["cases"]
        assert {case["name"]: case["kept"] for case in whole} == {SECRET: False, "Other-1": True}
        assert (out / SECRET / f"{SECRET}-seg.nii.gz").exists()
        (out / SECRET / "mine.txt").touch()
        assert self.run(data, out, "--overwrite").code == 0
        assert not (out / SECRET / "mine.txt").exists()

    @pytest.mark.slow
    def test_a_batch_that_was_killed_leaves_whole_cases_and_goes_on_with_the_others(self, tmp_path: Path) -> None:
        for number in range(6):
            ball_case(tmp_path / "data" / f"{number}", np.diag([1.0, 1.0, 1.0, 1.0]), (40, 40, 40), f"P{number}")
        out = tmp_path / "out"
        known = ("--model", str(STARTER), "--engine", "torch", "--precision", "fp32", "--demo", "--quiet")
        program = "from brainunet.cli import main; main()"
        command = (sys.executable, "-c", program, "predict", "-i", str(tmp_path / "data"), "-o", str(out), *known)
        process = subprocess.Popen(command)
        with process:
            while process.poll() is None and len(list(out.glob("P*"))) < 2:
                time.sleep(0.01)
            process.kill()
        whole = {path.name for path in out.glob("P*")}
        assert 2 <= len(whole) < 6
        for path in out.glob("P*"):
            assert set(json.loads((path / "run_report.json").read_text())["files"]) < {file.name for file in path.iterdir()}

        ended = self.run(tmp_path / "data", out, "--resume", "--json")

        assert {case["name"] for case in json.loads(ended.out)["cases"] if case["kept"]} == whole
        assert sorted(path.name for path in out.iterdir()) == [f"P{number}" for number in range(6)]

    def test_two_predictions_into_one_folder_are_refused(self, data: Path, tmp_path: Path) -> None:
        with hold_folder(tmp_path / "out", OUTPUT):
            ended = self.run(data, tmp_path / "out")
        assert ended.code == 2
        assert "another process works in it" in ended.err

    @pytest.mark.parametrize("more", ["--resume", "--overwrite"])
    def test_a_folder_that_is_not_ours_is_never_replaced(self, data: Path, tmp_path: Path, more: str) -> None:
        precious = tmp_path / "out" / SECRET / "thesis.txt"
        precious.parent.mkdir(parents=True)
        precious.touch()

        ended = self.run(data, tmp_path / "out", more)

        assert ended.code == 3
        assert "no output of brainunet predict" in ended.err
        assert precious.exists()
        assert (tmp_path / "out" / "Other-1").is_dir()

    def test_the_images_are_never_replaced_by_their_segmentation(self, data: Path, tmp_path: Path) -> None:
        images = (data / "a").rename(data / SECRET)
        assert self.run(images, data, "--overwrite").code == 3
        assert len(list(images.iterdir())) == 3

        out = tmp_path / "out"
        assert self.run(images, out).code == 0
        for path in images.iterdir():
            shutil.copy(path, out / SECRET)
        for more in (("--overwrite",), ("--resume", "--keep-small")):
            ended = self.run(out / SECRET, out, *more)
            assert ended.code == 3
            assert "would be removed" in ended.err
        assert len(list((out / SECRET).glob(f"{SECRET}-t*.nii.gz"))) == 3


def test_a_folder_written_aside_leaves_the_earlier_one_when_the_work_fails(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "old").touch()

    def fail() -> None:
        with writing_folder_aside(tmp_path / "case", replace=True) as aside:
            (aside / "new").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["case"]
    assert [path.name for path in (tmp_path / "case").iterdir()] == ["old"]


def test_a_folder_that_was_being_replaced_when_the_power_went_gets_its_name_back(tmp_path: Path) -> None:
    for name in (".a.0123abcd.earlier", ".a.89abcdef.part", "b", ".b.0123abcd.earlier", ".mine.part", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()

    clear_folders(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.part", "a", "b", "c"]


def test_the_output_of_a_prediction_can_be_evaluated_where_it_lies() -> None:
    """The map of entropy beside a segmentation is not taken for another one."""
    assert case_of("A-seg.nii.gz") == "A"
    assert case_of("A-entropy.nii.gz") is None
