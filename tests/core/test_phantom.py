"""What made-up cases promise to the rest of the project."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from brainunet.data.centres import CENTRES, centre_of
from brainunet.data.made_up import MARK, is_made_up
from brainunet.data.phantom import STYLES, Phantom, make_phantom, write_phantoms
from brainunet.data.phantom_scanner import SCANNERS
from brainunet.data.volumes import description_of, read_volume
from brainunet.data.written_volumes import write_volume
from brainunet.errors import UsageError
from brainunet.labels import LABELS, REGIONS, Label, Modality, Region
from tests.support.cases import only_case

SMALL = (48, 48, 48)


def made(seed: int, *, shape: tuple[int, int, int] = SMALL, style: str = "gli", centre: str = "CRV") -> Phantom:
    return make_phantom(np.random.default_rng(seed), shape, style, centre)


def brain_of(phantom: Phantom) -> npt.NDArray[np.bool_]:
    return np.asarray(phantom.images[Modality.T1N] != 0)


def region_of(phantom: Phantom, region: Region) -> npt.NDArray[np.bool_]:
    return np.isin(phantom.label, REGIONS[region])


def z_scored(phantom: Phantom, modality: Modality) -> npt.NDArray[np.float64]:
    """Values of the brain's voxels (N,) with mean 0 and deviation 1."""
    values = phantom.images[modality][brain_of(phantom)].astype(float)
    return np.asarray((values - values.mean()) / values.std())


@pytest.mark.parametrize("style", STYLES)
def test_the_same_seed_writes_the_same_bytes(style: str, tmp_path: Path) -> None:
    written = []
    for name in ("once", "again"):
        write_phantoms(tmp_path / name, cases=1, style=style, seed=3, shape=SMALL)
        written.append({path.name: path.read_bytes() for path in sorted((tmp_path / name).rglob("*.nii.gz"))})

    assert len(written[0]) == 5
    assert written[0] == written[1]


def test_another_seed_or_style_is_another_patient(tmp_path: Path) -> None:
    labels = []
    for name, style, seed in (("a", "gli", 1), ("b", "gli", 2), ("c", "ssa", 1)):
        (case_id,) = write_phantoms(tmp_path / name, cases=1, style=style, seed=seed, shape=SMALL)
        labels.append((tmp_path / name / case_id / f"{case_id}-seg.nii.gz").read_bytes())

    assert len(set(labels)) == 3


def test_a_case_does_not_depend_on_how_many_are_written(tmp_path: Path) -> None:
    few = write_phantoms(tmp_path / "few", cases=2, style="ssa", seed=5, shape=(32, 32, 32))
    many = write_phantoms(tmp_path / "many", cases=4, style="ssa", seed=5, shape=(32, 32, 32))

    assert many[:2] == few
    for case_id in few:
        for path in (tmp_path / "few" / case_id).iterdir():
            assert path.read_bytes() == (tmp_path / "many" / case_id / path.name).read_bytes()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shape", [(64, 64, 64), (40, 48, 36)])
def test_background_is_zero_brain_is_not_and_no_face_is_touched(style: str, shape: tuple[int, int, int]) -> None:
    for seed in range(2):
        phantom = made(seed, shape=shape, style=style, centre="NKDC")
        brain = brain_of(phantom)

        assert set(phantom.images) == set(Modality)
        for image in phantom.images.values():
            assert image.dtype == np.int16
            assert image.shape == shape
            np.testing.assert_array_equal(image != 0, brain)
        inside = np.zeros(shape, bool)
        inside[2:-2, 2:-2, 2:-2] = True
        assert not (brain & ~inside).any()
        assert 0.1 < brain.mean() < 0.5


def test_clean_voxels_are_positive_and_a_few_worn_ones_are_negative_as_in_real_files() -> None:
    clean, worn = made(1), [made(1, style="ssa", centre=centre) for centre in SCANNERS]

    assert min(int(image.min()) for image in clean.images.values()) >= 0
    shares = [float((image[image != 0] < 0).mean()) for phantom in worn for image in phantom.images.values()]
    assert 0 < max(shares) < 0.03


