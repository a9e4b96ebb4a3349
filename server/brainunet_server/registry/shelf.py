"""The releases and their files. A file that is not what was published is given to nobody."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from brainunet.errors import BrainUNetError, ConfigError
from brainunet.modelfile import card_text
from brainunet.moments import day
from brainunet_server.record import say
from brainunet_server.registry.refusing import Refused, please_wait
from brainunet_server.store.rows import ReleaseRow

MAX_SIGNATURE_BYTES: Final = 16 * 1024


@dataclass(frozen=True)
class Version:
    """What changes when a file is written or replaced."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, descriptor: int) -> Version:
        seen = os.fstat(descriptor)
        return cls(seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


class Shelf:
    """The releases of a federation. Its calls may block, and may come from several threads.

    Args:
        folder: the federation's, to which the files of releases are relative.
        published: the folder below which they must lie.
        releases: what the store says, the newest first.
    """

    def __init__(self, folder: Path, published: Path, releases: Callable[[], Sequence[ReleaseRow]]) -> None:
        self._folder, self._published, self._ask = folder, published, releases
        self._looking = threading.Lock()
        self._seen: dict[str, tuple[Version, bool]] = {}  # release -> a version of its file, and whether that is good

    def releases(self) -> Sequence[ReleaseRow]:
        """
        Raises:
            Refused: the store can't be read.
        """
        try:
            return self._ask()
        except BrainUNetError:
            raise please_wait("its store can't be read at present; try again in a minute", 60) from None

    def release(self, name: str) -> ReleaseRow:
        """
        Raises:
            Refused: there is none of this name.
        """
        found = next((release for release in self.releases() if release.name == name), None)
        if found is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, "no release of this name; see them all with: brainunet pull --list")
        return found

    def look_at_all(self) -> list[str]:
        """Read the files of all releases that are not withdrawn; the names of those that are not as they were published."""
        bad = []
        for release in self.releases():
            if release.withdrawn_at is None:
                try:
                    os.close(self.opened(release))
                except Refused:
                    bad.append(release.name)
        return bad

    def opened(self, release: ReleaseRow) -> int:
        """A descriptor of the release's file, whose bytes were found to be those that were published.

        They stay so, also when another file takes the name; one that is written over is read anew by the next call, and its
        reader finds out by the digest.

        Raises:
            Refused: it was withdrawn, or its file is gone or another one.
        """
        require_free(release)
        path = self._path(release)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            say(f"the file of release {release.name} can't be read ({error.strerror}): {path}")
            raise _damaged() from None
        if not self._is_good(release, descriptor):
            os.close(descriptor)
            raise _damaged()
        return descriptor

    def card(self, release: ReleaseRow) -> str:
        """The model card of the release, as JSON.

        Raises:
            Refused: its file is gone or another one.
        """
        try:
            return card_text(self._path(release))
        except ConfigError:
            raise _damaged() from None

    def signature(self, release: ReleaseRow) -> str:
        """The text of the signature beside the release's file; whether it is good is for those to find out who are told it.

        Raises:
            Refused: there is none.
        """
        path = self._path(release)
        try:
            with path.with_name(f"{path.name}.sig").open("rb") as file:
                return file.read(MAX_SIGNATURE_BYTES).decode("ascii", "replace")
        except OSError as error:
            say(f"the signature of release {release.name} can't be read ({error.strerror})")
            raise _damaged() from None

    def _path(self, release: ReleaseRow) -> Path:
        path = (self._folder / release.file).resolve()
        if not path.is_relative_to(self._published.resolve()):  # a store that somebody else has written to
            say(f"release {release.name} has its file outside of {self._published}: it is not given out")
            raise _damaged()
        return path

    def _is_good(self, release: ReleaseRow, descriptor: int) -> bool:
        with self._looking:  # twenty who come at once wait for one look
            version = Version.of(descriptor)
            seen = self._seen.get(release.name)
            if seen is not None and seen[0] == version:
                return seen[1]
            good = version.size == release.n_bytes and _sha256(descriptor) == release.sha256
            good = good and Version.of(descriptor) == version
            self._seen[release.name] = (version, good)
        if not good:
            say(f"the file of release {release.name} is not the one that was published: it is not given out until it is again")
        return good


def require_free(release: ReleaseRow) -> None:
    """Pass if the release may be fetched.

    Raises:
        Refused: it was withdrawn.
    """
    if release.withdrawn_at is not None:
        words = f"{release.name} was withdrawn on {day(release.withdrawn_at)}: {release.withdrawn_reason}"
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, words)


def _sha256(descriptor: int) -> str:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged() -> Refused:
    return Refused(grpc.StatusCode.DATA_LOSS, "its file is not as it was published; tell the coordinator")
