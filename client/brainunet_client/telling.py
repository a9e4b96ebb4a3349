"""What the running client says on the hospital's screen: one line, with the time."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from brainunet.moments import local


def tell(words: str) -> None:
    sys.stdout.write(f"{local(datetime.now(UTC))} {words}\n")
    sys.stdout.flush()
