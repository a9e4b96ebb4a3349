"""The hospitals that contributed BraTS-Africa, told by the case number (TCIA BraTS-Africa, DOI 10.7937/V8H6-8X67)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

CENTRES: Final[Mapping[str, tuple[range, ...]]] = MappingProxyType(
    {
        "CRV": (range(2, 82),),
        "LASUTH": (range(89, 109),),
        "MEDHUB": (range(110, 123), range(226, 231)),
        "NKDC": (range(123, 226),),
        "LILY": (range(231, 232),),
    }
)

_NUMBER = re.compile(r"^BraTS-SSA-(\d{5})-\d{3}$", re.IGNORECASE)


def centre_of(case_id: str) -> str | None:
    """The contributing centre of a BraTS-Africa case; None for any other name or number.

    >>> centre_of("BraTS-SSA-00123-000"), centre_of("BraTS2021_00123")
    ('NKDC', None)
    """
    match = _NUMBER.match(case_id)
    if match is None:
        return None
    number = int(match.group(1))
    return next((name for name, ranges in CENTRES.items() if any(number in numbers for numbers in ranges)), None)
