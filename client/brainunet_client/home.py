"""The client's own folder at a hospital: where each thing in it lies, and that one client at a time works in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from brainunet import home_folder
from brainunet.errors import BrainUNetError

_NOT_OTHERS = 0o700
_OURS = frozenset(
    (
        *(home_folder.KEY, home_folder.KIT, "site.toml", "ledger.jsonl", "privacy.jsonl", "privacy.jsonl.lock"),
        *("sides.json", "excluded-cases.txt", "cache", "work", "client.log", "lock", home_folder.MODELS),
    )
)


@dataclass(frozen=True)
class Home:
    """``path`` is the folder; nothing in it leaves the hospital but the request, which a person sends."""

    path: Path

    @property
    def key(self) -> Path:
        return self.path / home_folder.KEY

    @property
    def request(self) -> Path | None:
        """The request that belongs to the key, ``NAME.request``; None before the site has asked."""
        return next(iter(sorted(self.path.glob("*.request"))), None)

    def request_of(self, name: str) -> Path:
        return self.path / f"{name}.request"

    @property
    def kit(self) -> Path:
        return self.path / home_folder.KIT

    @property
    def settings(self) -> Path:
        return self.path / "site.toml"

    @property
    def privacy(self) -> Path:
        """The ledger of what private training has spent."""
        return self.path / "privacy.jsonl"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def sides(self) -> Path:
        """Which cases are for training and which for validation, kept for good."""
        return self.path / "sides.json"

    @property
    def consent(self) -> Path:
        """The register of cases that may not be used (see ``brainunet_client.consent``)."""
        return self.path / "excluded-cases.txt"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def log(self) -> Path:
        return self.path / "client.log"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def received(self) -> Path:
        """The task being done."""
        return self.work / "received"

    @property
    def reply(self) -> Path:
        """The reply that waits to be sent."""
        return self.work / "reply"


def open_home(path: Path) -> Home:
    """The home at ``path``, made where it is missing; it, its cache and its work are closed to other users.

    A folder that holds other people's things is never closed behind their back: it is refused as long as others may read it.

    Raises:
        BrainUNetError: a file of that name, a folder that can't be written, or one with other things in it that others may
            read.
    """
    home = Home(home_folder.home_of(path))
    try:
        home.path.mkdir(mode=_NOT_OTHERS, parents=True, exist_ok=True)
        if home.path.stat().st_mode & 0o077:
            _close(home.path)
        for folder in (home.cache, home.work):
            folder.mkdir(mode=_NOT_OTHERS, exist_ok=True)
    except OSError as error:
        # the whole path: a folder that could not be made is often one above
        raise BrainUNetError(
            str(home.path),
            found=f"it can't be the client's folder: {error.strerror or error}",
            expected="a folder that you may write to",
            remedy="name another folder by --home DIR (or BRAINUNET_HOME), or ask for the right to write there",
        ) from None
    if not os.access(home.path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise BrainUNetError(
            str(home.path),
            found="a folder that can't be written",
            expected="one that you may write to",
            remedy="name another folder by --home DIR (or BRAINUNET_HOME), or ask for the right to write there",
        )
    return home


def _close(folder: Path) -> None:
    others = sorted({path.name for path in folder.iterdir()} - _OURS - {"lost+found"})
    if others and not (folder / home_folder.KEY).exists():
        raise BrainUNetError(
            str(folder),
            found=f"a folder that others may read, with other things in it ({', '.join(others[:3])})",
            expected="a new or empty folder, or one closed to others",
            remedy="name another folder by --home DIR: the client keeps its key and prepared images there",
        )
    folder.chmod(_NOT_OTHERS)


@contextmanager
def hold_lock(home: Home) -> Iterator[None]:
    """The block runs as the only client of this home; a crash frees the lock by itself.

    Raises:
        BrainUNetError: another client holds it, or the folder's disk knows no locks.
    """
    try:
        lock = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _no_lock(home, error) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
            raise BrainUNetError(
                str(home.path),
                found=f"another client works in it ({f'process {holder}' if holder.isdigit() else 'process not known'})",
                expected="one client for one home",
                remedy="stop that one first, or name another folder by --home DIR",
            ) from None
        except OSError as error:
            raise _no_lock(home, error) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def _no_lock(home: Home, error: OSError) -> BrainUNetError:
    return BrainUNetError(
        home.lock,
        found=f"it can't be locked: {error.strerror or error}",
        expected="a folder on a disk of this machine that you may write to",
        remedy="name another folder by --home DIR",
    )
