"""Whole or not at all: the one place where files get their names."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from brainunet.errors import BrainUNetError, ConfigError

_ASIDE: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.part")  # the names that writing_aside gives
_EARLIER: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.earlier")  # of a folder while another takes its place


@contextmanager
def writing_aside(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path``, flushed and renamed to it when the block ends well, removed when it does not.

    A process killed or a disk filled in the middle leaves the earlier file (or none) under ``path``, never half of one.
    ``durable`` False does not wait for the disk: a power cut may leave anything there.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # processes in containers share their numbers
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        if durable:
            flush(aside)
        aside.replace(path)
        if durable:
            flush_name(path)
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def clear_unfinished(folder: Path, names: Collection[str]) -> list[str]:
    """Remove what writers of these files that were killed have left beside them; gives its names.

    Only for who knows that nobody writes them now: their temporary names look the same.

    >>> clear_unfinished(Path("nowhere"), {"a"})
    []
    """
    gone = []
    with suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            match = _ASIDE.fullmatch(path.name)
            if match and match["name"] in names and not path.is_dir():
                path.unlink(missing_ok=True)
                gone.append(path.name)
    return gone


@contextmanager
def writing_folder_aside(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder beside ``path``, flushed and renamed to it when the block ends well, removed when it does not.

    A process killed or a disk filled in the middle leaves no folder under ``path``, or the earlier one; never half of one.
    ``replace`` removes an earlier folder once the new one is whole. Of one that was killed between the two renamings
    :func:`clear_folders` gives the earlier folder its name back.

    Raises:
        BrainUNetError: the disk is full, the folder can't be written, or ``path`` is there and may not be replaced.
    """
    aside, earlier = (path.with_name(f".{path.name}.{secrets.token_hex(4)}.{end}") for end in ("part", "earlier"))
    try:
        aside.mkdir(parents=True)
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                flush(file)
        if replace and path.exists():
            path.rename(earlier)
        try:
            if path.exists():  # an empty folder would be taken the place of without a word
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            aside.rename(path)
        except OSError:
            if earlier.exists():
                earlier.rename(path)
            raise
        flush_name(path)
    except OSError as error:
        raise _not_written(path, error) from None
    finally:
        for folder in (aside, earlier):
            shutil.rmtree(folder, ignore_errors=True)


def clear_folders(folder: Path) -> None:
    """Remove what killed processes left in ``folder`` while they wrote folders aside, and give an earlier one its name back if
    nothing had taken its place yet. Only for who knows that nobody writes there now.
    """
    for left in sorted(folder.iterdir()):
        match = _ASIDE.fullmatch(left.name) or _EARLIER.fullmatch(left.name)
        if match is None or left.is_symlink() or not left.is_dir():
            continue
        with suppress(OSError):
            if match.re is _EARLIER and not (folder / match["name"]).exists():
                left.rename(folder / match["name"])
            else:
                shutil.rmtree(left)


def flush(path: Path) -> None:
    """Wait until a written file is on the disk itself, so that a power cut after its renaming can't empty it."""
    with path.open("r+b") as written:  # Windows flushes only what is open for writing
        os.fsync(written.fileno())


def flush_name(path: Path) -> None:
    """Wait until a file's name is on the disk: it is the folder that holds it. Not every system can wait for that."""
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_new_private(path: Path, content: bytes) -> None:
    """A new file that only its owner may read (0600), from its first byte on.

    Raises:
        ConfigError: there is a file already; a key is never overwritten.
        BrainUNetError: disk full, or a folder that can't be written.
    """
    with writing_aside(path) as aside:
        aside.touch(0o600, exist_ok=False)
        aside.write_bytes(content)
        flush(aside)
        try:
            os.link(aside, path)  # unlike a renaming, it never takes the place of a file
        except FileExistsError:
            raise ConfigError(
                path,
                found="there is a file of this name already",
                expected="a free place for a new key",
                remedy="keep that key; only if it may be lost for ever, move it away first",
            ) from None


def _not_written(path: Path, error: OSError) -> BrainUNetError:
    return BrainUNetError(
        path,
        found=f"it can't be written: {error.strerror or error}",
        remedy="free space on the disk, or choose a folder you may write to",
    )
