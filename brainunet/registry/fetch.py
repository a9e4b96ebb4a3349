"""A file from a registry to the disk, over lines that break: each attempt goes on at the byte after those that are there.

Beside the file it will be lie ``FILE.part``, what has come so far, and ``FILE.part.json``, which says of which file that is a
part. So it goes on after a cut, after this process was killed, and on another day.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from brainunet.errors import BrainUNetError, FederationError
from brainunet.files import flush, writing_aside
from brainunet.registry.patience import Patience
from brainunet.registry.records import Release
from brainunet.registry.troubles import Passing

SPARE_BYTES: Final = 1_000_000  # beside the file: what says of it and signs it


class Source(Protocol):
    """A connection to a registry (``client.Registry``)."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /) -> None: ...
    def chunks(self, release: Release, offset: int) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Part:
    """The places beside ``target`` while it is fetched."""

    target: Path

    @property
    def file(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def about(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part.json")

    @property
    def signature(self) -> Path:
        """Where a signature beside ``file`` is looked for."""
        return self.target.with_name(f"{self.target.name}.part.sig")

    def remove(self) -> None:
        for path in (self.file, self.about, self.signature):
            with suppress(OSError):
                path.unlink(missing_ok=True)


@contextmanager
def held(part: Part) -> Iterator[int]:
    """The part's descriptor, for the block alone; the lock goes with the process, however it ends.

    Raises:
        BrainUNetError: another process fetches to the same place, or the folder can't be written.
    """
    try:
        part.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(part.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BrainUNetError(
            part.target,
            found=f"it can't be written: {error.strerror or error}",
            expected="a folder that you may write to",
            remedy="name another file by -o FILE, or another folder by --home DIR",
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = part.file.exists() and os.path.samestat(os.fstat(descriptor), part.file.stat())
        except BlockingIOError:
            ours = False
        except OSError as error:
            raise _unwritable(part.target, error) from None
        if not ours:  # or it was another's a moment ago, and has its name by now
            raise BrainUNetError(
                part.target,
                found="another process fetches it",
                expected="one at a time",
                remedy="wait for that one, or name another file by -o FILE",
            )
        yield descriptor
    finally:
        os.close(descriptor)


def fetch(
    connect: Callable[[], Source],
    release: Release,
    part: Part,
    descriptor: int,
    *,
    patience_s: float,
    on_bytes: Callable[[int], None] = lambda count: None,
    on_wait: Callable[[Passing, float], None] = lambda trouble, wait_s: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Bring the whole of a release's file into the part; gives how many bytes came now.

    Args:
        connect: makes a new connection for each attempt.
        release: what to fetch.
        part: where; ``descriptor`` is that of :func:`held`.
        patience_s: how long to try again without a single new byte.
        on_bytes: told how many bytes are there, at first and with each chunk.
        on_wait: told what has happened and after how many seconds it is tried again.
        sleep, clock: of this machine.

    Raises:
        FederationError: the registry does not give it out, or the line did not come back in time; what came is kept.
        BrainUNetError: the disk is full; what came is kept.
    """
    have = begun = _begin(part, release, descriptor)
    on_bytes(have)
    _require_room(part, release.size_bytes - have)
    patience = Patience(patience_s, on_wait, sleep, clock)
    while have < release.size_bytes:
        try:
            with connect() as source:
                for data in source.chunks(release, have):
                    _write(part, descriptor, have, data)
                    have += len(data)
                    patience.progress()
                    on_bytes(have)
            if have < release.size_bytes:
                raise Passing(release.name, found="it ended before its last byte", remedy="try again")
        except Passing as trouble:
            if not patience.wait(trouble):
                raise _kept(trouble, have, release.size_bytes) from None
    return have - begun


def _begin(part: Part, release: Release, descriptor: int) -> int:
    """How many bytes of this very file are there; what is of another one is thrown away."""
    told = json.dumps({"name": release.name, "sha256": release.sha256})
    try:
        size = os.fstat(descriptor).st_size
        if size and size <= release.size_bytes and _read(part.about) == told:
            return size
        os.ftruncate(descriptor, 0)
    except OSError as error:
        raise _unwritable(part.target, error) from None
    with writing_aside(part.about) as aside:
        aside.write_text(told, encoding="utf-8")
    return 0


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1000).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _require_room(part: Part, n_bytes: int) -> None:
    free = shutil.disk_usage(part.target.parent).free
    if free < n_bytes + SPARE_BYTES:
        raise BrainUNetError(
            str(part.target.parent),
            found=f"{free / 1e6:.1f} MB are free",
            expected=f"room for {n_bytes / 1e6:.1f} MB more",
            remedy="free space on the disk, or name a file on another one by -o FILE",
        )


def _write(part: Part, descriptor: int, at: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            written = os.pwrite(descriptor, view, at)
            view, at = view[written:], at + written
    except OSError as error:
        raise _unwritable(part.target, error) from None


def _unwritable(target: Path, error: OSError) -> BrainUNetError:
    return BrainUNetError(
        target,
        found=f"it can't be written: {error.strerror or error}",
        remedy="free space on the disk, or name another file by -o FILE; what has come is kept, and goes on from there",
    )


def _kept(trouble: Passing, have: int, size: int) -> FederationError:
    """The trouble after which there was no patience left, and that nothing is lost."""
    remedy = f"{trouble.remedy}; " if trouble.remedy else ""
    kept = f"{have / 1e6:.1f} of {size / 1e6:.1f} MB are kept: the same command goes on from there"
    return FederationError(trouble.where, found=trouble.found, expected=trouble.expected, remedy=f"{remedy}{kept}")


def settle(part: Part) -> None:
    """Wait until what came is on the disk itself.

    Raises:
        BrainUNetError: the disk is full.
    """
    try:
        flush(part.file)
    except OSError as error:
        raise _unwritable(part.target, error) from None
