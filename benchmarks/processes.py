"""Memory of processes and of all below them: proportional set size, so that pages they share count once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.1


@dataclass
class Peak:
    mb: float = 0.0


def descendants(root: int) -> set[int]:
    """The processes below ``root`` and itself, by parent or, for daemons that change it, by session."""
    parents, sessions = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)], sessions[int(folder.name)] = int(fields[1]), int(fields[3])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found or sessions[pid] in found} - found:
        found |= more
    return found


def pss_mb(pid: int) -> float:
    """Of one process; 0 for one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def family_mb(root: int) -> float:
    return sum(pss_mb(pid) for pid in descendants(root))


@contextmanager
def watching(root: int, measure: Callable[[int], float] = family_mb) -> Iterator[Peak]:
    """The most memory of ``root`` and all below it while the block runs."""
    peak, done = Peak(), threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_S):
            peak.mb = max(peak.mb, measure(root))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()
