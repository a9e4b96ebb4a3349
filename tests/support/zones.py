"""Machines in other time zones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

LAGOS = "WAT-1"  # as POSIX writes it: an hour before UTC, all the year


@contextmanager
def machine_in(zone: str) -> Iterator[None]:
    """This process is in another time zone while the block runs."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()
