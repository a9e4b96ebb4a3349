"""Cases are found by their names, in any layout, and what can't be used is said in a sentence."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from brainunet.data.cases import FoundCases, convention_of, find_cases, parse_convention
from brainunet.data.centres import centre_of
from brainunet.data.volumes import read_volume
from brainunet.errors import DataError, UnreadableVolume, UnsupportedConvention
from brainunet.labels import Convention, Modality
from tests.support.cases import AFRICA, GLI_2021, assert_helps, assert_reads_well, only_case, touch_case
from tests.support.rights import open_folder, ordinary_rights

NEW_NAMES = ("t1n", "t1c", "t2w", "t2f", "seg")
OLD_NAMES = ("t1", "t1ce", "t2", "flair", "seg")


def problem_of(found: FoundCases) -> str:
    """The one problem of a folder without a usable case; it reads well."""
    assert found.cases == ()
    (problem,) = found.problems
    assert_reads_well(problem.reason, problem.case_id)
    return problem.reason


@pytest.mark.parametrize(
    ("case_id", "separator", "kinds", "convention"),
    [
        (AFRICA, "-", NEW_NAMES, Convention.BRATS2023),
        ("BraTS-GLI-00005-000", "-", NEW_NAMES, Convention.BRATS2023),
        (GLI_2021, "_", OLD_NAMES, Convention.BRATS2021),
        ("BraTS20_Training_001", "_", OLD_NAMES, Convention.BRATS2021),
    ],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_names_tell_the_case_its_files_and_its_convention(
    case_id: str, separator: str, kinds: tuple[str, ...], convention: Convention, suffix: str, tmp_path: Path
) -> None:
    touch_case(tmp_path, case_id, kinds, separator=separator, suffix=suffix)

    case = only_case(tmp_path)

    assert (case.case_id, case.convention) == (case_id, convention)
    names = [f"{case_id}{separator}{kind}{suffix}" for kind in kinds]
    assert [case.images[m].name for m in Modality] == names[:4]
    assert case.label is not None
    assert case.label.name == names[4]


def test_the_layout_of_folders_does_not_matter(tmp_path: Path) -> None:
    touch_case(tmp_path / "95_Glioma" / AFRICA, AFRICA, NEW_NAMES)
    touch_case(tmp_path / "51_OtherNeoplasms" / "deep" / "er", "BraTS-SSA-00231-000", NEW_NAMES)
    touch_case(tmp_path, GLI_2021, OLD_NAMES, separator="_")
    touch_case(tmp_path / "images", "BraTS-SSA-00007-000", NEW_NAMES[:4])
    touch_case(tmp_path / "labels", "BraTS-SSA-00007-000", NEW_NAMES[4:])

    found = find_cases(tmp_path)

    assert found.problems == ()
    assert [case.case_id for case in found.cases] == [AFRICA, "BraTS-SSA-00007-000", "BraTS-SSA-00231-000", GLI_2021]


@pytest.mark.parametrize(
    "kinds",
    [("T1N", "t1C", "t2W", "T2F", "Seg"), ("T1w", "T1Gd", "T2", "FLAIR", "SEG"), ("t1pre", "t1post", "t2w", "fla", "mask")],
)
def test_other_names_of_the_modalities_and_any_letter_case_are_understood(kinds: tuple[str, ...], tmp_path: Path) -> None:
    touch_case(tmp_path, AFRICA, kinds, suffix=".NII.GZ")

    case = only_case(tmp_path)

    assert list(case.images) == list(Modality)
    assert case.label is not None


def test_files_that_are_no_part_of_a_case_are_passed_over(tmp_path: Path) -> None:
    touch_case(tmp_path, AFRICA, (*NEW_NAMES, "brainmask", "t1c-old"))
    for name in (f"._{AFRICA}-t1c.nii.gz", "notes-t1c.txt", "atlas.nii.gz", f"{AFRICA}-t1c.nii.gz.part", "scan-9.nii"):
        (tmp_path / name).touch()

    assert list(only_case(tmp_path).images) == list(Modality)


def test_only_the_configured_modalities_are_needed_and_others_are_listed(tmp_path: Path) -> None:
    touch_case(tmp_path, AFRICA, ("t1n", "t2f", "seg"))

    case = only_case(tmp_path, modalities=(Modality.T2F,))

    assert list(case.images) == [Modality.T1N, Modality.T2F]


def test_a_case_to_segment_needs_no_label_and_no_telling_name(tmp_path: Path) -> None:
    touch_case(tmp_path, "patient7", NEW_NAMES[:4])

    case = only_case(tmp_path, need_label=False)

    assert (case.label, case.convention) == (None, Convention.BRATS2023)


@pytest.mark.parametrize("convention", Convention)
def test_a_name_that_tells_nothing_takes_the_convention_it_is_given(convention: Convention, tmp_path: Path) -> None:
    touch_case(tmp_path, "patient7", NEW_NAMES, separator="_")

    assert only_case(tmp_path, convention=convention).convention == convention


def test_the_order_is_that_of_the_ids_however_the_files_came(tmp_path: Path) -> None:
    numbers = list(range(1, 30))
    random.Random(1).shuffle(numbers)
    for number in numbers:
        touch_case(tmp_path / f"{random.Random(number).random()}", f"BraTS-SSA-{number:05d}-000", NEW_NAMES)

    assert [case.case_id for case in find_cases(tmp_path).cases] == [f"BraTS-SSA-{n:05d}-000" for n in range(1, 30)]


def test_a_bad_case_does_not_stop_the_others(tmp_path: Path) -> None:
    touch_case(tmp_path, "BraTS-SSA-00002-000", NEW_NAMES)
    touch_case(tmp_path, "BraTS-SSA-00003-000", NEW_NAMES[:2])

    found = find_cases(tmp_path)

    assert [case.case_id for case in found.cases] == ["BraTS-SSA-00002-000"]
    assert [problem.case_id for problem in found.problems] == ["BraTS-SSA-00003-000"]


# --- what can't be used -----------------------------------------------------------------------------------------------------


def test_a_missing_modality_and_a_missing_segmentation_are_both_named(tmp_path: Path) -> None:
    touch_case(tmp_path, AFRICA, ("t1n", "t1c"))

    assert f"{AFRICA}: no file for t2w, t2f, seg (has t1c, t1n), but expected" in problem_of(find_cases(tmp_path))


def test_a_link_to_a_folder_is_named_not_followed_and_not_passed_over(tmp_path: Path) -> None:
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    touch_case(elsewhere, AFRICA, NEW_NAMES)
    here.mkdir()
    (here / AFRICA).symlink_to(elsewhere, target_is_directory=True)

    assert "a link to a folder" in problem_of(find_cases(here))


def test_two_files_for_one_modality_are_both_named(tmp_path: Path) -> None:
    touch_case(tmp_path / "a", AFRICA, NEW_NAMES)
    touch_case(tmp_path / "b", AFRICA, ("t1ce",), suffix=".nii")

    assert f"2 files for t1c (a/{AFRICA}-t1c.nii.gz and b/{AFRICA}-t1ce.nii)" in problem_of(find_cases(tmp_path))


@pytest.mark.parametrize("asked", [None, *Convention])
def test_post_treatment_cases_of_2024_are_refused_whatever_was_asked_for(asked: Convention | None, tmp_path: Path) -> None:
    touch_case(tmp_path, "BraTS-GLI-00005-100", NEW_NAMES)

    assert "label 4 is the resection cavity" in problem_of(find_cases(tmp_path, convention=asked))


def test_decathlon_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "BRATS_001.nii.gz").touch()

    assert "four modalities in one 4D file" in problem_of(find_cases(tmp_path))


def test_a_name_that_does_not_tell_its_labels_asks_for_the_convention(tmp_path: Path) -> None:
    touch_case(tmp_path, "patient7", NEW_NAMES)

    assert "Say --convention brats2021 (enhancing tumour is 4) or brats2023" in problem_of(find_cases(tmp_path))


@pytest.mark.parametrize("content", ["nothing", "other files", "a file instead"])
def test_a_folder_without_cases_says_what_names_it_looks_for(content: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    if content == "a file instead":
        root.touch()
    else:
        root.mkdir()
    if content == "other files":
        (root / "report.pdf").touch()
        (root / "atlas.nii.gz").touch()

    with pytest.raises(DataError) as raised:
        find_cases(root)

    found = "Not a directory" if content == "a file instead" else "no file named like a case"
    assert_helps(raised.value, where="data", found=found, exit_code=3)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        find_cases(tmp_path / "nowhere")

    assert_helps(raised.value, where="nowhere", found="No such file or directory", exit_code=3)


def test_a_folder_without_permission_is_named_and_the_others_are_read() -> None:
    with open_folder() as folder:
        touch_case(folder / "open", AFRICA, NEW_NAMES)
        touch_case(folder / "closed", "BraTS-SSA-00003-000", NEW_NAMES)
        (folder / "closed").chmod(0)
        with ordinary_rights():
            found = find_cases(folder)
            with pytest.raises(DataError) as raised:
                find_cases(folder / "closed")
        (folder / "closed").chmod(0o755)

    assert [case.case_id for case in found.cases] == [AFRICA]
    (problem,) = found.problems
    assert problem.reason.startswith("closed: Permission denied")
    assert_reads_well(problem.reason, "closed")
    assert_helps(raised.value, where="closed", found="Permission denied", exit_code=3)


def test_a_file_without_permission_is_named() -> None:
    with open_folder() as folder:
        path = folder / f"{AFRICA}-t1c.nii.gz"
        path.write_bytes(b"closed")
        path.chmod(0)
        with ordinary_rights(), pytest.raises(UnreadableVolume) as raised:
            read_volume(path)

    assert_helps(raised.value, where=path.name, found="Permission denied", exit_code=3)


# --- conventions and centres ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["brats2021", "BraTS2023"])
def test_a_convention_is_asked_for_by_name(name: str) -> None:
    assert parse_convention(name) == Convention(name.lower())
    assert parse_convention(None) is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("brats2024", "the resection cavity"),
        ("Decathlon", "swaps labels 1 and 2"),
        ("brats2022", "'brats2022' (did you mean brats202"),
        ("fets", "'fets' (known: brats2021, brats2023)"),
    ],
)
def test_an_unknown_or_refused_convention_says_why(name: str, found: str) -> None:
    with pytest.raises(UnsupportedConvention) as raised:
        parse_convention(name)

    assert_helps(raised.value, where="--convention", found=found, exit_code=3)


def test_a_time_point_below_100_is_not_of_2024() -> None:
    assert convention_of("BraTS-GLI-00005-001") == Convention.BRATS2023
    with pytest.raises(UnsupportedConvention) as raised:
        convention_of("brats-gli-02405-101")

    assert_helps(raised.value, where="brats-gli-02405-101", found="resection cavity", exit_code=3)


@pytest.mark.parametrize(
    ("number", "centre"),
    [
        (1, None), (2, "CRV"), (81, "CRV"), (82, None), (88, None), (89, "LASUTH"), (108, "LASUTH"), (109, None),
        (110, "MEDHUB"), (122, "MEDHUB"), (123, "NKDC"), (225, "NKDC"), (226, "MEDHUB"), (230, "MEDHUB"), (231, "LILY"),
        (232, None),
    ],
)  # fmt: skip
def test_the_centre_follows_from_the_number(number: int, centre: str | None) -> None:
    assert centre_of(f"BraTS-SSA-{number:05d}-000") == centre
    assert centre_of(f"BraTS-GLI-{number:05d}-000") is None
