"""Files in, files out: what `brainunet predict` makes of a case, whatever its grid, and what it says when it can't."""

from __future__ import annotations

import hashlib
import itertools
import json
import resource
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

from brainunet.cli import main as brainunet
from brainunet.config import PreprocessConfig
from brainunet.data.volumes import description_of, write_volume_like
from brainunet.errors import DataError, MissingModality
from brainunet.evaluation.matching import case_of
from brainunet.files import writing_folder_aside
from brainunet.labels import Modality
from brainunet.modelfile import read_model, write_model
from brainunet.prediction.grid import interpolate, onto_files_grid, read_case
from brainunet.prediction.inputs import case_of_files, cases_to_segment
from brainunet.prediction.review import REVIEW_RULES, Finding, reasons_to_review
from brainunet.prediction.statistics import statistics
from brainunet.records import Case
from brainunet.registry.pulled import PulledModel, remember
from brainunet.starter import STARTER
from tests.support.simulation import Ended, run

nib: Any = nibabel  # has hardly any types
THREE = (Modality.T1C, Modality.T2W, Modality.T2F)
SECRET = "MRN12345"


def _ball(shape: tuple[int, int, int], spacing: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.bool_]:
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    distance = sum(((g - (n - 1) / 2) * s) ** 2 for g, n, s in zip(grids, shape, spacing, strict=True))
    return np.asarray(distance <= radius**2)


def _case(
    folder: Path,
    affine: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    name: str = SECRET,
    *,
    qform: int = 1,
    sform: int = 1,
) -> Case:
    """A ball of a brain with a brighter ball in it, in every modality."""
    folder.mkdir(parents=True, exist_ok=True)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for number, modality in enumerate(THREE):
        image = np.random.default_rng(number).integers(50, 60, shape) * _ball(shape, spacing, 18)
        image[_ball(shape, spacing, 7)] += 200
        made = nib.Nifti1Image(image.astype(np.int16), affine)
        made.set_qform(affine, code=qform)
        made.set_sform(affine, code=sform)
        made.header["descrip"] = f"of {SECRET}"
        nib.save(made, folder / f"{name}-{modality.value}.nii.gz")
    return cases_to_segment([folder], THREE).cases[0]


def _orientations() -> list[str]:
    return [
        "".join(pair[bit] for pair, bit in zip(order, bits, strict=True))
        for order in itertools.permutations(("RL", "AP", "SI"))
        for bits in itertools.product((0, 1), repeat=3)
    ]


@pytest.mark.parametrize("axes", _orientations())
def test_a_map_goes_back_to_the_voxels_of_the_file_in_each_of_48_orientations(tmp_path: Path, axes: str) -> None:
    array = np.arange(1, 61, dtype=np.int16).reshape(3, 4, 5)
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(axes), array.shape)
    nib.save(nib.Nifti1Image(array, turn), tmp_path / "a.nii.gz")
    canonical = np.asarray(nib.as_closest_canonical(nib.load(tmp_path / "a.nii.gz")).dataobj)

    write_volume_like(tmp_path / "b.nii.gz", tmp_path / "a.nii.gz", canonical.astype(np.uint8))

    back = nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj), array)
    np.testing.assert_array_equal(back.affine, nib.load(tmp_path / "a.nii.gz").affine)


@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 2), (3, 4)])
def test_both_forms_and_codes_are_those_of_the_input_and_its_description_is_not(tmp_path: Path, qform: int, sform: int) -> None:
    oblique = nib.affines.from_matvec(np.array([[0.9, -0.2, 0], [0.2, 0.9, 0.1], [0, -0.1, 1.1]]), [5, -7, 9])
    # a sheared matrix can't be a qform: its nearest rotation
    u, _, v = np.linalg.svd(oblique[:3, :3])
    oblique[:3, :3] = u @ v
    case = _case(tmp_path, oblique, (40, 42, 44), qform=qform, sform=sform)
    like = case.images[Modality.T1C]

    write_volume_like(tmp_path / "seg.nii.gz", like, np.zeros((40, 42, 44), np.uint8), description="ours")

    one, other = nib.load(like), nib.load(tmp_path / "seg.nii.gz")
    for field in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_z"):
        np.testing.assert_array_equal(one.header[field], other.header[field], err_msg=field)
    np.testing.assert_array_equal(one.affine, other.affine)
    assert other.get_data_dtype() == np.uint8
    assert description_of(tmp_path / "seg.nii.gz") == "ours"


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (1, 1, 5), (0.8, 1.3, 2.0), (1.0, 0.99, 1.01)])
def test_a_ball_comes_back_from_the_network_grid_where_it_was(tmp_path: Path, spacing: tuple[float, float, float]) -> None:
    sides = np.array(spacing)
    x, y, z = (int(np.ceil(44 / side)) for side in sides)
    case = _case(tmp_path, np.diag([*sides, 1.0]), (x, y, z))
    read = read_case(case, THREE, PreprocessConfig())
    middle = (float(read.image[0].max()) + float(np.median(read.image[0]))) / 2
    bright = (read.image[0] > middle).astype(np.float32)  # the inner ball as the network sees it
    assert abs(bright.sum() / (4 / 3 * np.pi * 7**3) - 1) < 0.15  # in voxels of 1 mm

    fine, box = onto_files_grid(np.stack([1 - bright, bright]), read)

    back = np.zeros((x, y, z), bool)
    back[tuple(slice(*side) for side in box)] = fine[1] > fine[0]
    truth = _ball((x, y, z), sides, 7)
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.9
    np.testing.assert_allclose(fine.sum(axis=0), 1, atol=1e-5)


