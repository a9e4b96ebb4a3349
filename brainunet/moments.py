"""How times are written: a moment for people in this machine's time with its distance from UTC, for programs in UTC.

Hospitals of several time zones compare what their screens say: an hour without its zone would be another one at each.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Final

_UNITS: Final = (("day", 86_400), ("h", 3600), ("min", 60))


def local(moment: datetime, zone: tzinfo | None = None, *, seconds: bool = True) -> str:
    """For people; ``zone`` None is this machine's.

    >>> local(datetime(2026, 3, 1, 12, tzinfo=UTC), UTC), local(datetime(2026, 3, 1, 12, tzinfo=UTC), UTC, seconds=False)
    ('2026-03-01 12:00:00+00:00', '2026-03-01 12:00+00:00')
    """
    return moment.astimezone(zone).isoformat(sep=" ", timespec="seconds" if seconds else "minutes")


def day(moment: datetime, zone: tzinfo | None = None) -> str:
    """The day on which it is here; ``zone`` None is this machine's.

    >>> day(datetime(2026, 3, 1, 12, tzinfo=UTC), UTC)
    '2026-03-01'
    """
    return f"{moment.astimezone(zone):%Y-%m-%d}"


def iso(moment: datetime) -> str:
    """For programs: ISO 8601 in UTC, as the store's and the chain's.

    >>> iso(datetime(2026, 3, 1, 12, tzinfo=UTC))
    '2026-03-01T12:00:00Z'
    """
    utc = moment.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    """Its two largest units.

    >>> duration(7), duration(3725), duration(200_000)
    ('7 s', '1 h 2 min', '2 days 7 h')
    """
    left, parts = int(seconds), []
    for unit, length in _UNITS:
        number, left = divmod(left, length)
        if number:
            parts.append(f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}")
    return " ".join(parts[:2]) or f"{left} s"
