"""The output folder of a simulation."""

from __future__ import annotations

from typing import Final

from brainunet.folders import FolderKind

SIMULATION: Final = FolderKind(
    what="simulation",
    marks=frozenset({"run", "config_sha256"}),
    begun="sites.json",
    made_here=(
        *("sites.json", "summary.json", "dice.png", "models", "phantoms", "work", "cache"),
        *("store.sqlite", "store.sqlite-wal", "store.sqlite-shm"),
    ),
)
