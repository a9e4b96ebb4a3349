"""A grid finer than the network's: what is planned for covers what is taken, and what doesn't fit is told before it is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet.cli import main as brainunet
from brainunet.config import PreprocessConfig
from brainunet.data.volumes import read_volume
from brainunet.data.written_volumes import write_volume_like, write_volumes_like
from brainunet.inference.prediction import entropy_of, largest
from brainunet.labels import Modality
from brainunet.memory import peak_memory
from brainunet.prediction import grid, slabs
from brainunet.prediction.grid import maps_on_files_grid, probabilities_on_files_grid, read_case
from brainunet.prediction.room import bytes_beside
from brainunet.starter import STARTER
from tests.support.balls import THREE, ball, ball_case, nib
from tests.support.predictions import predict
from tests.support.simulation import run

FINE = (300, 320, 280)  # 27 million voxels of 0.5 mm


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fine")
    write_fine(folder, np.dtype(np.int16))
    return folder


def write_fine(folder: Path, dtype: np.dtype[Any]) -> None:
    """A brain of 65 mm with a tumour of 20 mm, as three files that are not compressed."""
    sides = np.full(3, 0.5)
    brain, tumour = (ball(FINE, sides, radius) for radius in (65.0, 20.0))
    for number, modality in enumerate(THREE):
        image = (np.random.default_rng(number).integers(50, 90, FINE, np.uint8) * brain).astype(dtype)
        image[tumour] += 100
        nib.save(nib.Nifti1Image(image, np.diag([0.5, 0.5, 0.5, 1.0])), folder / f"P1-{modality.value}.nii")


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "more"), [("int16", ()), ("float64", ("--probabilities",))])
def test_the_estimate_covers_what_a_case_of_half_a_millimetre_takes(
    fine: Path, tmp_path: Path, dtype: str, more: tuple[str, ...]
) -> None:
    data = fine
    if dtype == "float64":
        data = tmp_path / "data"
        data.mkdir()
        write_fine(data, np.dtype(dtype))
    command = [sys.executable, "-c", "from brainunet.cli import main; main()", "predict", "-i", str(data)]
    known = ["-o", str(tmp_path / "out"), "--model", str(STARTER), "--engine", "torch", "--precision", "fp32", "--demo", *more]

    subprocess.run([*command, *known], check=True, stdout=subprocess.DEVNULL)  # a process has only one peak

    report = json.loads((tmp_path / "out" / "P1" / "run_report.json").read_text())
    estimated = report["engine"]["estimated_memory_bytes"]
    assert estimated / 3 < report["peak_memory_bytes"] <= estimated


def test_what_does_not_fit_is_told_before_it_is_read(fine: Path, tmp_path: Path) -> None:
    known = ("--model", STARTER, "--engine", "torch", "--demo", "--max-memory", "700MB")

    ended = run(brainunet, "predict", "-i", fine, "-o", tmp_path / "out", *known)

    assert ended.code == 3
    assert "a case with so many voxels needs about 0.9 GB, but expected at most 0.7 GB" in ended.err
    assert "allow more (--max-memory)" in ended.err


def test_a_case_that_does_not_fit_is_left_out_and_the_others_go_on(fine: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    ball_case(data, np.eye(4), (40, 42, 44), "P0")
    for path in fine.iterdir():
        (data / path.name).symlink_to(path)

    ended = predict(data, tmp_path / "out", "--max-memory", "700MB")

    assert ended.code == 3
    assert "1 of 2 could not be segmented" in ended.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["P0"]


def test_more_voxels_and_wider_ones_need_more(fine: Path, tmp_path: Path) -> None:
    few = list(ball_case(tmp_path, np.eye(4), (40, 42, 44)).images.values())
    many = sorted(fine.iterdir())
    wide = tmp_path / "wide.nii"
    nib.save(nib.Nifti1Image(np.zeros(FINE, np.float64), np.diag([0.5, 0.5, 0.5, 1.0])), wide)

    assert bytes_beside("P1", few) < bytes_beside("P1", many) < bytes_beside("P1", [*many[:2], wide])


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (0.8, 1.3, 3.0)])
def test_slabs_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, ...]) -> None:
    shape = tuple(int(np.ceil(44 / side)) for side in spacing)
    case = ball_case(tmp_path, np.diag([*spacing, 1.0]), shape)  # type: ignore[arg-type]
    made: dict[int, tuple[Any, ...]] = {}
    for most in (10**9, 3000):
        monkeypatch.setattr(grid, "slabs", lambda shape, axis=0, most=most: slabs.slabs(shape, axis, most))
        read = read_case(case, THREE, PreprocessConfig())
        chances = np.random.default_rng(0).dirichlet(np.ones(4), read.image.shape[1:]).astype(np.float32)
        chances = np.ascontiguousarray(np.moveaxis(chances, -1, 0))
        labels, entropy = maps_on_files_grid(chances, read)
        made[most] = (read.image, labels, entropy, *probabilities_on_files_grid(chances, read))

    for whole, in_slabs in zip(*made.values(), strict=True):
        np.testing.assert_array_equal(whole, in_slabs)
    _, labels, entropy, *maps = made[3000]
    np.testing.assert_array_equal(labels, largest(maps))
    assert entropy is not None
    np.testing.assert_array_equal(entropy, np.rint(entropy_of(maps) * 255))


def test_maps_written_one_after_the_other_are_read_as_one_volume_of_four_axes(tmp_path: Path) -> None:
    like = ball_case(tmp_path, np.diag([-1.0, 1.0, 2.0, 1.0]), (40, 42, 30)).images[Modality.T1C]
    maps = np.random.default_rng(0).random((4, 40, 42, 30), np.float32)

    write_volumes_like(tmp_path / "p.nii.gz", like, iter(maps), 4)

    read = nib.as_closest_canonical(nib.load(tmp_path / "p.nii.gz"))
    np.testing.assert_array_equal(np.moveaxis(np.asarray(read.dataobj), -1, 0), maps)
    write_volume_like(tmp_path / "one.nii.gz", like, maps[2])
    np.testing.assert_array_equal(read_volume(tmp_path / "one.nii.gz").array, maps[2])


def test_the_peak_of_a_program_is_its_own_and_not_that_of_who_started_it() -> None:
    ballast = np.ones(60_000_000)  # 480 MB in the process that starts it
    program = "from brainunet.memory import peak_memory; print(peak_memory())"

    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert ballast.all()
    assert 5_000_000 < int(told) < 200_000_000


def test_without_proc_the_peak_is_what_the_system_counts(tmp_path: Path) -> None:
    counted = peak_memory(tmp_path)
    assert counted is not None
    assert counted >= (peak_memory() or 0) * 0.9
