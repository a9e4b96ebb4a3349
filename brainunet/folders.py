"""Output folders: whose one is, and what may be removed from it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from brainunet.errors import UsageError
from brainunet.files import clear_unfinished

try:
    import fcntl
except ImportError:  # Windows: a folder can't be locked there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 0.05


@dataclass(frozen=True)
class FolderKind:
    """What a folder of this kind may hold.

    Attributes:
        what: made by what, in words: "simulation".
        marks: keys that its config.json has; a folder without them is somebody else's.
        begun: the file whose presence means that more was done than reading cases.
        made_here: what ``--overwrite`` removes, and nothing else. config.json goes last: it marks the folder as ours.
        option: by which a person names such a folder.
    """

    what: str
    marks: frozenset[str]
    begun: str
    made_here: tuple[str, ...]
    option: str = "--out"


@contextmanager
def hold_folder(out: Path, kind: FolderKind, patience_s: float = 0.0) -> Iterator[bool]:
    """The block is the only work of this kind in ``out``, which is made where it is missing; the lock ends with the process.

    Another one is waited for so long, where its work is short. It is the folder itself that is locked: nothing is left behind,
    and emptying the folder changes nothing. What an earlier process that was killed left of the files it was writing is
    removed. Gives whether it could be locked.

    Raises:
        UsageError: another process works in it, or it is no folder that can be used.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY) if fcntl else None  # Windows can't open folders either
    except FileExistsError:
        raise UsageError(out, found="a file", expected="a folder", remedy=f"choose another {kind.option}") from None
    except OSError as error:
        raise _unusable(out, error, kind.option) from None
    try:
        alone = descriptor is not None and _locked(out, descriptor, kind, patience_s)
        if alone:
            try:
                left = clear_unfinished(out, {*kind.made_here, "config.json"})
            except OSError as error:
                raise _unusable(out, error, kind.option) from None
            if left:
                log.info("removed %d unfinished files of an earlier %s", len(left), kind.what)
        yield alone
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(out: Path, descriptor: int, kind: FolderKind, patience_s: float) -> bool:
    """Whether the folder is locked now; False on a disk that knows no locks of folders (some network drives).

    Raises:
        UsageError: another process holds it.
    """
    ends_at = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < ends_at:
                time.sleep(_LOOK_AGAIN_S)
                continue
            raise UsageError(
                out,
                found=f"another process works in it: a {kind.what} that is running",
                expected="one at a time",
                remedy=f"wait until it has ended or stop it, or choose another {kind.option}",
            ) from None
        except OSError as error:
            log.warning("%s can't be locked (%s): do not start a second %s in it", out, error.strerror or error, kind.what)
            return False
        return True


def take_folder(out: Path, kind: FolderKind, overwrite: bool, needed: Iterable[Path | None]) -> None:
    """Make ``out`` a folder for something new, emptied of an earlier one of its kind if ``overwrite``.

    Raises:
        UsageError: it holds one, or other files, or some that are needed, or can't be read or emptied.
    """
    try:
        _require_free(out, kind, overwrite, needed)
        for path in (out / name for name in (*kind.made_here, "config.json")):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(out, error, kind.option) from None


def _unusable(out: Path, error: OSError, option: str) -> UsageError:
    return UsageError(
        out,
        found=error.strerror or "a folder that can't be used",
        expected="a folder that you may read and write",
        remedy=f"choose another {option}",
    )


def _require_free(out: Path, kind: FolderKind, overwrite: bool, needed: Iterable[Path | None]) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(out, found="a file", expected="a folder", remedy="choose another --out")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names and not _is_ours(out, kind):
        raise UsageError(
            out,
            found="a folder with other files in it",
            expected=f"a new or empty folder, or one of an earlier {kind.what}",
            remedy="choose another --out",
        )
    if kind.begun in names and not overwrite:
        raise UsageError(
            out,
            found=f"a {kind.what} begun earlier",
            expected="a new folder",
            remedy="go on with it by --resume, begin anew by --overwrite, or choose another --out",
        )
    for path in needed:
        if path is not None and any(path.resolve().is_relative_to((out / name).resolve()) for name in kind.made_here):
            raise UsageError(
                out,
                found=f"it holds {path.name}, which is needed and would be overwritten",
                expected="another folder",
                remedy="choose another --out",
            )


def _is_ours(out: Path, kind: FolderKind) -> bool:
    try:
        kept = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(kept, dict) and kind.marks <= kept.keys()
