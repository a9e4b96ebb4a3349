"""The environment variables that Flower reads when it is imported, set in one place, each with its reason."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 2**20

SETTINGS: Final = {
    # nothing but what the ledger names leaves a hospital
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    # 5 MB chunks, two at a time, hardly finish within an HTTP timeout at 512 kbit/s, and what a cut interrupts is sent again;
    # at 64 KB/s one of these takes 16 s, and smaller ones cost more requests than bytes
    "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(CHUNK_BYTES),
    "FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES": "1",
}


def prepare_flower(home: Path) -> None:
    """Set what Flower reads; call before it is imported. ``home`` is for its own files."""
    os.environ.update(SETTINGS, FLWR_HOME=str(home))
