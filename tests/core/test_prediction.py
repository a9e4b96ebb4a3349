"""Files in, files out: what `brainunet predict` makes of a case, whatever its grid, and what it says when it can't."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.config import PreprocessConfig
from brainunet.data.volumes import description_of, read_volume
from brainunet.data.written_volumes import write_volume_like
from brainunet.errors import DataError, MissingModality
from brainunet.inference.prediction import Prediction, RunFacts
from brainunet.labels import Label, Modality, Region
from brainunet.prediction.components import without_small_components
from brainunet.prediction.grid import interpolate, labels_on_files_grid, probabilities_on_files_grid, read_case
from brainunet.prediction.inputs import case_of_files, cases_to_segment
from brainunet.prediction.review import REVIEW_RULES, Finding, reasons_to_review
from brainunet.prediction.statistics import statistics
from tests.support.balls import SECRET, THREE, ball, ball_case, nib


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
    case = ball_case(tmp_path, oblique, (40, 42, 44), qform=qform, sform=sform)
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
    case = ball_case(tmp_path, np.diag([*sides, 1.0]), (x, y, z))
    read = read_case(case, THREE, PreprocessConfig())
    middle = (float(read.image[0].max()) + float(np.median(read.image[0]))) / 2
    bright = (read.image[0] > middle).astype(np.float32)  # the inner ball as the network sees it
    assert abs(bright.sum() / (4 / 3 * np.pi * 7**3) - 1) < 0.15  # in voxels of 1 mm

    coarse = np.stack([1 - bright, bright])
    back = labels_on_files_grid(coarse, read) == 1
    fine = np.stack(list(probabilities_on_files_grid(coarse, read)))

    truth = ball((x, y, z), sides, 7)
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.9
    np.testing.assert_array_equal(fine[1] > fine[0], back)
    np.testing.assert_allclose(fine.sum(axis=0), 1, atol=1e-5)


def test_detail_too_fine_for_1_mm_fades_and_makes_no_pattern(tmp_path: Path) -> None:
    case = ball_case(tmp_path, np.diag([0.25, 1.0, 1.0, 1.0]), (176, 44, 44))
    for number, path in enumerate(case.images.values()):
        image = nib.load(path)
        array = np.asarray(image.dataobj).astype(np.float32)
        array[array > 0] = 100 + number
        slope = 20 * np.arange(44) * (array > 0)  # most of the image's standard deviation, which becomes 1
        stripes = np.where(np.arange(176) % 5 < 2, 60, -40)[:, None, None] * (array > 0)  # every 1.25 mm: at 1 mm, every 5 mm
        nib.save(nib.Nifti1Image(array + slope + stripes, image.affine), path)

    seen = read_case(case, THREE, PreprocessConfig(clip_percentiles=(0, 100))).image[0].astype(np.float32)

    along = seen[3:33, seen.shape[1] // 2, seen.shape[2] // 2]
    amplitudes = np.abs(np.fft.rfft(along)) / (len(along) / 2)
    assert amplitudes[len(along) // 5] < 0.1  # without smoothing it is 0.3


def test_interpolation_is_exact_for_a_plane() -> None:
    x, y, z = np.mgrid[:5, :6, :7]
    at = [np.array([0.25, 3.5]), np.array([1.0, 4.75]), np.array([5.5])]
    a, b, c = np.meshgrid(*at, indexing="ij")
    np.testing.assert_allclose(interpolate(2 * x - y + 3 * z, at), 2 * a - b + 3 * c, rtol=1e-6)


def test_another_library_sees_the_segmentation_on_the_image(tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    turned = np.eye(4)
    turned[:3, :3] = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -2.5]]
    case = ball_case(tmp_path, turned, (20, 21, 22))
    array = np.zeros((20, 21, 22), np.uint8)
    write_volume_like(tmp_path / "seg.nii.gz", case.images[Modality.T1C], array)

    image, made = (sitk.ReadImage(str(path)) for path in (case.images[Modality.T1C], tmp_path / "seg.nii.gz"))

    for of in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(image, of)() == getattr(made, of)()


class TestInputs:
    def test_two_files_for_one_modality_are_refused_by_name(self, tmp_path: Path) -> None:
        ball_case(tmp_path, np.eye(4), (40, 40, 40))
        shutil.copy(tmp_path / f"{SECRET}-t1c.nii.gz", tmp_path / f"{SECRET}_T1CE.nii.gz")
        reason = cases_to_segment([tmp_path], THREE).problems[0].reason
        assert "t1c.nii.gz" in reason
        assert "T1CE.nii.gz" in reason

    def test_a_missing_modality_is_named(self, tmp_path: Path) -> None:
        case = ball_case(tmp_path, np.eye(4), (40, 40, 40))
        case.images[Modality.T2F].unlink()
        assert "no file for t2f" in cases_to_segment([tmp_path], THREE).problems[0].reason
        with pytest.raises(MissingModality, match="t2w, t2f"):
            case_of_files({Modality.T1C: case.images[Modality.T1C]}, THREE)

    def test_as_many_modalities_may_be_missing_as_the_model_can_do_without(self, tmp_path: Path) -> None:
        case = ball_case(tmp_path, np.eye(4), (40, 40, 40))
        case.images[Modality.T2W].unlink()

        (found,) = cases_to_segment([tmp_path], THREE, accepts_missing=1).cases
        read = read_case(found, THREE, PreprocessConfig())

        assert read.missing == (Modality.T2W,)
        np.testing.assert_array_equal(read.picture, read_volume(case.images[Modality.T1C]).array)
        assert [bool(channel.any()) for channel in read.image] == [True, False, True]
        with pytest.raises(MissingModality, match=r"at most 2 may be missing"):
            case_of_files(
                {Modality.T1N: case.images[Modality.T1C]}, THREE, accepts_missing=3
            )  # none at all is too few for any model

    def test_names_in_other_letter_case_and_loose_files(self, tmp_path: Path) -> None:
        case = ball_case(tmp_path / "in", np.eye(4), (40, 40, 40))
        names = ("P7_T1Gd.nii.gz", "P7_T2.nii.gz", "P7_T2_FLAIR.nii.gz")
        files = [path.rename(tmp_path / name) for path, name in zip(case.images.values(), names, strict=True)]
        (found,) = cases_to_segment(files, THREE).cases
        assert found.case_id == "P7"
        assert list(found.images.values()) == files

    def test_a_name_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such file"):
            cases_to_segment([tmp_path / "nowhere"], THREE)


def test_small_parts_become_what_lies_around_them_and_the_largest_tumour_stays() -> None:
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[2:14, 2:14, 2:14] = Label.SNFH
    labels[4:8, 4:8, 4:8] = Label.NETC  # 64 mm3 of a core
    labels[5, 5, 5] = Label.ET
    labels[10, 10, 10] = Label.ET  # a core of 1 mm3
    labels[20:24, 20:24, 20:24] = Label.SNFH  # 64 mm3
    labels[28, 28, 28] = Label.ET

    cleared, removed = without_small_components(labels, 1.0, {Region.WT: 64, Region.TC: 10, Region.ET: 10})

    assert (cleared[28, 28, 28], cleared[22, 22, 22]) == (Label.BACKGROUND, Label.BACKGROUND)
    assert (cleared[10, 10, 10], cleared[5, 5, 5], cleared[4, 4, 4]) == (Label.SNFH, Label.NETC, Label.NETC)
    told = {region: (parts.components, parts.voxels, parts.volume_mm3) for region, parts in removed.items()}
    assert told == {Region.WT: (2, 65, 65.0), Region.TC: (1, 1, 1.0), Region.ET: (1, 1, 1.0)}
    alone = np.zeros((9, 9, 9), np.uint8)
    alone[4, 4, 4] = Label.SNFH
    np.testing.assert_array_equal(without_small_components(alone, 1.0, dict.fromkeys(Region, 50.0))[0], alone)
    np.testing.assert_array_equal(without_small_components(labels, 1.0, dict.fromkeys(Region, 0.0))[0], labels)


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
    undecided = 0.31 if rule == "unsure" else 0.29
    label = Label.SNFH if rule == "no_core" else Label.NETC
    if rule == "tiny":
        tumour[20:23, 20:23, 20:23] = True
    elif rule == "cut_brain":
        brain[:3] = True
        tumour[20:30, 20:30, 20:30] = True
    elif rule == "huge":
        tumour[5:-5, 5:-5, 5:35] = True
    elif rule == "fragmented":
        tumour[6:54:4, 6:54:4, 6:54:4] = True
    elif rule == "outside_brain":
        tumour[1:20, 20:30, 20:30] = True
    elif rule == "cut_tumour":
        brain[:20, 20:28, 20:30] = True  # 80 mm2 of brain and of tumour on a side
        tumour[:20, 20:28, 20:30] = True
    elif rule != "none_found":
        tumour[20:30, 20:30, 20:30] = True
    labels = np.where(tumour, label, 0).astype(np.uint8)
    figures = statistics(labels, (1, 1, 1), np.full(tumour.shape, 255, np.uint8))
    missing = (Modality.T2F,) if rule == "missing_modality" else ()
    withdrawn = "left and right swapped" if rule == "withdrawn_model" else None
    finding = Finding(labels, brain, (1.0, 1.0, 1.0), figures, undecided, missing, withdrawn)
    assert list(reasons_to_review(finding)) == ([] if rule == "nothing" else [rule])


def test_doubt_is_counted_where_tumour_is_neither_likely_nor_unlikely_whichever_of_its_labels_it_is() -> None:
    background = np.array([0.9, 0.7, 0.1, 0.3, 0.05, 0.04, 0.02, 0.01, 0.21, 0.81], np.float32).reshape(10, 1, 1)
    split = np.stack(
        [background, (1 - background) / 2, (1 - background) / 2, np.zeros_like(background)]
    )  # two labels as likely

    how = RunFacts("torch", "fp32", "cpu", 1, "one-pass", None, 1, 0, 0.0, 0.0)

    # labelled tumour: all but 0.9, 0.7 and 0.81, and 0.3 (0.35 twice is more); undecided: 0.7, 0.3, 0.21
    assert Prediction(split, how).undecided == 3 / 7
    assert Prediction(np.stack([1 - 0 * background, *(0 * split[1:])]), how).undecided is None
