"""The sheet that shows what augmentation does, as a person asks for it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import matplotlib.image as mpimg
import numpy as np
import pytest

from brainunet.cli import main as brainunet
from brainunet.config import AugmentConfig
from brainunet.data.augment import AUGMENTATIONS
from brainunet.data.phantom import write_phantoms
from tests.support.simulation import Ended, run

SMALL = ("--patch", "32", "--draws", "1")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    write_phantoms(folder, cases=2, style="gli", seed=1, shape=(40, 48, 40), centres=("CRV",))
    return folder


def preview(*arguments: str | Path) -> Ended:
    return run(brainunet, "augment-preview", *arguments)


def test_a_sheet_shows_the_patch_each_augmentation_and_draws_of_all_of_them(cases: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"

    ended = preview(cases / "BraTS-SSA-00002-000", "--out", out, *SMALL, "--json", "--set", "train.augment.blur_range_mm=[1,2]")

    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["case"] == "BraTS-SSA-00002-000"
    assert told["augment"] == json.loads(AugmentConfig(preset="ssa", blur_range_mm=(1, 2)).model_dump_json())
    assert [title.partition(" ")[0] for title in told["tiles"]] == ["as", *AUGMENTATIONS, "all"]
    picture = mpimg.imread(out)
    assert picture.shape[0] > 300
    assert picture.shape[1] > 800
    assert len(np.unique(picture[..., 0])) > 50  # greys, not an empty frame


@pytest.mark.slow
def test_equal_seeds_give_equal_sheets_and_another_one_another(cases: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        ended = preview(cases, "--case", "BraTS-SSA-00003-000", "--out", tmp_path / name, *SMALL, "--seed", str(seed))
        assert ended.code == 0, ended.err
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")

    assert a == b
    assert a != c


def test_a_sheet_of_one_modality_says_which_other_was_dropped(cases: Path, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "sheet.png", *SMALL, "--seed", "1", "--set", 'model.modalities=["t1c","t2f"]')

    told = json.loads(preview(cases / "BraTS-SSA-00002-000", *arguments, "--json").out)

    notes = {title.partition(" ")[0]: note for title, note in zip(told["tiles"], told["notes"], strict=True)}
    assert notes["dropout"] in ("up to 1 missing, here without t1c", "up to 1 missing, here without t2f")
    assert not any("without" in notes[name] for name in ("as", "flip", "noise"))


@pytest.mark.slow
def test_all_modalities_fit_on_one_sheet(cases: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"

    assert preview(cases / "BraTS-SSA-00002-000", "--out", out, *SMALL, "--modality", "all", "--preset", "none").code == 0

    assert mpimg.imread(out).shape[1] > 2000


@pytest.mark.slow
def test_a_model_without_flair_shows_its_first_modality(cases: Path, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "sheet.png", *SMALL, "--set", 'model.modalities=["t1n"]')

    assert preview(cases / "BraTS-SSA-00002-000", *arguments).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "--case: 2 cases in {folder} and none chosen. Name one: BraTS-SSA-00002-000, BraTS-SSA-00003-000."),
        (("--case", "BraTS-SSA-00004-000"), 2, "--case: 'BraTS-SSA-00004-000' (did you mean BraTS-SSA-0000"),
        (("--case", "BraTS-SSA-00002-000", "--modality", "t2"), 2, "--modality: 't2' (did you mean t2"),
        (("--preset", "sa"), 4, "train.augment.preset: no preset of this name (did you mean ssa?) (found 'sa')"),
        (("--patch", "50"), 4, "train.patch.0: must be a multiple of 8 (found 50)"),
        (("--set", "train.augment.noise_range=[1,0]"), 4, "noise_range: goes from 1.0 down to 0.0: write the smaller number"),
        (("--set", "train.augment.noise=1"), 4, "train.augment.noise is not a known setting (did you mean noise_range?)"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_sentence(
    arguments: tuple[str, ...], code: int, words: str, cases: Path, tmp_path: Path
) -> None:
    ended = preview(cases, "--out", tmp_path / "sheet.png", *arguments)

    assert ended.code == code, ended.err
    assert words.format(folder=cases.name) in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_case_without_its_segmentation_is_refused_with_the_reason(cases: Path, tmp_path: Path) -> None:
    for path in (cases / "BraTS-SSA-00002-000").glob("*.nii.gz"):
        if "seg" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())

    ended = preview(tmp_path, "--out", tmp_path / "sheet.png")

    assert ended.code == 3
    assert "no file for seg" in ended.err


@pytest.mark.real
@pytest.mark.slow
def test_a_real_case_is_drawn(tmp_path: Path) -> None:
    folder = os.environ.get("BRAINUNET_REAL_CASES")
    if not folder:
        pytest.skip("BRAINUNET_REAL_CASES names no folder of real cases")
    case = next(path for path in sorted(Path(folder).rglob("BraTS*")) if path.is_dir())

    ended = preview(case, "--out", tmp_path / "sheet.png", "--draws", "2")

    assert ended.code == 0, ended.err
