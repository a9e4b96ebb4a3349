"""A command that was started in a process of its own, and the certain end of all that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


class Program:
    """A command that was started, in a session of its own; what it says goes to a file."""

    def __init__(self, name: str, command: list[str], folder: Path, env: Mapping[str, str]) -> None:
        self.name, self.log = name, folder / f"{name}.out"
        self._strays: set[int] = set()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def family(self) -> set[int]:
        """Its process and all below it."""
        return {self.process.pid} | _below(self.process.pid) if self.is_alive else set()

    def end(self, seconds: float = 30) -> int:
        """Ask it to end (SIGTERM), and wait; gives its exit code."""
        self._strays |= self.family()
        self.process.terminate()
        return self.process.wait(seconds)

    def kill(self, *, alone: bool = False) -> None:
        """SIGKILL, to all its processes as a power cut would, or to the first one ``alone``."""
        family = self.family()
        self._strays |= family
        for pid in {self.process.pid} & family if alone else family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def close(self) -> None:
        """Nothing of it is left afterwards."""
        mine = self._strays | self.family()
        for pid in mine:
            # a number may have been given to somebody else's process meanwhile: ours have our folder's session or parent
            if _started_by_us(pid, self.process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)


def _parents() -> dict[int, int]:
    """Process -> the one that started it."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            found[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return found


def _below(pid: int) -> set[int]:
    parents, found = _parents(), {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def _started_by_us(pid: int, first: int) -> bool:
    """Whether it still is what it was: the first process, one below it, or one of our programs left without a parent."""
    if pid == first or pid in _below(first):
        return True
    with suppress(OSError):
        return b"brainunet_client" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
