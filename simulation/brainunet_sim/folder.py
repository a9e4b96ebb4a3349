"""The output folder of a simulation: whose it is, and what may be removed from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from brainunet.errors import UsageError

# what a folder of a simulation may hold; --overwrite removes nothing else
MADE_HERE = (
    *("sites.json", "summary.json", "dice.png", "models", "phantoms", "work", "cache"),
    *("store.sqlite", "store.sqlite-wal", "store.sqlite-shm"),
    "config.json",  # last: it marks the folder as ours
)


def take_folder(out: Path, overwrite: bool, needed: Iterable[Path | None]) -> None:
    """Make ``out`` a folder for a new simulation, emptied of an earlier one if ``overwrite``.

    Raises:
        UsageError: it holds one, or other files, or some that are needed, or can't be read or emptied.
    """
    try:
        _require_free(out, overwrite, needed)
        for path in (out / name for name in MADE_HERE):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            out,
            found=error.strerror or "a folder that can't be used",
            expected="a folder that you may read and write",
            remedy="choose another --out",
        ) from None


def _require_free(out: Path, overwrite: bool, needed: Iterable[Path | None]) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(out, found="a file", expected="a folder", remedy="choose another --out")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names and not _is_ours(out):
        raise UsageError(
            out,
            found="a folder with other files in it",
            expected="a new or empty folder, or one of an earlier simulation",
            remedy="choose another --out",
        )
    if "sites.json" in names and not overwrite:  # without it, nothing was begun but reading cases
        raise UsageError(
            out,
            found="a simulation begun earlier",
            expected="a new folder",
            remedy="go on with it by --resume, begin anew by --overwrite, or choose another --out",
        )
    for path in needed:
        if path is not None and any(path.resolve().is_relative_to((out / name).resolve()) for name in MADE_HERE):
            raise UsageError(
                out,
                found=f"it holds {path.name}, which is needed and would be overwritten",
                expected="another folder",
                remedy="choose another --out",
            )


def _is_ours(out: Path) -> bool:
    try:
        kept = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(kept, dict) and {"run", "config_sha256"} <= kept.keys()
