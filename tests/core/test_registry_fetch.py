"""A file comes whole over any line that breaks: each attempt goes on at the byte after those that are on the disk."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainunet.errors import BrainUNetError, FederationError
from brainunet.registry.fetch import Part, fetch, held
from brainunet.registry.patience import FIRST_PAUSE_S, LONGEST_PAUSE_S
from brainunet.registry.records import Release
from brainunet.registry.troubles import Passing
from tests.support.rights import full_disk, largest_file

CONTENT = bytes(range(256)) * 40
CHUNK = 100


def release(content: bytes = CONTENT, name: str = "v1", digest: str = "ab") -> Release:
    return Release(
        name=name,
        run="glioma-1",
        round=1,
        size_bytes=len(content),
        sha256=digest * 32,
        weights_sha256="cd" * 32,
        published_at=datetime(2026, 3, 1, tzinfo=UTC),
    )


class Line:
    """A source whose line breaks after so many chunks, each time that it is connected."""

    def __init__(self, cuts: Sequence[int], content: bytes = CONTENT, wait_s: float = 0.0) -> None:
        self.cuts, self.content, self.wait_s = list(cuts), content, wait_s
        self.asked: list[int] = []
        self.sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        pass

    def chunks(self, release: Release, offset: int) -> Iterator[bytes]:
        self.asked.append(offset)
        left = self.cuts.pop(0) if self.cuts else 10**9
        for start in range(offset, len(self.content), CHUNK):
            if not left:
                trouble = Passing("line", found="cut")
                trouble.wait_s = self.wait_s
                raise trouble
            left -= 1
            self.sent += len(self.content[start : start + CHUNK])
            yield self.content[start : start + CHUNK]


class Clock:
    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def fetched(
    line: Line, target: Path, *, patience_s: float = 100.0, what: Release | None = None, clock: Clock | None = None
) -> int:
    part, clock = Part(target), clock or Clock()
    with held(part) as descriptor:
        made = what or release(line.content)
        return fetch(lambda: line, made, part, descriptor, patience_s=patience_s, sleep=clock.sleep, clock=clock)


@given(cuts=st.lists(st.integers(0, 30), max_size=12))
def test_a_line_that_is_cut_anywhere_brings_every_byte_once(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    target, line = tmp_path_factory.mktemp("cut") / "model", Line(cuts)

    came = fetched(line, target, patience_s=10_000)

    assert Part(target).file.read_bytes() == CONTENT
    assert came == line.sent == len(CONTENT)
    assert line.asked == sorted(line.asked)


def test_another_day_goes_on_where_this_one_stopped_and_asks_for_the_next_byte(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"cut\. 0\.0 of 0\.0 MB are kept: the same command goes on"):
        fetched(Line([7]), tmp_path / "model", patience_s=0)

    line = Line([])
    assert fetched(line, tmp_path / "model") == len(CONTENT) - 7 * CHUNK
    assert line.asked == [7 * CHUNK]
    assert Part(tmp_path / "model").file.read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["of another file", "longer than the file", "without a word of whose it is"])
def test_a_part_that_is_not_of_this_file_is_begun_anew(tmp_path: Path, change: str) -> None:
    part = Part(tmp_path / "model")
    with pytest.raises(FederationError):
        fetched(Line([7]), part.target, patience_s=0)
    if change == "longer than the file":
        part.file.write_bytes(CONTENT * 2)
    elif change == "without a word of whose it is":
        part.about.unlink()
    line = Line([], content=CONTENT[::-1])

    fetched(line, part.target, what=release(digest="ef" if change == "of another file" else "ab"))

    assert line.asked == [0]
    assert part.file.read_bytes() == CONTENT[::-1]


def test_attempts_grow_rarer_and_a_new_byte_makes_them_frequent_again(tmp_path: Path) -> None:
    clock = Clock()
    fetched(Line([0, 0, 0, 0, 0, 0, 0, 1, 0]), tmp_path / "model", clock=clock, patience_s=1000)

    assert clock.pauses == [FIRST_PAUSE_S, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S, FIRST_PAUSE_S, 2]


def test_each_break_is_told_with_the_time_until_the_next_attempt(tmp_path: Path) -> None:
    waits, line = list[tuple[str, float]](), Line([1, 0])
    part = Part(tmp_path / "model")
    with held(part) as descriptor:
        fetch(
            lambda: line,
            release(),
            part,
            descriptor,
            patience_s=100,
            on_wait=lambda trouble, wait_s: waits.append((trouble.found, wait_s)),
            sleep=lambda seconds: None,
        )
    assert waits == [("cut", 1.0), ("cut", 2.0)]


def test_patience_is_without_a_new_byte_and_not_in_all(tmp_path: Path) -> None:
    clock = Clock()
    fetched(Line([1] * 60), tmp_path / "model", clock=clock, patience_s=1.5)  # a minute of pauses
    assert clock.now >= 60

    clock = Clock()
    with pytest.raises(FederationError):
        fetched(Line([0] * 60), tmp_path / "another", clock=clock, patience_s=10)
    assert clock.now <= 10


def test_a_registry_that_asks_to_wait_longer_than_there_is_patience_ends_it_at_once(tmp_path: Path) -> None:
    clock = Clock()
    with pytest.raises(FederationError):
        fetched(Line([3], wait_s=3600), tmp_path / "model", clock=clock, patience_s=600)
    assert clock.pauses == []

    fetched(Line([3], wait_s=30), tmp_path / "model", clock=clock, patience_s=600)
    assert clock.pauses == [30]


def test_a_stream_that_ends_early_without_a_word_is_a_cut(tmp_path: Path) -> None:
    class Short(Line):
        def chunks(self, release: Release, offset: int) -> Iterator[bytes]:
            chunks = super().chunks(release, offset)
            return chunks if self.asked else iter([next(chunks)])

    assert fetched(Short([]), tmp_path / "model") == len(CONTENT)


def test_what_is_there_whole_asks_for_nothing(tmp_path: Path) -> None:
    fetched(Line([]), tmp_path / "model")
    line = Line([])

    assert fetched(line, tmp_path / "model") == 0
    assert line.asked == []


def _hold(target: Path, ready: object, over: object) -> None:
    with held(Part(target)):
        ready.set()  # type: ignore[attr-defined]
        over.wait()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_two_processes_never_fetch_to_one_place(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, over = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "model", ready, over))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(BrainUNetError, match="another process fetches it"):
            fetched(Line([]), tmp_path / "model")
    finally:
        over.set()
        other.join()
    fetched(Line([]), tmp_path / "model")  # its lock went with it


def test_a_part_that_got_its_name_while_another_waited_is_not_written_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Part(tmp_path / "model")
    part.file.write_bytes(CONTENT)
    opening = os.open

    def open_and_lose(*arguments: object, **options: object) -> int:
        descriptor = opening(*arguments, **options)  # type: ignore[arg-type]
        part.file.replace(part.target)  # as another process does that has checked it
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    with pytest.raises(BrainUNetError, match="another process"), held(part):
        pass
    assert part.target.read_bytes() == CONTENT


def test_a_disk_without_room_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with full_disk(4000) as small:
        line = Line([])
        with pytest.raises(BrainUNetError, match=r"MB are free, but expected room for 50\.0 MB more\. Free space"):
            fetched(line, small / "model", what=release(bytes(50_000_000)))
        assert line.asked == []


def test_a_disk_that_fills_keeps_what_came_and_goes_on_later(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(largest_file(5))
        with pytest.raises(BrainUNetError, match="what has come is kept, and goes on from there"):
            fetched(Line([]), tmp_path / "model")

    line = Line([])
    fetched(line, tmp_path / "model")
    assert 5 * 1024 - CHUNK <= line.asked[0] <= 5 * 1024
    assert Part(tmp_path / "model").file.read_bytes() == CONTENT
