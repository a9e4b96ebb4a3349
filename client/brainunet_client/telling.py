"""What the running client says on the hospital's screen: one line, with the time."""

from __future__ import annotations

import sys
from datetime import datetime


def tell(words: str) -> None:
    sys.stdout.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {words}\n")
    sys.stdout.flush()
