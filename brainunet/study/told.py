"""The Dice of a scoring in words that say what each mean stands on.

Where a case has none of a region, a model that finds none scores 1 (docs/adr/0005): "ET 1.000" may be the figure of a model
that finds nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from brainunet.records import Structure

if TYPE_CHECKING:
    from brainunet.study.fit import Scored

REGIONS: Final[tuple[Structure, ...]] = ("ET", "TC", "WT")


def dice_of(scored: Scored) -> dict[Structure, float | None]:
    """Mean Dice of each region; None without a validation case that has it."""
    means = {row.structure: row.mean for row in scored.score.rows if row.metric == "dice"}
    return {region: means.get(region) for region in REGIONS}


def words_of(dice: Mapping[Structure, float | None], cases: int, empty: Mapping[Structure, int]) -> str:
    """Mean Dice of the regions over ``cases``, of which the truths of ``empty`` have none of a region.

    >>> words_of({"ET": 1.0, "TC": 0.75, "WT": 0.5}, 3, {"ET": 3, "TC": 1, "WT": 0})
    'Dice ET in no case, TC 0.750 (1 case without), WT 0.500; mean of 3 cases'
    >>> words_of({"ET": None, "TC": None, "WT": None}, 0, {"ET": 0, "TC": 0, "WT": 0})
    'no validation case'
    """
    told = [f"{region} {figure_of(mean, cases, empty[region])}" for region, mean in dice.items() if mean is not None]
    if not told:
        return "no validation case"
    return f"Dice {', '.join(told)}; " + ("one case" if cases == 1 else f"mean of {cases} cases")


def figure_of(mean: float | None, cases: int, empty: int) -> str:
    """One region's mean with what it stands on; a region that no case has is not given a figure."""
    if mean is None:
        return "none"
    return "in no case" if empty == cases else f"{mean:.3f}{without(empty)}"


def without(empty: int) -> str:
    """Words to stand behind a mean over cases of which so many have none of the region; nothing where all have it."""
    return f" ({empty} case{'s' * (empty != 1)} without)" if empty else ""
