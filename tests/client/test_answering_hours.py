"""Tasks are done in the hours that the hospital allows, and not for a coordinator that has stopped waiting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from brainunet.records import EvaluateReply, EvaluateTask, FaultCode, TrainReply, TrainTask
from brainunet.wire import Packed, pack
from brainunet_client.answering import OUTSIDE_HOURS_EXIT, WORKER
from brainunet_client.home import Home
from tests.support import messages
from tests.support.desks import OpenDesk, at, code_of, home, is_the, open_desk, read, replying, said, sent
from tests.support.homes import set_to

__all__ = ["home", "open_desk", "said"]

TASK: TrainTask = messages.train_task()
REPLY: TrainReply = messages.train_reply()
NIGHTS = 'hours = ["19:00-07:00"]\n'


def waiting(seconds: int, task: TrainTask = TASK) -> Packed:
    """A task whose reply the coordinator awaits for so long."""
    return pack(task.model_copy(update={"answer_within_s": seconds}))


def test_training_waits_for_its_hours(home: Home, open_desk: OpenDesk, said: list[str]) -> None:
    set_to(home, NIGHTS)
    time = at("18:30")
    desk, workers = open_desk(replying(REPLY), time=time)

    assert is_the(REPLY, desk.answer(waiting(3600)))

    assert (time.waits, workers.count) == ([1800.0], 1)
    assert "round 3: waiting 0.5 hours, until training may run here (hours in site.toml)" in said


def test_within_its_hours_training_begins_at_once(home: Home, open_desk: OpenDesk) -> None:
    set_to(home, NIGHTS)
    time = at("23:00")

    assert is_the(REPLY, open_desk(replying(REPLY), time=time)[0].answer(pack(TASK)))
    assert time.waits == []


def test_a_coordinator_that_will_not_wait_for_the_hours_is_told_so_at_once(home: Home, open_desk: OpenDesk) -> None:
    set_to(home, NIGHTS)
    time = at("18:30")
    desk, workers = open_desk(replying(REPLY), time=time)

    assert code_of(desk.answer(waiting(1800))) is FaultCode.OUTSIDE_HOURS
    assert (time.waits, workers.count) == ([], 0)

    assert is_the(REPLY, desk.answer(waiting(1801)))


def test_scoring_is_not_held_to_the_hours_of_training(home: Home, open_desk: OpenDesk) -> None:
    set_to(home, NIGHTS)
    time = at("12:00")
    desk, _ = open_desk(replying(messages.evaluate_reply()), time=time)

    assert isinstance(read(desk.answer(pack(messages.evaluate_task()))), EvaluateReply)
    assert time.waits == []


def test_a_worker_that_stopped_when_the_hours_were_over_is_started_again_when_they_begin(
    home: Home, open_desk: OpenDesk
) -> None:
    set_to(home, NIGHTS)
    time = at("06:00")

    def until_seven(reply_file: Path) -> int:
        time.passed_s += 3600
        return OUTSIDE_HOURS_EXIT

    desk, workers = open_desk(until_seven, replying(REPLY), time=time)

    assert is_the(REPLY, desk.answer(pack(TASK)))
    assert (time.waits, workers.count) == ([12 * 3600.0], 2)
    assert len(sent(home)) == 1


def test_a_worker_and_its_desk_agree_on_hours_that_were_changed_in_between(home: Home, open_desk: OpenDesk) -> None:
    time = at("12:00")

    def meets_new_hours(reply_file: Path) -> int:
        set_to(home, NIGHTS)
        return OUTSIDE_HOURS_EXIT

    desk, _ = open_desk(meets_new_hours, replying(REPLY), time=time)

    assert is_the(REPLY, desk.answer(pack(TASK)))
    assert time.waits == [7 * 3600.0]


def test_a_task_past_its_deadline_is_too_late(home: Home, open_desk: OpenDesk) -> None:
    set_to(home, NIGHTS)
    time = at("06:00")

    def slow(reply_file: Path) -> int:
        time.passed_s += 3600
        return OUTSIDE_HOURS_EXIT

    desk, workers = open_desk(slow, time=time)

    assert code_of(desk.answer(waiting(3600))) is FaultCode.TOO_LATE
    assert workers.count == 1


@pytest.mark.parametrize(("answer_within_s", "told"), [(None, ()), (1, ("--seconds", "1")), (5400, ("--seconds", "3600"))])
def test_a_worker_is_told_what_is_left_of_the_time(
    answer_within_s: int | None, told: Sequence[str], home: Home, open_desk: OpenDesk
) -> None:
    set_to(home, NIGHTS if answer_within_s == 5400 else "")
    desk, workers = open_desk(replying(REPLY), time=at("18:30"))

    desk.answer(pack(TASK.model_copy(update={"answer_within_s": answer_within_s})))

    (command,) = workers.commands
    assert tuple(command[: len(WORKER)]) == WORKER
    assert tuple(command[len(WORKER) : len(WORKER) + 2]) == (str(home.path), str(desk.data))
    assert tuple(command[len(WORKER) + 3 :]) == ("--parent", str(os.getpid()), *told)


def test_an_evaluation_has_a_deadline_too(open_desk: OpenDesk) -> None:
    task: EvaluateTask = messages.evaluate_task().model_copy(update={"answer_within_s": 60})
    desk, workers = open_desk(replying(messages.evaluate_reply()))

    desk.answer(pack(task))

    assert workers.commands[0][-2:] == ["--seconds", "60"]