def test_necrosis_lies_in_the_core_the_core_in_the_whole_tumour_and_that_in_the_brain() -> None:
    lacking_et, count = 0, 12
    for seed in range(count):
        phantom = made(seed)
        whole, core = region_of(phantom, Region.WT), region_of(phantom, Region.TC)
        has_et = bool(region_of(phantom, Region.ET).any())
        lacking_et += not has_et

        assert phantom.label.dtype == np.uint8
        assert set(np.unique(phantom.label)) <= set(LABELS)
        assert not (whole & ~brain_of(phantom)).any()
        assert core.any()
        assert not (ndimage.binary_dilation(core) & ~whole).any()
        if has_et:
            assert not (ndimage.binary_dilation(phantom.label == Label.NETC) & ~core).any()
        assert 0.005 < whole.sum() / brain_of(phantom).sum() < 0.12
    assert 0 < lacking_et < count


@pytest.mark.slow
def test_about_a_quarter_of_the_cases_lack_enhancing_tumour_and_sides_vary() -> None:
    phantoms = [made(seed, shape=(32, 32, 32)) for seed in range(80)]
    lacking_et = sum(Label.ET not in phantom.label for phantom in phantoms)
    left = sum(ndimage.center_of_mass(phantom.label > 0)[0] > 15.5 for phantom in phantoms)

    assert 8 <= lacking_et <= 34  # a fair draw of 80 at 0.25 leaves this range once in 10 000
    assert 22 <= left <= 58


def test_each_tissue_has_its_look_in_clean_images() -> None:
    mean: dict[tuple[Modality, Label], list[float]] = {}
    for seed in range(8):
        phantom = made(seed)
        label = phantom.label[brain_of(phantom)]
        for modality in Modality:
            values = z_scored(phantom, modality)
            for tissue in np.unique(label):
                mean.setdefault((modality, Label(tissue)), []).append(float(values[label == tissue].mean()))
    look = {key: float(np.mean(values)) for key, values in mean.items()}

    assert look[Modality.T1C, Label.ET] > 1.2 > look[Modality.T1C, Label.SNFH] > look[Modality.T1C, Label.NETC]
    assert look[Modality.T1N, Label.NETC] < -0.5
    assert look[Modality.T2F, Label.SNFH] > 1.2
    assert look[Modality.T2W, Label.SNFH] > look[Modality.T2W, Label.BACKGROUND]


def test_a_head_is_the_same_in_every_scanner_and_the_scanner_has_a_signature() -> None:
    clean = [made(seed) for seed in range(2)]
    signatures = {}
    for centre in CENTRES:
        heads = []
        for seed in range(2):
            worn = made(seed, style="ssa", centre=centre)
            np.testing.assert_array_equal(worn.label, clean[seed].label)
            rank = np.argsort(np.argsort(z_scored(clean[seed], Modality.T1N))) / brain_of(worn).sum()
            tissues = (rank < 0.1, (rank > 0.3) & (rank < 0.5), rank > 0.7)  # mostly fluid, grey and white matter
            heads.append([[z_scored(worn, modality)[t].mean() for t in tissues] for modality in Modality])
        signatures[centre] = np.mean(heads, axis=0)

    assert set(SCANNERS) == set(CENTRES)
    for a, b in combinations(CENTRES, 2):
        assert np.abs(signatures[a] - signatures[b]).max() > 0.1


def test_neighbouring_slices_of_worn_images_are_alike_because_they_come_from_one_thick_slice() -> None:
    def equal_to_the_slice_above(phantom: Phantom) -> float:
        brain = brain_of(phantom)
        both = brain[:, :, 1:] & brain[:, :, :-1]
        flair = phantom.images[Modality.T2F]
        return float((flair[:, :, 1:] == flair[:, :, :-1])[both].mean())

    assert equal_to_the_slice_above(made(2, shape=(64, 64, 64))) < 0.05
    assert equal_to_the_slice_above(made(2, shape=(64, 64, 64), style="ssa", centre="NKDC")) > 0.4


@pytest.mark.parametrize("style", STYLES)
def test_no_threshold_on_flair_finds_the_tumours(style: str) -> None:
    thresholds = np.linspace(-1, 4, 51)
    dice = []
    for seed in range(6):
        phantom = made(seed, style=style, centre=("CRV", "MEDHUB", "NKDC")[seed % 3])
        truth = phantom.label[brain_of(phantom)] > 0
        found = z_scored(phantom, Modality.T2F) > thresholds[:, None]
        dice.append(2 * (found & truth).sum(axis=1) / (found.sum(axis=1) + truth.sum()))

    assert np.mean(dice, axis=0).max() < 0.75