def test_interpolation_is_exact_for_a_plane() -> None:
    x, y, z = np.mgrid[:5, :6, :7]
    at = [np.array([0.25, 3.5]), np.array([1.0, 4.75]), np.array([5.5])]
    a, b, c = np.meshgrid(*at, indexing="ij")
    np.testing.assert_allclose(interpolate(2 * x - y + 3 * z, at), 2 * a - b + 3 * c, rtol=1e-6)


def test_another_library_sees_the_segmentation_on_the_image(tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    turned = np.eye(4)
    turned[:3, :3] = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -2.5]]
    case = _case(tmp_path, turned, (20, 21, 22))
    array = np.zeros((20, 21, 22), np.uint8)
    write_volume_like(tmp_path / "seg.nii.gz", case.images[Modality.T1C], array)

    image, made = (sitk.ReadImage(str(path)) for path in (case.images[Modality.T1C], tmp_path / "seg.nii.gz"))

    for of in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(image, of)() == getattr(made, of)()


class TestInputs:
    def test_two_files_for_one_modality_are_refused_by_name(self, tmp_path: Path) -> None:
        _case(tmp_path, np.eye(4), (40, 40, 40))
        shutil.copy(tmp_path / f"{SECRET}-t1c.nii.gz", tmp_path / f"{SECRET}_T1CE.nii.gz")
        reason = cases_to_segment([tmp_path], THREE).problems[0].reason
        assert "t1c.nii.gz" in reason
        assert "T1CE.nii.gz" in reason

    def test_a_missing_modality_is_named(self, tmp_path: Path) -> None:
        case = _case(tmp_path, np.eye(4), (40, 40, 40))
        case.images[Modality.T2F].unlink()
        assert "no file for t2f" in cases_to_segment([tmp_path], THREE).problems[0].reason
        with pytest.raises(MissingModality, match="t2w, t2f"):
            case_of_files({Modality.T1C: case.images[Modality.T1C]}, THREE)

    def test_names_in_other_letter_case_and_loose_files(self, tmp_path: Path) -> None:
        case = _case(tmp_path / "in", np.eye(4), (40, 40, 40))
        names = ("P7_T1Gd.nii.gz", "P7_T2.nii.gz", "P7_T2_FLAIR.nii.gz")
        files = [path.rename(tmp_path / name) for path, name in zip(case.images.values(), names, strict=True)]
        (found,) = cases_to_segment(files, THREE).cases
        assert found.case_id == "P7"
        assert list(found.images.values()) == files

    def test_a_name_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file"):
            cases_to_segment([tmp_path / "nowhere"], THREE)


def test_figures_of_a_small_map_by_hand() -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 3  # one lesion: they touch by a corner
    labels[4, 4, 4] = 1
    told = statistics(labels, (1.0, 1.0, 2.0), None)
    assert (told["ET"]["n_voxels"], told["ET"]["volume_mm3"], told["ET"]["n_lesions"]) == (2, 4.0, 1)
    assert (told["TC"]["n_voxels"], told["TC"]["n_lesions"], told["TC"]["largest_lesion_ml"]) == (3, 2, 0.004)
    assert told["SNFH"]["largest_lesion_ml"] is None
    assert "none" in told["SNFH"]["reason"]


@pytest.mark.parametrize("rule", [*REVIEW_RULES, "nothing"])
def test_each_rule_asks_for_a_look_at_its_own_case_and_only_then(rule: str) -> None:
    brain = np.zeros((60, 60, 60), bool)
    brain[3:-3, 3:-3, 3:-3] = True
    tumour = np.zeros_like(brain)
    entropy = 0.6 if rule == "unsure" else 0.1
    if rule == "tiny":
        tumour[20:23, 20:23, 20:23] = True
    elif rule == "huge":
        tumour[5:-5, 5:-5, 5:35] = True
    elif rule == "fragmented":
        tumour[10:40:4, 10:40:4, 10:40:4] = True
    elif rule == "outside_brain":
        tumour[1:20, 20:30, 20:30] = True
    elif rule == "at_the_edge":
        brain[:3] = True
        tumour[:20, 20:30, 20:30] = True
    elif rule != "none_found":
        tumour[20:30, 20:30, 20:30] = True
    figures = statistics(tumour.astype(np.uint8), (1, 1, 1), np.full(tumour.shape, entropy, np.float32))
    assert list(reasons_to_review(Finding(tumour, brain, figures))) == ([] if rule == "nothing" else [rule])


