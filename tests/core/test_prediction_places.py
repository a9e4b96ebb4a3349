"""A bright spot on one side of a brain comes out on that side and at that place, from files to files, on any grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from brainunet.inference.prediction import Prediction, RunFacts
from brainunet.labels import Label
from brainunet.modelfile import read_model
from brainunet.prediction.inputs import cases_to_segment
from brainunet.prediction.run import Wanted, predict_cases
from brainunet.starter import STARTER
from tests.support.balls import THREE, nib
from tests.support.pace import first_fast

MIDDLE_MM = np.array([5.0, -7.0, 3.0])
SPOT_MM = MIDDLE_MM + np.array([9.0, 6.0, -7.0])  # right of the middle, before it and below


class BrightIsEnhancing:
    """A network that anybody can follow: what is brighter than two standard deviations is enhancing tumour."""

    card = read_model(STARTER)[1]
    digest = "00" * 32

    def describe(self) -> dict[str, str | int]:
        return {}

    def require_room(self, beside_bytes: int) -> None:
        pass

    def predict(self, image: npt.NDArray[np.floating], beside_bytes: int) -> Prediction:
        bright = 1 / (1 + np.exp(-6 * (np.asarray(image[0], np.float32) - 2)))
        probabilities = np.zeros((4, *image.shape[1:]), np.float32)
        probabilities[Label.BACKGROUND], probabilities[Label.ET] = 1 - bright, bright
        return Prediction(probabilities, RunFacts("torch", "fp32", "cpu", 1, "one-pass", None, 1, 0, 0.0, 0.0))


@pytest.mark.parametrize("turned_by", first_fast(0.3, 0.0), ids=["oblique", "straight"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.6, 0.5), (0.8, 1.3, 3.0)], ids=str)
@pytest.mark.parametrize("axes", first_fast("PSR", "RAS", "LPS", "LAS", "SAL"))
def test_a_spot_is_found_where_it_is(tmp_path: Path, axes: str, spacing: tuple[float, float, float], turned_by: float) -> None:
    order = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(axes), (1, 1, 1))[:3, :3]
    cos, sin = np.cos(turned_by), np.sin(turned_by)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ order @ np.diag(spacing)
    x, y, z = (int(np.ceil(58 / side)) for side in spacing)
    shape = (x, y, z)
    affine = nib.affines.from_matvec(matrix, MIDDLE_MM - matrix @ ((np.array(shape) - 1) / 2))
    places = nib.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    from_middle, from_spot = (np.linalg.norm(places - mm, axis=-1) for mm in (MIDDLE_MM, SPOT_MM))
    for number, modality in enumerate(THREE):
        image = np.random.default_rng(number).normal(100, 3, shape) + 200 * (from_spot < 6)
        nib.save(nib.Nifti1Image((image * (from_middle < 24)).astype(np.float32), affine), tmp_path / f"P-{modality}.nii.gz")

    found = cases_to_segment([tmp_path], THREE).cases
    ((done,), problems) = predict_cases([("P", found[0])], BrightIsEnhancing(), tmp_path / "out", Wanted())

    assert problems == []
    made = nib.load(done.folder / "P-seg.nii.gz")
    spot = np.asarray(made.dataobj) == Label.ET
    np.testing.assert_array_equal(made.affine, nib.load(tmp_path / "P-t1c.nii.gz").affine)
    if spacing == (1.0, 1.0, 1.0):
        np.testing.assert_array_equal(spot, from_spot < 6)
    truth = from_spot < 6
    assert 2 * (spot & truth).sum() / (spot.sum() + truth.sum()) > 0.85
    # the middle of mass forgives a rough surface and shows a shift by half a voxel
    off_mm = places[spot].mean(axis=0) - places[truth].mean(axis=0)
    assert np.abs(np.linalg.inv(matrix) @ off_mm).max() < 0.25
    ml = done.statistics["ET"]["volume_ml"]
    assert ml == pytest.approx(spot.sum() * abs(np.linalg.det(matrix)) / 1000, rel=1e-4)


def test_a_small_part_is_told_by_region_on_the_page_and_among_the_figures(tmp_path: Path) -> None:
    shape = (58, 60, 62)
    places = np.moveaxis(np.indices(shape), 0, -1)
    brain, spot, speck = (np.linalg.norm(places - at, axis=-1) for at in ((29, 30, 31), (20, 30, 31), (42, 30, 31)))
    for number, modality in enumerate(THREE):
        image = np.random.default_rng(number).normal(100, 3, shape) + 200 * ((spot < 6) | (speck <= 2))
        nib.save(nib.Nifti1Image((image * (brain < 24)).astype(np.float32), np.eye(4)), tmp_path / f"P-{modality}.nii.gz")
    found = cases_to_segment([tmp_path], THREE).cases

    ((done,), _) = predict_cases([("P", found[0])], BrightIsEnhancing(), tmp_path / "out", Wanted())

    told = json.loads((done.folder / "statistics.json").read_text())["removed_components"]
    assert told["WT"] == {"components": 1, "voxels": 33, "volume_mm3": 33.0}  # voxels within 2 of a point of the lattice
    assert told == json.loads((done.folder / "run_report.json").read_text())["removed_components"]
    page = (done.folder / "report.html").read_text()
    assert "WT: 1 of up to 50 mm3, 33 mm3 in all" in page
    assert "TC:" not in page  # it went with the whole tumour
