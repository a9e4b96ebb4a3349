"""Where the picture of a segmentation shows what lies on the patient's right, in front and above."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from brainunet.labels import Label
from brainunet.pictures.preview import draw_preview
from tests.support.pace import first_fast

ENHANCING = np.array([0xD5, 0x5E, 0x00]) / 255


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("front", first_fast(True, False))
@pytest.mark.parametrize("above", first_fast(False, True))
def test_each_plane_shows_the_patients_right_or_front_on_the_left(
    tmp_path: Path, right: bool, front: bool, above: bool
) -> None:
    brain = np.ones((60, 60, 60), bool)
    labels = np.zeros(brain.shape, np.uint8)
    x, y, z = (slice(38, 50) if end else slice(10, 22) for end in (right, front, above))  # canonical: to the right, front, top
    labels[x, y, z] = Label.ET

    draw_preview(tmp_path / "p.png", "P", np.full(brain.shape, 50.0), labels, brain, (1.0, 1.0, 1.0), {"ET": 1.7})

    picture = imread(tmp_path / "p.png")[..., :3]
    high, wide = picture.shape[:2]
    planes = picture[int(0.12 * high) : int(0.84 * high)]  # without title and legend
    near = np.abs(planes - ENHANCING).max(axis=-1) < 0.1
    axial, coronal, sagittal = (near[:, third * wide // 3 : (third + 1) * wide // 3] for third in range(3))
    for plane, on_the_left, on_top in ((axial, right, front), (coronal, right, above), (sagittal, front, above)):
        rows, columns = np.nonzero(plane)
        assert len(rows) > 20
        assert (columns.mean() < plane.shape[1] / 2) == on_the_left
        assert (rows.mean() < plane.shape[0] / 2) == on_top
