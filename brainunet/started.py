"""How long ago this program was started, its interpreter and its imports counted: what a person has waited for."""

from __future__ import annotations

import os
import time
from pathlib import Path


def seconds_since_start(root: Path = Path("/")) -> float | None:
    """Of this process; None where the system (not Linux) does not say. ``root`` is where /proc begins."""
    try:
        told = (root / "proc/self/stat").read_text(encoding="utf-8", errors="replace")
        ticks = int(told.rpartition(")")[2].split()[19])  # field 22; the second one is in brackets
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, LookupError, AttributeError):
        return None
    return seconds if seconds >= 0 else None
