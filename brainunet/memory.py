"""How much memory a program may still take: of the machine, and of the container or service it runs in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that a program started now could take: of the machine, or of its container if that allows less.

    None where the system (not Linux) has no /proc/meminfo. ``root`` is where /proc and /sys begin.
    """
    try:
        lines = dict(
            line.split(":", 1) for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines() if ":" in line
        )
        machine = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, LookupError):
        return None
    return min([machine, *_left_in_groups(root)])


def resident_memory(root: Path = Path("/")) -> int:
    """Bytes that this process holds now; 0 where the system (not Linux) does not say."""
    return _of_this_process(root, "VmRSS") or 0


def peak_memory(root: Path = Path("/")) -> int | None:
    """The most bytes that this process has held until now; None where the system (Windows) does not say."""
    if (most := _of_this_process(root, "VmHWM")) is not None:
        return most
    try:
        import resource
    except ImportError:
        return None
    # on Linux that would be too much: it counts what the program held that started this one
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _of_this_process(root: Path, what: str) -> int | None:
    try:
        lines = (root / "proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:")), None)


def for_this_program() -> int | None:
    """Bytes that this process may hold in all: what it has and what is free; None where that is not known."""
    free = available_memory()
    return None if free is None else free + resident_memory()


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group above this process has left; page cache is given back when asked for, so it counts as free."""
    for folder, limit, used, cache in _groups(root):
        try:
            most = int((folder / limit).read_text(encoding="ascii"))
            now = int((folder / used).read_text(encoding="ascii"))
        except (OSError, ValueError):  # "max": no limit; or no such group in sight of this container
            continue
        yield max(0, most - now + _counted(folder / "memory.stat", cache))


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Folder and file names of each memory group of this process, the innermost first, of both versions of cgroups."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, kinds, path = [*line.split(":", 2), "", ""][:3]
        inner = Path(path.lstrip("/"))
        for group in dict.fromkeys((inner, *inner.parents)):
            if number == "0":
                yield root / "sys/fs/cgroup" / group, "memory.max", "memory.current", "inactive_file"
            elif "memory" in kinds.split(","):
                folder = root / "sys/fs/cgroup/memory" / group
                yield folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"


def _counted(path: Path, name: str) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) for line in lines if line.split()[:1] == [name]), 0)
    except (OSError, ValueError, IndexError):
        return 0