def test_files_read_back_as_one_case_in_the_orientation_of_brats(tmp_path: Path) -> None:
    told: list[str] = []
    case_ids = write_phantoms(tmp_path, cases=1, style="gli", seed=0, shape=(40, 48, 36), on_case=told.append)

    assert case_ids == told == ["BraTS-SSA-00002-000"]
    case_id = case_ids[0]
    names = {path.name for path in (tmp_path / case_id).iterdir()}
    assert names == {f"{case_id}-{kind}.nii.gz" for kind in (*Modality, "seg")}
    volume = read_volume(tmp_path / case_id / f"{case_id}-t2f.nii.gz")
    drawn = make_phantom(np.random.default_rng([0, 0, 2]), (40, 48, 36), "gli", "CRV").images[Modality.T2F]
    np.testing.assert_array_equal(volume.array, drawn[::-1, ::-1])  # LPS in the file, RAS in the project
    assert volume.spacing_mm == (1.0, 1.0, 1.0)


def test_cases_go_round_the_centres_with_numbers_of_their_own(tmp_path: Path) -> None:
    case_ids = write_phantoms(tmp_path, cases=5, style="gli", seed=0, shape=(32, 32, 32), centres=("LILY", "CRV", "NKDC"))

    assert [centre_of(case_id) for case_id in case_ids] == ["LILY", "CRV", "NKDC", "CRV", "NKDC"]
    assert len(set(case_ids)) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"style": "sa"}, "did you mean ssa"),
        ({"centres": ("NKCD",)}, "did you mean NKDC"),
        ({"cases": 0}, "expected 1 to 201, the case numbers of CRV, MEDHUB, NKDC"),
        ({"cases": 2, "centres": ("LILY",)}, "expected 1 to 1, the case numbers of LILY"),
        ({"cases": 1, "centres": ()}, "no centre"),
        ({"seed": -1}, "expected 0 or more"),
        ({"shape": (31, 64, 64)}, "31x64x64, but expected three sides of 32 to 256 voxels"),
        ({"shape": (64, 64, 257)}, "32 to 256"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_written(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    wish: dict[str, Any] = {"cases": 1, "style": "ssa", "seed": 0, "shape": SMALL} | change

    with pytest.raises(UsageError, match=words):
        write_phantoms(tmp_path / "out", **wish)

    assert not (tmp_path / "out").exists()


def test_make_phantom_refuses_what_write_phantoms_refuses() -> None:
    rng = np.random.default_rng(0)
    for shape, style, centre in ((SMALL, "glioma", "CRV"), (SMALL, "ssa", "CVR"), ((16, 48, 48), "gli", "CRV")):
        with pytest.raises(UsageError):
            make_phantom(rng, shape, style, centre)


def test_every_file_says_that_it_is_made_up_and_one_of_them_is_enough(tmp_path: Path) -> None:
    (case_id,) = write_phantoms(tmp_path, cases=1, style="gli", seed=0, shape=(32, 32, 32))
    case = only_case(tmp_path)
    assert {description_of(path) for path in (tmp_path / case_id).iterdir()} == {MARK}

    for path in (tmp_path / case_id).iterdir():
        volume = read_volume(path)
        if path != case.label:
            write_volume(path, volume.array, volume.affine)  # as another program would
    assert is_made_up(case)
    assert case.label is not None
    write_volume(case.label, read_volume(case.label).array, read_volume(case.label).affine, description=f"not a {MARK}"[:80])
    assert not is_made_up(case)


def test_a_patients_files_are_never_overwritten_and_made_up_ones_are(tmp_path: Path) -> None:
    def write() -> None:
        write_phantoms(tmp_path, cases=1, style="gli", seed=0, shape=(32, 32, 32))

    write()
    write()
    seg = tmp_path / "BraTS-SSA-00002-000" / "BraTS-SSA-00002-000-seg.nii.gz"
    for content in (b"", _unmarked(seg)):
        seg.write_bytes(content)
        with pytest.raises(UsageError, match=f"{seg.name}, which is not made up"):
            write()
        assert seg.read_bytes() == content


def _unmarked(path: Path) -> bytes:
    volume = read_volume(path)
    write_volume(path, volume.array, volume.affine)
    return path.read_bytes()
