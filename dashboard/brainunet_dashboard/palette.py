"""Which colour, dash and mark a site has on every page, and which colour an outcome: told apart by the colour-blind too.

The colours are Okabe and Ito's without black and yellow, of which one can't be seen on a dark page and one not on a light one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKS: Final = ("circle", "square", "diamond", "triangle-up", "cross", "star")
PATTERNS: Final = ("", "/", ".", "x", "-", "+")
GREY: Final = "#808080"

OUTCOME_COLOURS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "answered": "#009E73",
        "withheld": "#56B4E9",
        "late": "#E69F00",
        "refused": "#CC79A7",
        "fault": "#D55E00",
        "absent": "#707070",
        "not asked": "rgba(128,128,128,0.18)",
    }
)
OUTCOME_LETTERS: Final[Mapping[str, str]] = MappingProxyType(
    {"answered": "", "withheld": "W", "late": "L", "refused": "R", "fault": "F", "absent": "A", "not asked": ""}
)


@dataclass(frozen=True)
class Look:
    """How a line is drawn, or an area: beyond six sites the dash, the mark and the pattern tell those of one colour apart."""

    colour: str
    dash: str = "solid"
    mark: str = "circle"
    pattern: str = ""


def look(place: int) -> Look:
    """Of the ``place``-th site or run; after 36 they begin again.

    >>> look(0).colour == look(6).colour, look(0).dash == look(6).dash
    (True, False)
    """
    row = place // len(COLOURS) % len(DASHES)
    return Look(COLOURS[place % len(COLOURS)], DASHES[row], MARKS[row], PATTERNS[row])


def looks(names: Sequence[str]) -> Mapping[str, Look]:
    """Name -> look, by the order of ``names``; of sites that is the order in which they first came, so none ever changes."""
    return {name: look(place) for place, name in enumerate(names)}
