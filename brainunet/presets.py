"""Networks by name: plain numbers, so that adding one is adding a line."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

WIDTHS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "brainunet": (64, 128, 256, 512),  # the paper's: 22.8 M parameters, 91 MB
        "brainunet-fast": (32, 64, 128, 256, 512),  # as many parameters, about a quarter of the arithmetic
        "brainunet-lite": (32, 64, 128, 256),
        "brainunet-nano": (8, 16, 32, 64),  # for demonstrations and tests
    }
)
