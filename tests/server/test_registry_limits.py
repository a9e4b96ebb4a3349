"""How much one caller, one address and all together may ask of the registry, by a clock of the test's own."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import grpc
import pytest

from brainunet_server.registry import limits as limits_module
from brainunet_server.registry.limits import Counts, Limits
from brainunet_server.registry.refusing import Refused

FEW = Limits(calls_per_minute=3, downloads_each=2, downloads=3, bytes_per_day=1000, wrong_tokens_per_minute=2)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counts(clock: Clock) -> Counts:
    return Counts(FEW, clock)


def test_a_caller_s_fourth_question_in_a_minute_is_refused_and_its_next_is_answered_when_the_first_is_a_minute_old(
    counts: Counts, clock: Clock
) -> None:
    for _ in range(3):
        counts.call("site lagos")
        clock.now += 10
    with pytest.raises(Refused) as refused:
        counts.call("site lagos")
    assert refused.value.status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.wait_s == 31  # the first was 30 s ago
    assert refused.value.words == "more than 3 questions in a minute; ask again in 31 s"
    counts.call("site boston")  # another's limit is its own

    clock.now += 30
    counts.call("site lagos")
    with pytest.raises(Refused):
        counts.call("site lagos")


def test_downloads_are_limited_for_each_caller_and_for_all(counts: Counts) -> None:
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(counts.download("reader jane"))
        with pytest.raises(Refused, match="2 downloads of yours"):
            stack.enter_context(counts.download("reader jane"))
        stack.enter_context(counts.download("site lagos"))
        with pytest.raises(Refused, match="3 downloads of all callers"):
            stack.enter_context(counts.download("site boston"))
    with counts.download("site boston"):  # each that ended made room
        pass


def test_a_download_that_fails_makes_room_too(counts: Counts) -> None:
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), counts.download("reader jane"):
            raise ZeroDivisionError


def test_the_bytes_of_a_day_end_a_download_and_begin_anew_after_a_day(counts: Counts, clock: Clock) -> None:
    counts.sent("site lagos", 600)
    clock.now += 3600
    counts.sent("site lagos", 400)
    with pytest.raises(Refused, match="sent to you within a day; go on in 24 h") as refused:
        counts.sent("site lagos", 1)
    assert refused.value.wait_s == 23 * 3600 + 1
    with pytest.raises(Refused), counts.download("site lagos"):
        pass
    counts.sent("site boston", 1000)

    clock.now += 23 * 3600
    with counts.download("site lagos"):
        counts.sent("site lagos", 1000)


def test_wrong_tokens_are_counted_by_address_and_old_ones_forgotten(counts: Counts, clock: Clock) -> None:
    for _ in range(2):
        counts.wrong_token("192.0.2.7")
    with pytest.raises(Refused, match=r"wrong pass in a minute from this address; use the pass"):
        counts.wrong_token("192.0.2.7")
    counts.wrong_token("192.0.2.8")
    clock.now += 60
    counts.wrong_token("192.0.2.7")


def test_addresses_are_not_remembered_without_end(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "MOST_ADDRESSES", 5)
    for number in range(50):
        counts.wrong_token(f"192.0.2.{number}")

    assert len(counts._wrong) == 5
