"""Examining many cases: two processes, one case at a time in each, and results in the order of the case ids."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from brainunet.data.cases import FoundCases
from brainunet.data.checks import CaseReport, Facts, Finding, Severity, examine, read_facts
from brainunet.errors import BrainUNetError
from brainunet.labels import Modality
from brainunet.records import Case, Problem

WORKERS: Final = 2
FEWEST_FOR_WORKERS: Final = 4  # starting a process costs as much as a case or two

Draw: TypeAlias = Callable[[Facts], bytes | None]


@dataclass(frozen=True)
class Examined:
    """A case's report, and its picture (an image file's bytes) where one was asked for and could be drawn."""

    report: CaseReport
    picture: bytes | None = None


def examine_cases(
    found: FoundCases, modalities: Sequence[Modality], draw: Draw | None = None, *, workers: int = WORKERS
) -> Iterator[Examined]:
    """Every case and every problem of the search, in order of their ids; a case's images are released before it is given.

    Args:
        found: what ``find_cases`` gave for these modalities.
        modalities: which images to examine.
        draw: makes a picture; a function of a module, because it is sent to other processes by its name.
        workers: processes; 1 does everything in this one.

    Raises:
        BrainUNetError: a process was killed, mostly for want of memory.
    """
    entries: list[Case | Problem] = sorted([*found.cases, *found.problems], key=lambda entry: entry.case_id)
    if workers < 2 or len(found.cases) < FEWEST_FOR_WORKERS:
        for entry in entries:
            yield examine_one(entry, modalities, draw) if isinstance(entry, Case) else _of_problem(entry)
        return
    # spawn: a process that is forked from one with threads may wait for ever for a lock that no thread will open
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts_to_the_parent) as pool:
        ahead: deque[Future[Examined] | Examined] = deque()
        try:
            for entry in entries:
                if isinstance(entry, Case):
                    with _interrupts_held_back():  # a submission may start a process
                        ahead.append(pool.submit(examine_one, entry, modalities, draw))
                else:
                    ahead.append(_of_problem(entry))
                if len(ahead) > 2 * workers:  # results wait here, so no more of them than keep the workers busy
                    yield _result(ahead.popleft())
            while ahead:
                yield _result(ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)


def examine_one(case: Case, modalities: Sequence[Modality], draw: Draw | None = None) -> Examined:
    """Read a case, look at it, and let go of its images."""
    facts = read_facts(case, modalities)
    return Examined(examine(facts), draw(facts) if draw else None)


def _of_problem(problem: Problem) -> Examined:
    """A case without all of its files, or with two for one: the words of the search, told apart from what to do."""
    start = len(problem.case_id)  # in which there may be a full stop
    said, _, remedy = problem.reason[start:].partition(". ")
    said = problem.reason[:start] + said.rstrip(".")
    finding = Finding(Severity.ERROR, said, remedy[:1].lower() + remedy[1:].rstrip("."), "files")
    return Examined(CaseReport(problem.case_id, (finding,)))


def _result(examined: Future[Examined] | Examined) -> Examined:
    if isinstance(examined, Examined):
        return examined
    try:
        return examined.result()
    except BrokenProcessPool:
        raise BrainUNetError(
            "check",
            found="a process that examined a case was killed",
            expected="to be let finish",
            remedy="free memory (two cases are held at a time), or leave out the largest case",
        ) from None


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """A Ctrl-C comes after the block; a process started in it never gets one, not even before its first line runs.

    Windows can't do that: there the initializer of the workers is all.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
