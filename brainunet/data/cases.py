"""Finding cases in a folder by their file names, whatever the layout of folders around them.

Known names: BraTS 2021 (``BraTS2021_00059_t1ce.nii.gz``), BraTS 2023+ and BraTS-Africa (``BraTS-SSA-00002-000-t1c.nii.gz``,
also in TCIA's ``95_Glioma/...`` layout), and any ``<case>-<modality>`` or ``<case>_<modality>`` in any letter case when the
convention is given. A modality may be two words (``T2_FLAIR``, ``t1-gd``); a file that is called by its modality alone belongs
to the case of its folder's name (``patient7/t1c.nii.gz``).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from brainunet.errors import DataError, MissingModality, UnsupportedConvention
from brainunet.labels import (
    DEFAULT_MODALITIES,
    MODALITY_ALIASES,
    REFUSED_CONVENTIONS,
    SEGMENTATION_ALIASES,
    Convention,
    Modality,
)
from brainunet.records import Case, Problem
from brainunet.settings import nearest

_NIFTI = re.compile(r"\.nii(?:\.gz)?$", re.IGNORECASE)
_LAST_WORDS = tuple(  # one word and then two, so that T2_FLAIR is found to be one
    re.compile(rf"^(?:(?P<case>.+)[-_])?(?P<kind>{word})$") for word in ("[A-Za-z0-9]+[-_][A-Za-z0-9]+", "[A-Za-z0-9]+")
)
_DECATHLON = re.compile(r"^BRATS_\d{3}\.nii(?:\.gz)?$")
_NAMES: Sequence[tuple[re.Pattern[str], Convention | str]] = (
    (re.compile(r"^BraTS-GLI-\d{5}-1\d\d$", re.IGNORECASE), "brats2024"),  # 2024's time points count from 100
    (re.compile(r"^BraTS-[A-Z]+-\d{5}-\d{3}$", re.IGNORECASE), Convention.BRATS2023),
    (re.compile(r"^BraTS(2021|20_Training|19)_.+$", re.IGNORECASE), Convention.BRATS2021),
)


@dataclass(frozen=True)
class FoundCases:
    """Cases in order of their id, and what was left out with the reason."""

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]


def parse_convention(name: str | None, option: str = "--convention") -> Convention | None:
    """The convention a person asked for by name with ``option``; None leaves it to the file names.

    Raises:
        UnsupportedConvention: unknown, or known and refused with the reason.
    """
    if name is None:
        return None
    if name.lower() in REFUSED_CONVENTIONS:
        raise _refused(option, name.lower())
    try:
        return Convention(name.lower())
    except ValueError:
        raise UnsupportedConvention(
            option,
            found=f"{name!r} ({nearest(name.lower(), list(Convention))})",
            expected=" or ".join(Convention),
            remedy="say which numbers the segmentations use: enhancing tumour is 4 in brats2021 and 3 in brats2023",
        ) from None


def convention_of(case_id: str) -> Convention | None:
    """The convention told by a case's name; None if the name tells nothing.

    >>> convention_of("BraTS2021_00059"), convention_of("BraTS-SSA-00002-000"), convention_of("patient7")
    (<Convention.BRATS2021: 'brats2021'>, <Convention.BRATS2023: 'brats2023'>, None)

    Raises:
        UnsupportedConvention: a data set whose labels mean something else.
    """
    for pattern, convention in _NAMES:
        if pattern.match(case_id):
            if isinstance(convention, Convention):
                return convention
            raise _refused(case_id, convention)
    return None


def _refused(where: str, name: str) -> UnsupportedConvention:
    return UnsupportedConvention(
        where,
        found=REFUSED_CONVENTIONS[name],
        expected="cases as in BraTS 2021 or BraTS 2023+",
        remedy="leave these files out, or convert them and name them so",
    )


def find_cases(
    root: Path,
    *,
    modalities: Sequence[Modality] = DEFAULT_MODALITIES,
    convention: Convention | None = None,
    need_label: bool = True,
) -> FoundCases:
    """All cases below ``root``; a case that can't be used is a :class:`Problem`, and the others go on.

    Only the configured modalities are required; others that are present are listed with the case all the same.

    Raises:
        DataError: ``root`` is no folder or can't be read, or nothing in it is named like a case.
    """
    files, problems = files_by_case([root], folders_only=True)
    cases: list[Case] = []
    for case_id, kinds in sorted(files.items()):
        try:
            cases.append(_case(case_id, kinds, modalities, convention, need_label))
        except DataError as error:
            problems.append(Problem(case_id, str(error)))
    if not cases and not problems:
        raise no_case(root)
    return FoundCases(tuple(cases), tuple(problems))


def no_case(root: Path) -> DataError:
    """The refusal of a folder in which nothing is named like a case."""
    return DataError(
        root,
        found="no file named like a case",
        expected="files such as BraTS-SSA-00002-000-t1c.nii.gz or BraTS2021_00059_t1ce.nii.gz",
        remedy="point to the folder that holds the cases",
    )


def files_by_case(
    paths: Sequence[Path], *, folders_only: bool = False
) -> tuple[dict[str, dict[str, list[Path]]], list[Problem]]:
    """Case -> modality, "seg" or "" (neither) -> its files, of folders with all below them and of single files.

    Raises:
        DataError: one of ``paths`` is a folder that can't be read, or is not there.
    """
    files: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    problems: list[Problem] = []
    for path in paths:
        found, more = _files_below(path) if folders_only or not _is_file(path) else ([path], [])
        problems += more
        for file in found:
            if _DECATHLON.match(file.name):
                problems.append(Problem(file.name, str(_refused(file.name, "decathlon"))))
            elif (told := told_by_name(file)) is not None:
                case_id, kind = told
                if file not in files[case_id][kind]:
                    files[case_id][kind].append(file)
    return {case: dict(kinds) for case, kinds in files.items() if set(kinds) - {""}}, problems


def told_by_name(file: Path) -> tuple[str, str] | None:
    """The case and what of it a file is (a modality, "seg", or "" for something else); None for no NIfTI file of a case.

    >>> told_by_name(Path("Patient_T2_FLAIR.nii.gz")), told_by_name(Path("patient7/T1Gd.nii")), told_by_name(Path("atlas.nii"))
    (('Patient', 't2f'), ('patient7', 't1c'), None)
    """
    stem = _NIFTI.sub("", file.name)
    if stem in ("", file.name) or stem.startswith("."):
        return None
    for pattern in _LAST_WORDS:
        if (match := pattern.match(stem)) and (kind := _kind(match["kind"])):
            # the folder's own name, also where it was called "." or ".."; a link is not followed
            return match["case"] or Path(os.path.normpath(file.absolute())).parent.name or "case", kind
    match = _LAST_WORDS[-1].match(stem)
    return (match["case"], "") if match and match["case"] else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that may not be entered: looking into it will say so
        return False


def _files_below(root: Path) -> tuple[list[Path], list[Problem]]:
    problems: list[Problem] = []
    files: list[Path] = []

    def unreadable(error: OSError) -> None:
        if error.filename == str(root):
            raise DataError(
                root,
                found=error.strerror or "a folder that can't be read",
                expected="a folder of cases",
                remedy="check the name, and that you may read it",
            )
        name = Path(str(error.filename)).name
        problem = DataError(
            name,
            found=error.strerror or "a folder that can't be read",
            expected="a folder of cases",
            remedy="check that you may read it",
        )
        problems.append(Problem(name, str(problem)))

    for folder, subfolders, names in os.walk(root, onerror=unreadable):
        subfolders.sort()
        problems += [_not_followed(name) for name in subfolders if _leads_out(Path(folder) / name, root)]
        files += [Path(folder) / name for name in sorted(names)]
    return files, problems


def _leads_out(folder: Path, root: Path) -> bool:
    """Whether it is a link to what the search does not come to anyway."""
    return folder.is_symlink() and not folder.resolve().is_relative_to(root.resolve())


def _not_followed(name: str) -> Problem:
    """What lies outside the folder that was named was not asked for; silence would lose the cases there."""
    refused = DataError(
        name,
        found="a link to a folder, which is not followed",
        expected="the folder itself",
        remedy="point to the folder that the link leads to, or put the cases here",
    )
    return Problem(name, str(refused))


def _kind(text: str) -> str:
    name = re.sub("[-_]", "", text).lower()
    if name in SEGMENTATION_ALIASES:
        return "seg"
    return MODALITY_ALIASES[name].value if name in MODALITY_ALIASES else ""


def _case(
    case_id: str,
    kinds: dict[str, list[Path]],
    modalities: Sequence[Modality],
    convention: Convention | None,
    need_label: bool,
) -> Case:
    for kind in kinds:
        if kind:
            require_one_file(case_id, kind, kinds[kind])
    missing = [m.value for m in modalities if m.value not in kinds]
    if need_label and "seg" not in kinds:
        missing.append("seg")
    if missing:
        has = ", ".join(sorted(kind for kind in kinds if kind)) or "none"
        raise MissingModality(
            case_id,
            found=f"no file for {', '.join(missing)} (has {has})",
            expected="one file for each",
            remedy="add the file, or choose modalities that every case has",
        )
    told = convention_of(case_id)  # also refuses look-alikes, whatever was asked for
    known = convention or told
    if known is None and "seg" in kinds:
        raise UnsupportedConvention(
            case_id,
            found="a name that does not tell which numbers its segmentation uses",
            expected="a BraTS 2021 or BraTS 2023+ name",
            remedy="say --convention brats2021 (enhancing tumour is 4) or brats2023 (it is 3)",
        )
    images = {m: kinds[m.value][0] for m in Modality if m.value in kinds}
    label = kinds["seg"][0] if "seg" in kinds else None
    return Case(case_id, images, label, known or Convention.BRATS2023)


def require_one_file(case_id: str, kind: str, paths: Sequence[Path]) -> Path:
    """The file of a modality or segmentation.

    Raises:
        DataError: there are several; it names two of them.
    """
    if len(paths) > 1:
        names = " and ".join(f"{path.parent.name}/{path.name}" for path in paths[:2])
        raise DataError(
            case_id,
            found=f"{len(paths)} files for {kind} ({names})",
            expected="one",
            remedy="keep the right one and move the others out of the folder",
        )
    return paths[0]
