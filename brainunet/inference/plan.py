"""One pass or windows, decided before anything large is allocated: what each would need, and what there is (docs/adr/0023)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from brainunet.config import ValidationConfig, Way, Window
from brainunet.errors import ConfigError
from brainunet.presets import WIDTHS

SMALLEST_SIDE: Final = 32
SIDE_STEP: Final = 16

MB: Final = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What a process takes at most: ``base_bytes``, so many times the weights, and for each value of the network's widest
    map (voxels of a pass, padded, times channels) so many bytes. Fitted to peaks measured by benchmarks/inference.py."""

    base_bytes: int
    weights: float
    per_value: float


COSTS: Final[Mapping[tuple[str, str], Cost]] = MappingProxyType(
    {
        ("openvino", "bf16"): Cost(300 * MB, 3.0, 10.0),
        ("openvino", "fp32"): Cost(300 * MB, 3.0, 20.0),
        ("torch", "bf16"): Cost(500 * MB, 3.0, 24.0),
        ("torch", "fp32"): Cost(500 * MB, 3.0, 36.0),
    }
)
BASELINE_CHANNELS: Final = 128  # of the widest map of the networks that are not ours, MedNeXt's expansion counted
PER_VOXEL: Final = 4 * (
    3 * 4 + 2 * 4
)  # of the whole image, float32: logits, their sum, probabilities; the image, and turned over


class TooLarge(ConfigError):
    """It does not fit into memory; a smaller image may."""


@dataclass(frozen=True)
class Plan:
    """``window`` None: one pass."""

    window: Window | None
    estimated_bytes: int
    warnings: tuple[str, ...] = ()

    @property
    def way(self) -> Way:
        return "one-pass" if self.window is None else "windows"


@dataclass(frozen=True)
class Needs:
    """What a model needs on an engine, as numbers.

    Attributes:
        preset: of the network.
        weight_bytes: in float32.
        cost: a line of COSTS.
    """

    preset: str
    weight_bytes: int
    cost: Cost

    def bytes_for(self, size: Sequence[int], window: Window | None) -> int:
        """An estimate of the most memory that the program takes for an image of ``size`` (X, Y, Z)."""
        widths = WIDTHS.get(self.preset)
        channels, stride = (BASELINE_CHANNELS, 32) if widths is None else (widths[0], 2 ** (len(widths) - 1))
        shown = size if window is None else [min(pair) for pair in zip(window, size, strict=True)]
        values = channels * math.prod(-(-side // stride) * stride for side in shown)
        cost = self.cost
        return round(cost.base_bytes + cost.weights * self.weight_bytes + cost.per_value * values + PER_VOXEL * math.prod(size))


def plan(
    needs: Needs,
    size: Sequence[int],
    *,
    usually: Way = "windows",
    way: Way | None = None,
    window: Window | None = None,
    limit: int | None = None,
    beside: int = 0,
) -> Plan:
    """How to predict an image of ``size`` (X, Y, Z).

    Args:
        usually: where nobody chose a way; windows where one pass does not fit. A prediction should be made as the model was
            scored: one that was trained on patches does worse in one pass over a whole brain (docs/adr/0009 and 0023).
        way: that was chosen, whatever the model's.
        window: sides that were asked for; None takes those of validation, or smaller ones where these do not fit.
        limit: bytes that the program may take; None knows of no limit.
        beside: bytes that its caller needs while the network is in memory.

    Raises:
        TooLarge: what was asked for does not fit, or not even the smallest window.
    """
    if limit is None:
        limit = 2**63
    if (way or usually) == "one-pass":
        whole = Plan(None, needs.bytes_for(size, None) + beside)
        if whole.estimated_bytes <= limit:
            return whole
        if way == "one-pass":
            raise _too_large("one pass", whole.estimated_bytes, limit, "choose windows (--way windows)")
        said: tuple[str, ...] = ("in windows, though the model was scored in one pass: that needs more memory than there is",)
    else:
        said = ()
    usual = window or ValidationConfig().window
    assert usual is not None
    choices = [usual] if window else [usual, *_smaller(usual)]
    for choice in choices:
        bytes_needed = needs.bytes_for(size, choice) + beside
        if bytes_needed <= limit:
            return Plan(choice, bytes_needed, said if choice == usual else (*said, _shrunk(choice, usual)))
    raise _too_large(
        f"a window of {_sides(choices[-1])} voxels",
        bytes_needed,
        limit,
        "close other programs, allow more (--max-memory), or take a smaller network"
        + (" or window" if window is not None else ""),
    )


def _smaller(window: Window) -> list[Window]:
    largest = max(window)
    sides = itertools.takewhile(lambda side: side >= SMALLEST_SIDE, itertools.count(largest - SIDE_STEP, -SIDE_STEP))
    return [(min(window[0], side), min(window[1], side), min(window[2], side)) for side in sides]


def _shrunk(window: Window, usual: Window) -> str:
    return f"windows of {_sides(window)} voxels instead of {_sides(usual)}, which need more memory than there is"


def _sides(window: Sequence[int]) -> str:
    return " x ".join(str(side) for side in window)


def require_room(needs: Needs, beside: int, limit: int | None) -> None:
    """Pass if there is room for ``beside`` bytes of images and the smallest network.

    Raises:
        TooLarge: there is none.
    """
    needed = needs.bytes_for((1, 1, 1), None) + beside
    if limit is not None and needed > limit:
        raise _too_large("a case with so many voxels", needed, limit, "close other programs, or allow more (--max-memory)")


def _too_large(what: str, needed: int, limit: int, remedy: str) -> TooLarge:
    return TooLarge(
        "memory",
        found=f"{what} needs about {needed / 1e9:.1f} GB",
        expected=f"at most {limit / 1e9:.1f} GB, which is what there is or what was allowed",
        remedy=remedy,
    )
