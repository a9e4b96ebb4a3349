"""Checks of the files themselves: can they be read, do they share a grid, how do they keep their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from brainunet.data.checks.facts import Facts
from brainunet.data.checks.findings import Finding, note, refusal, warning
from brainunet.data.volumes import GRID_TOLERANCE_MM

LARGEST_STEP_MM: Final = 0.2
LARGEST_RATIO: Final = 1.5
LARGEST_TILT_DEGREES: Final = 10.0
EIGHT_BITS: Final = ("int8", "uint8")
SIXTY_FOUR_BITS: Final = ("float64", "int64", "uint64")


def readable(facts: Facts) -> Sequence[Finding]:
    """Files that can't be read: 0 bytes, truncated, no NIfTI, no permission, 4D, complex, NaN or infinite, or not there.

    Error, because training refuses them. What is unreadable is decided where volumes are read (``data/volumes.py``).
    """
    return [refusal(error) for error in facts.refused.unreadable]


def same_grid(facts: Facts) -> Sequence[Finding]:
    """Files of one case with another shape or affine than its first: a voxel would be two places.

    Error, because training refuses them. The threshold is that of reading: 0.01 mm, which rounding in a header stays below
    and a shift by a tenth of a voxel does not.
    """
    return [refusal(error) for error in facts.refused.off_grid]


def not_empty(facts: Facts) -> Sequence[Finding]:
    """A case whose images are 0 everywhere. Error, because training refuses it."""
    return [refusal(error) for error in facts.refused.empty]


def spacing(facts: Facts) -> Sequence[Finding]:
    """Voxels that are not 1 mm cubes.

    Networks learn from BraTS's grid of 1 mm and take voxels as they come: on another grid every structure has another size.
    Warning beyond 0.2 mm: training scales patches by up to 0.15 either way, so 0.2 is outside of all it has seen. Where an axis
    is more than 1.5 times another the slices are called thick.
    """
    if not facts.images or max(abs(side - 1) for side in facts.spacing_mm) <= LARGEST_STEP_MM:
        return []
    sides = " x ".join(f"{side:.2f}" for side in facts.spacing_mm)
    thick = max(facts.spacing_mm) > LARGEST_RATIO * min(facts.spacing_mm)
    said = f"voxels of {sides} mm, where models are made for 1 mm" + (", in thick slices" if thick else "")
    return [warning(said, "resample the files of the case to 1 mm, as in BraTS")]


def orientation(facts: Facts) -> Sequence[Finding]:
    """Files of one case whose axes run to different sides, and qform and sform that place voxels differently.

    The first is a note: volumes are turned by their affine, so it does no harm, yet tools that ignore the affine see a
    mirrored brain. The second is a warning: we go by the sform, another program may go by the qform. The threshold is the
    0.01 mm of one grid.

    What this can't see: an image that was mirrored or turned without its header ("misoriented").
    """
    found = []
    axes = {kind: stored.axes for kind, stored in facts.stored.items()}
    if len(set(axes.values())) > 1:
        which = "; ".join(f"{', '.join(_of(axes, value))} as {value}" for value in dict.fromkeys(axes.values()))
        found.append(note(f"stored in different orientations ({which}): read by the affine, so no harm"))
    apart = {kind: mm for kind, stored in facts.stored.items() if (mm := stored.forms_apart_mm or 0) > GRID_TOLERANCE_MM}
    if apart:
        worst = max(apart.values())
        said = f"qform and sform of {', '.join(apart)} place voxels up to {worst:.3g} mm apart: the sform is used"
        found.append(warning(said, "look at the case in a viewer; export it again with one form"))
    return found


def number_type(facts: Facts) -> Sequence[Finding]:
    """Images with no more than 256 grey levels, and types that are larger than what they hold.

    8 bits are a warning: MRI has 12, so contrast was lost, often together with cut-off bright tissue. 64 bits are a note:
    the file is four times as large as int16 and nothing is gained.
    """
    types = {kind: stored.number_type for kind, stored in facts.stored.items() if kind != "seg"}
    found = []
    if coarse := [kind for kind, name in types.items() if name in EIGHT_BITS]:
        remedy = "export them again with 16 bits"
        found.append(warning(f"{', '.join(coarse)}: 8 bits a voxel, at most 256 grey levels", remedy))
    if large := [kind for kind, name in types.items() if name in SIXTY_FOUR_BITS]:
        found.append(note(f"{', '.join(large)}: 64 bits a voxel, four times the memory of int16"))
    return found


def oblique(facts: Facts) -> Sequence[Finding]:
    """Grids that do not run along the head's axes by more than 10 degrees.

    BraTS's files lie on the straight grid of an atlas; a tilted one says that registration to it was left out. Warning above
    10 degrees, which is about how far a head is tilted in a scanner: it is then the scanner's grid and no atlas's.
    """
    if not facts.images or facts.tilt_degrees <= LARGEST_TILT_DEGREES:
        return []
    said = f"the grid is tilted by {facts.tilt_degrees:.0f} degrees against the axes of the head"
    return [warning(said, "register the case to the atlas, as in BraTS")]


def _of(axes: dict[str, str], value: str) -> Iterable[str]:
    return [kind for kind, its in axes.items() if its == value]
