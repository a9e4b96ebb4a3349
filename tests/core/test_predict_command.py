"""`brainunet predict` as a person types it: what it writes, what it refuses, and what it says then."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from brainunet import home_folder
from brainunet.cli import main as brainunet
from brainunet.modelfile import read_model, write_model
from brainunet.registry.pulled import PulledModel, mark_withdrawn, remember
from brainunet.started import seconds_since_start
from brainunet.starter import STARTER
from tests.support.balls import SECRET, ball_case, nib
from tests.support.predictions import predict, two_cases
from tests.support.simulation import Ended, run


class TestCommand:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        return two_cases(tmp_path / "data")

    def run(self, data: Path, out: Path, *more: str) -> Ended:
        return predict(data, out, *more)

    def test_every_output_of_a_case_says_that_it_is_a_demonstration(self, data: Path, tmp_path: Path) -> None:
        ran = self.run(data, tmp_path / "out", "--probabilities")
        assert ran.code == 0, ran.err
        assert "DEMONSTRATION" in ran.out
        folder = tmp_path / "out" / SECRET
        seg = nib.load(folder / f"{SECRET}-seg.nii.gz")
        like = nib.load(data / "a" / f"{SECRET}-t1c.nii.gz")
        assert seg.shape == like.shape
        np.testing.assert_array_equal(seg.affine, like.affine)
        assert set(np.unique(np.asarray(seg.dataobj))) <= {0, 1, 2, 3}
        chances = np.asarray(nib.load(folder / f"{SECRET}-probabilities.nii.gz").dataobj)
        np.testing.assert_array_equal(chances.argmax(axis=-1), np.asarray(seg.dataobj))
        for volume in folder.glob("*.nii.gz"):
            assert bytes(nib.load(volume).header["descrip"].item()).startswith(b"DEMONSTRATION")
        assert json.loads((folder / "run_report.json").read_text())["demonstration"]
        assert "DEMONSTRATION" in json.loads((folder / "statistics.json").read_text())["demonstration"]
        assert "DEMONSTRATION" in (folder / "report.html").read_text()
        assert (folder / "preview.png").read_bytes().startswith(b"\x89PNG")

    def test_a_model_of_phantoms_is_refused_without_demo(self, data: Path, tmp_path: Path) -> None:
        ran = run(brainunet, "predict", "-i", str(data), "-o", str(tmp_path / "out"), "--model", str(STARTER))
        assert ran.code == 4
        assert "--demo" in ran.err
        assert not (tmp_path / "out").exists()

    def test_without_a_model_the_command_to_fetch_one_is_told(self, data: Path, tmp_path: Path) -> None:
        home = str(tmp_path / "home")
        ran = run(brainunet, "predict", "-i", str(data), "-o", str(tmp_path / "out"), "--home", home)
        assert ran.code == 4
        assert "brainunet pull" in ran.err

    @pytest.mark.parametrize("again", ["the same file", "stored anew"])
    def test_one_image_as_two_modalities_is_refused(self, data: Path, tmp_path: Path, again: str) -> None:
        files = {m: data / "a" / f"{SECRET}-{m}.nii.gz" for m in ("t1c", "t2w", "t2f")}
        if again == "stored anew":  # exported twice: other bytes, since gzip keeps the time
            image = nib.load(files["t1c"])
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float32), image.affine), files["t2w"])
        else:
            files["t2w"] = files["t1c"]
        three = [word for modality, path in files.items() for word in (f"--{modality}", path)]
        known = ("--model", STARTER, "--engine", "torch", "--demo", "-o", tmp_path / "out")

        ended = run(brainunet, "predict", *three, *known)

        assert ended.code == 3
        assert "the same image as t1c and as t2w" in ended.err
        assert not (tmp_path / "out" / SECRET).exists()

    @pytest.mark.slow
    def test_a_model_that_saw_phantoms_and_patients_is_for_demonstrations_too(self, data: Path, tmp_path: Path) -> None:
        weights, card = read_model(STARTER)
        mixed = tmp_path / "mixed.safetensors"
        write_model(mixed, weights, card.model_copy(update={"trained_on": "phantoms and real cases"}))

        ended = run(brainunet, "predict", "-i", data, "-o", tmp_path / "out", "--model", mixed)

        assert ended.code == 4
        assert "--demo" in ended.err

    def test_a_bad_case_is_told_and_the_others_go_on(self, data: Path, tmp_path: Path) -> None:
        broken = data / "a" / f"{SECRET}-t2f.nii.gz"
        broken.write_bytes(broken.read_bytes()[:500])
        ran = self.run(data, tmp_path / "out")
        assert ran.code == 3
        assert "t2f.nii.gz" in ran.err
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["Other-1"]

    @pytest.mark.parametrize(
        ("harm", "said"),
        [
            ("text", "NIfTI"),
            ("nan", "NaN"),
            ("4d", "4 axes"),
            ("shape", "the grid of"),
            ("zero", "every voxel of every modality is 0"),
            ("head", "not skull-stripped"),
        ],
    )
    def test_a_file_that_is_no_image_of_a_brain_is_refused_with_the_reason(
        self, data: Path, tmp_path: Path, harm: str, said: str
    ) -> None:
        shutil.rmtree(data / "b")
        for path in (data / "a").iterdir():
            image = nib.load(path)
            array = np.asarray(image.dataobj).astype(np.float32)
            if harm == "text":
                path.write_bytes(b"Dear colleague, the images are on the CD. " * 20)
                continue
            if harm == "nan":
                array[0, 0, 0] = np.nan
            elif harm == "4d":
                array = np.stack([array, array], axis=-1)
            elif harm == "shape" and "t2w" in path.name:
                array = array[:-1]
            elif harm == "zero":
                array[:] = 0
            elif harm == "head":
                array += 5
            nib.save(nib.Nifti1Image(array, image.affine), path)
        ran = self.run(data, tmp_path / "out")
        assert ran.code == 3
        assert said in ran.err
        assert "Traceback" not in ran.err
        assert not list((tmp_path / "out").glob("*"))

    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_what_is_no_file_is_not_waited_for(self, data: Path, tmp_path: Path, kind: str) -> None:
        path = data / "a" / f"{SECRET}-t2w.nii.gz"
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")

        ended = self.run(data, tmp_path / "out")

        assert ended.code == 3
        assert f"{SECRET}-t2w.nii.gz: no file, but a folder, a pipe or a device" in ended.err

    def test_a_full_disk_leaves_nothing_half_written(self, data: Path, tmp_path: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # bytes of a file, as if the disk ended there
        try:
            ran = self.run(data, tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert ran.code == 1
        assert "can't be written" in ran.err
        assert not list((tmp_path / "out").glob("*"))

    def test_without_a_model_the_one_pulled_last_is_used_and_named(self, data: Path, tmp_path: Path) -> None:
        home = tmp_path / "home"
        sha256 = hashlib.sha256(STARTER.read_bytes()).hexdigest()
        pulled = PulledModel(
            name="v3", file=str(STARTER), federation="Lakeside", sha256=sha256, round=7, pulled_at=datetime.now(UTC)
        )
        remember(home, pulled)
        asked = ("predict", "-i", str(data), "-o", str(tmp_path / "out"), "--home", str(home), "--demo", "--engine", "torch")
        ran = run(brainunet, *asked)
        assert ran.code == 0, ran.err
        assert "v3 of Lakeside, round 7" in ran.out
        assert "withdrawn" not in ran.err

        mark_withdrawn(home, "Lakeside", {sha256: "left and right swapped"})
        ran = run(brainunet, *asked, "--resume")

        assert "note: the federation has withdrawn v3: left and right swapped" in ran.err
        page = (tmp_path / "out" / SECRET / "report.html").read_text(encoding="utf-8")
        assert "the federation has withdrawn the model: left and right swapped" in page

    def test_a_file_that_was_pulled_and_withdrawn_is_told_too_when_it_is_named(self, data: Path, tmp_path: Path) -> None:
        home, copy = tmp_path / "home", tmp_path / "copy.safetensors"
        shutil.copy(STARTER, copy)
        sha256 = hashlib.sha256(STARTER.read_bytes()).hexdigest()
        gone, at = tmp_path / "gone.safetensors", datetime.now(UTC)
        remember(home, PulledModel(name="v3", file=str(gone), federation="Lakeside", sha256=sha256, round=7, pulled_at=at))
        mark_withdrawn(home, "Lakeside", {sha256: "left and right swapped"})
        asked = ("predict", "-i", data / "b", "--model", copy, "--home", home, "--demo", "--engine", "torch", "--overwrite")

        ended = run(brainunet, *asked, "-o", tmp_path / "out")

        assert ended.code == 0, ended.err
        assert "note: the federation has withdrawn v3: left and right swapped" in ended.err
        told = json.loads((tmp_path / "out" / "Other-1" / "statistics.json").read_text())
        assert told["review"]["withdrawn_model"] == "the federation has withdrawn the model: left and right swapped"

        (home / "models" / "pulled.json").write_text("{")
        ended = run(brainunet, *asked, "-o", tmp_path / "out")
        assert ended.code == 0, ended.err
        assert "note: whether the model was withdrawn can't be told: pulled.json" in ended.err

    def test_a_model_that_learned_to_do_without_takes_a_case_without(self, data: Path, tmp_path: Path) -> None:
        weights, card = read_model(STARTER)
        model = tmp_path / "without.safetensors"
        write_model(model, weights, card.model_copy(update={"accepts_missing": 1}))
        (data / "a" / f"{SECRET}-t2w.nii.gz").unlink()
        asked = ("--model", model, "--engine", "torch", "--demo", "--json", "-o", tmp_path / "out")

        ended = run(brainunet, "predict", "-i", data / "a", *asked)

        assert ended.code == 0, ended.err
        report = json.loads((tmp_path / "out" / SECRET / "run_report.json").read_text())
        assert report["missing_modalities"] == ["t2w"]
        assert "made without t2w" in report["result"]["review"]["missing_modality"]
        assert self.run(data / "a", tmp_path / "other").code == 3  # the starter model did not learn it

    @pytest.mark.parametrize("size", ["9" * 400 + "GB", "-1GB", "0GB", "much"])
    def test_a_size_that_is_none_is_refused(self, data: Path, tmp_path: Path, size: str) -> None:
        ended = self.run(data, tmp_path / "out", f"--max-memory={size}")
        assert ended.code == 2
        assert "expected a size such as 3GB" in ended.err

    def test_more_threads_than_any_machine_has_are_refused(self, data: Path, tmp_path: Path) -> None:
        assert self.run(data, tmp_path / "out", "--threads", "100000").code == 2  # torch would crash

    def test_a_pipe_is_no_model(self, data: Path, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        ended = run(brainunet, "predict", "-i", data, "-o", tmp_path / "out", "--model", tmp_path / "pipe")
        assert ended.code == 4
        assert "pipe: a pipe, but expected a BrainUNet model file" in ended.err

    def test_a_user_without_a_folder_can_use_a_file(self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(home_folder.VARIABLE, "~nobody-of-this-name/home")
        assert self.run(data / "b", tmp_path / "out").code == 0

        ended = run(brainunet, "predict", "-i", data, "-o", tmp_path / "out")

        assert ended.code == 2
        assert "--home: ~nobody-of-this-name/home, and no such user's folder is known here" in ended.err
        assert run(brainunet, "pull", "--list").code == 2

    def test_voxels_of_no_size_are_told_as_that(self, tmp_path: Path) -> None:
        for path in ball_case(tmp_path / "data", np.eye(4), (40, 42, 44)).images.values():
            nib.save(nib.Nifti1Image(np.asarray(nib.load(path).dataobj), np.diag([0.01, 0.01, 0.01, 1.0])), path)
        ended = self.run(tmp_path / "data", tmp_path / "out")
        assert ended.code == 3
        assert "voxels of 0.01 x 0.01 x 0.01 mm, and a brain of less than 1 mm" in ended.err

    def test_small_parts_are_taken_out_unless_they_are_wanted(self, data: Path, tmp_path: Path) -> None:
        for folder, more in (("without", ()), ("with", ("--keep-small",))):
            assert self.run(data / "b", tmp_path / folder, *more).code == 0
        without, kept = (
            json.loads((tmp_path / name / "Other-1" / "run_report.json").read_text()) for name in ("without", "with")
        )

        assert all(parts == {"components": 0, "voxels": 0, "volume_mm3": 0.0} for parts in kept["removed_components"].values())
        lost = kept["result"]["structures"]["WT"]["n_voxels"] - without["result"]["structures"]["WT"]["n_voxels"]
        assert lost == without["removed_components"]["WT"]["voxels"]
        assert without["settings"] != kept["settings"]
        assert "left in" in (tmp_path / "with" / "Other-1" / "report.html").read_text(encoding="utf-8")

    def test_the_report_of_the_run_tells_how_long_was_waited(self, data: Path, tmp_path: Path) -> None:
        begun = seconds_since_start()
        assert self.run(data / "b", tmp_path / "out").code == 0

        report = json.loads((tmp_path / "out" / "Other-1" / "run_report.json").read_text())

        assert begun is not None
        assert report["seconds_from_program_start_to_case"] > begun
        assert set(report["seconds"]) == {"read", "network", "measure", "write"}
        assert seconds_since_start(tmp_path) is None  # no /proc there
