"""Made-up cases: skull-stripped brains with a glioma and its segmentation, for tests, demonstrations and dry runs.

Everything committed to the project rests on these and none of it on a patient. They are hard enough to show what
federated training is for: a network trained on clean phantoms (``gli``) does worse on the worn scanners of the centres
(``ssa``), each of which looks different, and fine-tuning repairs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from brainunet.data.centres import CENTRES
from brainunet.data.made_up import MARK
from brainunet.data.phantom_anatomy import make_anatomy
from brainunet.data.phantom_scanner import SCANNERS, image_at, image_clean
from brainunet.data.volumes import description_of
from brainunet.data.written_volumes import write_volume
from brainunet.errors import DataError, UsageError
from brainunet.labels import Modality
from brainunet.settings import nearest

STYLES: Final = ("gli", "ssa")
SMALLEST_SIDE: Final = 32
LARGEST_SIDE: Final = 256
DEFAULT_CENTRES: Final = ("CRV", "MEDHUB", "NKDC")


@dataclass(frozen=True, eq=False)
class Phantom:
    """One made-up case: arrays (X, Y, Z) that run left, back and up; background 0, ``label`` in ``Label`` numbers."""

    images: Mapping[Modality, npt.NDArray[np.int16]]
    label: npt.NDArray[np.uint8]


def make_phantom(rng: np.random.Generator, shape: tuple[int, int, int], style: str, centre: str) -> Phantom:
    """Draw one case. The same ``rng`` gives the same head in every style and at every centre.

    Args:
        style: "gli" (clean) or "ssa" (as the scanner of ``centre`` gives it).
        centre: a name of ``CENTRES``; "gli" takes no notice of which.

    Raises:
        UsageError: unknown style or centre, or a side below 32 or above 256.
    """
    _require_known("style", style, STYLES)
    _require_known("centre", centre, CENTRES)
    _require_shape(shape)
    anatomy = make_anatomy(rng, shape)
    images = image_clean(rng, anatomy) if style == "gli" else image_at(rng, anatomy, SCANNERS[centre])
    return Phantom(images, anatomy.label)


def write_phantoms(
    out: Path,
    *,
    cases: int,
    style: str,
    seed: int,
    shape: tuple[int, int, int],
    centres: Sequence[str] = DEFAULT_CENTRES,
    on_case: Callable[[str], None] | None = None,
) -> list[str]:
    """Write ``out/<case id>/<case id>-{t1n,t1c,t2w,t2f,seg}.nii.gz`` and give the case ids.

    Each file says in its header that it is made up (see :mod:`~brainunet.data.made_up`).

    Cases go round the centres in turn, with numbers that ``centre_of`` knows. A case depends on seed, style, shape and
    its own number only, never on how many are written. Phantoms of style "gli" have the same names: there they only
    serve to deal the cases out to sites.

    Args:
        on_case: called with each case id once the case is on disk.

    Raises:
        UsageError: unknown style or centre, fewer than 1 case or more than the centres have numbers, a negative seed,
            a side below 32 or above 256, or a file in the way that is not made up: real cases have the same names.
        BrainUNetError: the disk is full or the folder can't be written.
    """
    _require_known("style", style, STYLES)
    for centre in centres:
        _require_known("centre", centre, CENTRES)
    _require_shape(shape)
    if seed < 0:
        raise UsageError("seed", found=str(seed), expected="0 or more")
    numbers = list(islice(_numbers(centres), max(cases, 0)))
    if cases < 1 or len(numbers) < cases:
        room = sum(1 for _ in _numbers(centres))
        raise UsageError(
            "cases", found=str(cases), expected=f"1 to {room}, the case numbers of {', '.join(centres) or 'no centre'}"
        )
    affine = _affine(shape)
    for _, number in numbers:
        _require_no_patient(out, _case_id(number))
    case_ids = []
    for centre, number in numbers:
        case_id = _case_id(number)
        phantom = make_phantom(np.random.default_rng([seed, STYLES.index(style), number]), shape, style, centre)
        for modality, image in phantom.images.items():
            write_volume(_path(out, case_id, modality), image, affine, description=MARK)
        write_volume(_path(out, case_id, "seg"), phantom.label, affine, description=MARK)
        case_ids.append(case_id)
        if on_case is not None:
            on_case(case_id)
    return case_ids


def _case_id(number: int) -> str:
    return f"BraTS-SSA-{number:05d}-000"


def _path(out: Path, case_id: str, kind: str) -> Path:
    return out / case_id / f"{case_id}-{kind}.nii.gz"


def _require_no_patient(out: Path, case_id: str) -> None:
    for path in (_path(out, case_id, kind) for kind in (*Modality, "seg")):
        try:
            in_the_way = path.exists() and description_of(path) != MARK
        except (DataError, OSError):
            in_the_way = True
        if in_the_way:
            raise UsageError(
                out,
                found=f"{path.name}, which is not made up and would be overwritten",
                expected="a new folder, or one of earlier made-up cases",
                remedy="choose another folder",
            )


def _numbers(centres: Sequence[str]) -> Iterator[tuple[str, int]]:
    """(centre, case number) in turn; a centre that has run out is passed over."""
    queues = [[(centre, number) for numbers in CENTRES[centre] for number in numbers] for centre in dict.fromkeys(centres)]
    return (pair for turn in zip_longest(*queues) for pair in turn if pair is not None)


def _affine(shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Voxels of 1 mm that run left, back and up, with the middle of the grid near the origin, as in BraTS files."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = [shape[0] // 2, shape[1] // 2, -(shape[2] // 2)]
    return affine


def _require_known(what: str, name: str, known: Sequence[str] | Mapping[str, object]) -> None:
    if name not in known:
        raise UsageError(what, found=f"{name!r} ({nearest(name, known)})")


def _require_shape(shape: tuple[int, int, int]) -> None:
    if len(shape) != 3 or not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in shape):
        raise UsageError(
            "shape",
            found="x".join(map(str, shape)),
            expected=f"three sides of {SMALLEST_SIDE} to {LARGEST_SIDE} voxels",
        )
