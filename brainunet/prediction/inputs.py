"""Which cases are to be segmented: a folder of one or many, loose files, or one file named for each modality."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from brainunet.data.cases import FoundCases, files_by_case, no_case, require_one_file, told_by_name
from brainunet.errors import DataError, MissingModality
from brainunet.labels import Convention, Modality
from brainunet.records import Case, Problem


def cases_to_segment(inputs: Sequence[Path], modalities: Sequence[Modality], accepts_missing: int = 0) -> FoundCases:
    """The cases in ``inputs``, which are folders or files; segmentations among them are not looked at.

    Args:
        accepts_missing: as many of the ``modalities`` as the model can do without; one at least is needed all the same.

    Raises:
        DataError: an input that is not there or can't be read, or nothing in them named like a case.
    """
    for path in inputs:
        if not path.exists():
            raise DataError(path, found="no such file or folder", expected="a case", remedy="check the name")
    files, problems = files_by_case(inputs)
    cases: list[Case] = []
    for case_id, kinds in sorted(files.items()):
        images = {kind: paths for kind, paths in kinds.items() if kind not in ("", "seg")}
        if not images:
            continue
        try:
            found = {Modality(kind): require_one_file(case_id, kind, paths) for kind, paths in images.items()}
            cases.append(_whole(case_id, found, modalities, accepts_missing))
        except DataError as error:
            problems.append(Problem(case_id, str(error)))
    if not cases and not problems:
        raise no_case(inputs[0])
    return FoundCases(tuple(cases), tuple(problems))


def case_of_files(images: Mapping[Modality, Path], modalities: Sequence[Modality], accepts_missing: int = 0) -> FoundCases:
    """One case of which each file was named by a person, whatever its name.

    Raises:
        MissingModality: the model needs another one too.
    """
    first = next(images[m] for m in modalities if m in images) if set(images) & set(modalities) else next(iter(images.values()))
    told = told_by_name(first)
    case_id = told[0] if told and told[1] else re.sub(r"\.nii(\.gz)?$", "", first.name, flags=re.IGNORECASE)
    return FoundCases((_whole(case_id, images, modalities, accepts_missing),), ())


def _whole(case_id: str, images: Mapping[Modality, Path], modalities: Sequence[Modality], accepts_missing: int) -> Case:
    missing = [m.value for m in modalities if m not in images]
    most = min(accepts_missing, len(modalities) - 1)
    if len(missing) > most:
        raise MissingModality(
            case_id,
            found=f"no file for {', '.join(missing)} (has {', '.join(images) or 'none'})",
            expected="one file for each modality of the model" + (f" (at most {most} may be missing)" if most else ""),
            remedy=f"add the file, or name it with --{missing[0]}",
        )
    return Case(case_id, {m: images[m] for m in modalities if m in images}, None, Convention.BRATS2023)
