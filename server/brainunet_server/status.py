"""What a running server says of itself and what it is asked to do, in files of its folder: no port, no privileged talk."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias, get_args

from pydantic import AwareDatetime, ValidationError

from brainunet.errors import BrainUNetError, FederationError
from brainunet.files import writing_aside
from brainunet.settings import Settings
from brainunet_server.federation import Folder

ServerState: TypeAlias = Literal[
    "starting", "waiting for sites", "running", "paused", "stopping", "stopped", "failed", "completed"
]
Wanted: TypeAlias = Literal["run", "pause", "stop"]

MAX_STATUS_BYTES: Final = 4_000_000

_LOCK_PATIENCE_S: Final = 0.5  # whoever looks whether a server runs holds the lock for a moment

_log = logging.getLogger(__name__)


class SiteState(Settings):
    """A site as the server last saw it; None where there is nothing to say yet."""

    name: str
    state: Literal["working", "connected", "silent", "never seen", "revoked"]
    last_seen: AwareDatetime | None = None
    last_outcome: str | None = None
    client_version: str | None = None


class Status(Settings):
    """Where a server stands.

    Attributes:
        message: one sentence for people.
        round: the round in progress, 0 before the first, of ``rounds``.
        deadline_at: until when the round waits for replies; None between rounds.
        address: where the sites reach the server.
    """

    pid: int
    state: ServerState
    message: str
    run: str
    round: int
    rounds: int
    round_started_at: AwareDatetime | None = None
    deadline_at: AwareDatetime | None = None
    min_sites: int
    sites: tuple[SiteState, ...] = ()
    address: str
    updated_at: AwareDatetime


def write_status(folder: Folder, status: Status) -> None:
    """Say how things stand.

    Raises:
        BrainUNetError: disk full, or a folder that can't be written.
    """
    with writing_aside(folder.status_file) as aside:
        aside.write_text(status.model_dump_json(indent=1), encoding="utf-8")


def read_status(folder: Folder) -> Status | None:
    """What the server said last, also if it ended since (see :func:`is_served`); None if it never said anything.

    A damaged file is None too, with a note in the log: it is written anew soon.
    """
    try:
        with folder.status_file.open("rb") as file:
            return Status.model_validate_json(file.read(MAX_STATUS_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s can't be read: %s", folder.status_file.name, error.strerror)
    except ValidationError:
        _log.warning("%s is damaged and left out", folder.status_file.name)
    return None


@contextmanager
def hold_lock(folder: Folder) -> Iterator[None]:
    """The block is the only server of this folder; the lock goes with the process, however it ends.

    A wish to stop was for the server before and is forgotten; a wish to pause still holds.

    Raises:
        FederationError: another process serves this folder.
        BrainUNetError: the folder can't be written.
    """
    try:
        descriptor = os.open(folder.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        remedy = "run this as the user who owns the folder"
        raise BrainUNetError(str(folder.path), found=f"it can't be written: {error.strerror or error}", remedy=remedy) from None
    try:
        if not _locked(descriptor, fcntl.LOCK_EX, _LOCK_PATIENCE_S):
            raise FederationError(
                str(folder.path),
                found=f"process {_pid_in(descriptor)} serves this folder",
                expected="no other server of it",
                remedy=f"stop it first: flower-server stop {folder.path}",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        if wanted(folder) == "stop":
            want(folder, "run")
        yield
    finally:
        os.close(descriptor)


def serving_pid(folder: Folder) -> str | None:
    """The number of the process that holds the folder's lock now, None if none does.

    Raises:
        BrainUNetError: the lock can't be looked at.
    """
    try:
        descriptor = os.open(folder.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        remedy = "run this as the user who owns the folder"
        raise BrainUNetError(folder.lock_file, found=f"it can't be read: {error.strerror or error}", remedy=remedy) from None
    try:
        return None if _locked(descriptor, fcntl.LOCK_SH) else _pid_in(descriptor)
    finally:
        os.close(descriptor)


def is_served(folder: Folder) -> bool:
    """Whether a process holds the folder's lock now.

    Raises:
        BrainUNetError: the lock can't be looked at.
    """
    return serving_pid(folder) is not None


def want(folder: Folder, what: Wanted) -> None:
    """Ask the server to run, to pause after the round in progress, or to stop.

    Raises:
        BrainUNetError: disk full, or a folder that can't be written.
    """
    with writing_aside(folder.wanted_file) as aside:
        aside.write_text(f"{what}\n", encoding="ascii")


def wanted(folder: Folder) -> Wanted:
    """What the server is asked to do; "run" if nothing can be read."""
    try:
        with folder.wanted_file.open("rb") as file:
            said = file.read(16).decode("ascii", errors="replace").strip()
    except OSError:
        return "run"
    known: tuple[Wanted, ...] = get_args(Wanted)
    return next((one for one in known if one == said), "run")


def wait_for_end(folder: Folder, patience_s: float) -> bool:
    """Wait until no process serves the folder; False if one still does after ``patience_s`` seconds."""
    end = time.monotonic() + patience_s
    while is_served(folder):
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
    return True


def _locked(descriptor: int, kind: int, patience_s: float = 0.0) -> bool:
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        else:
            return True


def _pid_in(descriptor: int) -> str:
    said = os.pread(descriptor, 20, 0).decode("ascii", errors="replace").strip()
    return said if said.isdigit() else "(unknown)"