class TestCommand:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        _case(tmp_path / "data" / "a", np.diag([-1.0, 1.0, 1.0, 1.0]), (40, 42, 44))
        _case(tmp_path / "data" / "b", np.diag([1.0, 1.0, 2.0, 1.0]), (40, 40, 22), "Other-1")
        return tmp_path / "data"

    def run(self, data: Path, out: Path, *more: str) -> Ended:
        known = ("--model", str(STARTER), "--engine", "torch", "--precision", "fp32", "--demo")
        return run(brainunet, "predict", "-i", str(data), "-o", str(out), *known, *more)

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

    def test_a_pseudonym_leaves_no_trace_of_the_name(self, data: Path, tmp_path: Path) -> None:
        ran = self.run(data, tmp_path / "out", "--pseudonym", "X", "--json")
        assert ran.code == 0, ran.err
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["X-001", "X-002"]
        assert SECRET not in ran.out
        for path in (tmp_path / "out").rglob("*"):
            assert SECRET not in str(path.relative_to(tmp_path))
            if path.is_file():
                raw = path.read_bytes()
                assert SECRET.encode() not in (raw if path.suffix != ".gz" else nib.load(path).header.binaryblock)

    def test_a_pseudonym_stays_with_its_patient_when_others_join(self, data: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        self.run(data, out, "--pseudonym", "X")
        reports = [out / name / "run_report.json" for name in ("X-001", "X-002")]
        before = [json.loads(path.read_text())["inputs_sha256"] for path in reports]
        _case(data / "0", np.eye(4), (44, 40, 40), "AAA-first")  # sorts before the others

        assert self.run(data, out, "--pseudonym", "X", "--resume").code == 0

        assert [json.loads(path.read_text())["inputs_sha256"] for path in reports] == before
        assert sorted(path.name for path in out.iterdir()) == ["X-001", "X-002", "X-003"]
        assert self.run(data, out, "--pseudonym", "X", "--overwrite").code == 0
        assert [json.loads(path.read_text())["inputs_sha256"] for path in reports] == before

    def test_a_pseudonym_is_never_given_to_a_second_patient(self, data: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert self.run(data / "a", out, "--pseudonym", "X").code == 0

        for more in ("--resume", "--overwrite"):
            ended = self.run(data / "b", out, "--pseudonym", "X", more)
            assert ended.code == 3
            assert "under this pseudonym" in ended.err

        assert self.run(data / "a", out, "--pseudonym", "X", "--resume").code == 0

    def test_json_of_a_case_that_failed_holds_no_name_under_a_pseudonym(self, data: Path, tmp_path: Path) -> None:
        broken = data / "a" / f"{SECRET}-t2f.nii.gz"
        broken.write_bytes(broken.read_bytes()[:500])
        _case(data / "c", np.eye(4), (40, 40, 40), f"{SECRET}9").images[Modality.T1C].unlink()

        ended = self.run(data, tmp_path / "out", "--pseudonym", "X", "--json")

        assert ended.code == 3
        assert len(json.loads(ended.out)["problems"]) == 2
        assert SECRET not in ended.out
        assert f"{SECRET}-t2f.nii.gz" in ended.err  # the person at the terminal must know which

    def test_one_file_as_two_modalities_is_refused(self, data: Path, tmp_path: Path) -> None:
        files = {m: data / "a" / f"{SECRET}-{m}.nii.gz" for m in ("t1c", "t2f")}
        twice = ("--t1c", files["t1c"], "--t2w", files["t1c"], "--t2f", files["t2f"])
        known = ("--model", STARTER, "--engine", "torch", "--demo", "-o", tmp_path / "out")

        ended = run(brainunet, "predict", *twice, *known)

        assert ended.code == 3
        assert "the same image as t1c and as t2w" in ended.err
        assert not (tmp_path / "out" / SECRET).exists()

    def test_files_named_by_modality_alone_take_the_folders_own_name(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for path in (data / "a").iterdir():
            path.rename(path.with_name(path.name.removeprefix(f"{SECRET}-")))
        (data / "a" / "below").mkdir()
        monkeypatch.chdir(data / "a" / "below")

        assert self.run(Path(".."), tmp_path / "out").code == 0

        assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]

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
        (out / SECRET / "mine.txt").touch()
        assert self.run(data, out, "--overwrite").code == 0
        assert not (out / SECRET / "mine.txt").exists()

    def test_a_folder_that_is_not_ours_is_never_replaced_by_resume(self, data: Path, tmp_path: Path) -> None:
        precious = tmp_path / "out" / SECRET / "thesis.txt"
        precious.parent.mkdir(parents=True)
        precious.touch()
        assert self.run(data, tmp_path / "out", "--resume").code == 3
        assert precious.exists()


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


def test_the_output_of_a_prediction_can_be_evaluated_where_it_lies() -> None:
    """The map of entropy beside a segmentation is not taken for another one."""
    assert case_of("A-seg.nii.gz") == "A"
    assert case_of("A-entropy.nii.gz") is None
