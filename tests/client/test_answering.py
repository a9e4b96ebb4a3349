"""A task is answered once, whatever is cut off in the middle; nothing leaves that the ledger does not tell of."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainunet import chain
from brainunet.errors import BrainUNetError, ChainBroken, ConfigError
from brainunet.records import AnyTask, EvaluateReply, EvaluateTask, Fault, FaultCode, Reply, TrainReply, TrainTask
from brainunet.spool import read_packed, write_packed
from brainunet.wire import Packed, pack, unpack
from brainunet_client.answering import OUTSIDE_HOURS_EXIT, WORKER, Clock, Desk, run_command
from brainunet_client.enrolment import load_identity
from brainunet_client.home import Home
from brainunet_client.ledger import SENT, figures_of
from tests.support import messages
from tests.support.homes import joined_home, set_to

TASK: TrainTask = messages.train_task()
REPLY: TrainReply = messages.train_reply()
NIGHTS = 'hours = ["19:00-07:00"]\n'

Work = Callable[[Path], int]  # what a worker does with the file for its reply, and the code that it ends with


def replying(reply: Reply) -> Work:
    def work(reply_file: Path) -> int:
        write_packed(reply_file, pack(reply))
        return 0

    return work


def ending(code: int) -> Work:
    return lambda reply_file: code


@dataclass
class Workers:
    """In the place of processes: each does the next thing of the list."""

    work: list[Work]
    commands: list[Sequence[str]] = field(default_factory=list)

    def __call__(self, command: Sequence[str]) -> int:
        self.commands.append(command)
        return self.work.pop(0)(Path(command[len(WORKER) + 2]))

    @property
    def count(self) -> int:
        return len(self.commands)


@dataclass
class Time:
    """Passes when somebody waits, or a test says so."""

    start: datetime
    passed_s: float = 0.0
    waits: list[float] = field(default_factory=list)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.passed_s += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.start + timedelta(seconds=self.passed_s), lambda: self.passed_s, self.wait)


def at(clock: str) -> Time:
    return Time(datetime.fromisoformat(f"2026-03-01T{clock}").astimezone())


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return joined_home(tmp_path / "home")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_desk(home: Home, tmp_path: Path, said: list[str]) -> Callable[..., tuple[Desk, Workers]]:
    def open_desk(*work: Work, time: Time | None = None) -> tuple[Desk, Workers]:
        workers = Workers(list(work))
        clock = (time or at("12:00")).clock
        return Desk(home, tmp_path / "cases of Jane Doe", load_identity(home).kit, said.append, workers, clock), workers

    return open_desk


OpenDesk = Callable[..., tuple[Desk, Workers]]


def read(packed: Packed) -> Reply:
    reply: Reply = unpack(packed, TrainReply | EvaluateReply | Fault)
    return reply


def code_of(packed: Packed) -> FaultCode:
    """The code of a fault in which there is nothing else."""
    reply = read(packed)
    assert isinstance(reply, Fault), reply
    assert json.loads(packed.header).keys() == {"protocol", "run", "round", "kind", "code"}
    assert packed.values is None
    return reply.code


def sent(home: Home) -> list[Mapping[str, Any]]:
    return [entry.data for entry in chain.entries(home.ledger) if entry.kind == SENT]


def waiting(seconds: int, task: TrainTask = TASK) -> Packed:
    """A task whose reply the coordinator awaits for so long."""
    return pack(task.model_copy(update={"answer_within_s": seconds}))


def is_the(reply: Reply, packed: Packed) -> bool:
    expected = pack(reply)
    return packed.header == expected.header and (
        np.array_equal(packed.values, expected.values)
        if packed.values is not None and expected.values is not None
        else packed.values is expected.values
    )


def test_a_task_is_kept_before_its_work_and_the_ledger_is_written_after_it(home: Home, open_desk: OpenDesk) -> None:
    def looks_around(reply_file: Path) -> int:
        kept = read_packed(home.received)
        assert kept is not None
        assert (kept.header, kept.n_bytes) == (pack(TASK).header, pack(TASK).n_bytes)
        assert sent(home) == []
        return replying(REPLY)(reply_file)

    desk, workers = open_desk(looks_around)

    assert is_the(REPLY, desk.answer(pack(TASK)))
    assert workers.count == 1
    assert len(sent(home)) == 1


def test_the_ledger_tells_what_leaves_for_whom_and_by_what_right(home: Home, open_desk: OpenDesk) -> None:
    set_to(home, 'purpose = "research"\nlegal_basis = "approval no. 7"\n')
    desk, _ = open_desk(replying(REPLY))

    reply = desk.answer(pack(TASK))

    assert reply.values is not None
    assert sent(home) == [
        {
            "server": desk.kit.server,
            "federation": "glioma",
            "run": "run-1",
            "round": 3,
            "message": "train_reply",
            "bytes": reply.n_bytes,
            "sha256": hashlib.sha256(reply.values.tobytes()).hexdigest(),
            "figures": json.loads(json.dumps(figures_of(REPLY))),
            "purpose": "research",
            "legal_basis": "approval no. 7",
        }
    ]


def test_a_reply_without_weights_has_the_digest_of_its_header(home: Home, open_desk: OpenDesk) -> None:
    desk, _ = open_desk(replying(messages.evaluate_reply()))

    reply = desk.answer(pack(messages.evaluate_task()))

    assert sent(home)[0]["sha256"] == hashlib.sha256(reply.header.encode()).hexdigest()


@pytest.mark.parametrize(
    ("task", "reply"), [(TASK, REPLY), (messages.evaluate_task(), messages.evaluate_reply())], ids=["train", "evaluate"]
)
def test_a_task_that_comes_again_gets_the_reply_that_is_ready_and_is_written_down_again(
    task: AnyTask, reply: Reply, home: Home, open_desk: OpenDesk, said: list[str]
) -> None:
    desk, workers = open_desk(replying(reply))
    first = desk.answer(pack(task))

    again = desk.answer(pack(task))

    assert (again.header, workers.count) == (first.header, 1)
    assert is_the(reply, again)
    one, two = sent(home)
    assert one == two
    assert "round 3: asked again, sending the reply that is ready" in said


def test_a_process_that_dies_between_the_reply_and_the_ledger_has_the_reply_when_it_is_back(
    home: Home, open_desk: OpenDesk
) -> None:
    def power_cut(reply_file: Path) -> int:
        replying(REPLY)(reply_file)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_desk(power_cut)[0].answer(pack(TASK))
    assert sent(home) == []

    desk, workers = open_desk()
    assert is_the(REPLY, desk.answer(pack(TASK)))
    assert (workers.count, len(sent(home))) == (0, 1)


def test_another_task_takes_the_place_of_the_reply_that_was_kept(home: Home, open_desk: OpenDesk) -> None:
    desk, workers = open_desk(*[replying(REPLY)] * 3)
    other = TASK.model_copy(update={"seed": 8})

    for task in (TASK, other, other, TASK):
        desk.answer(pack(task))

    assert workers.count == 3
    assert len(list(home.work.glob("reply-*"))) == 1


def test_the_same_words_with_other_weights_are_another_task(open_desk: OpenDesk) -> None:
    desk, workers = open_desk(replying(REPLY), replying(REPLY))

    desk.answer(pack(TASK))
    desk.answer(pack(messages.train_task(messages.WEIGHTS.plus(messages.WEIGHTS))))

    assert workers.count == 2


@pytest.mark.parametrize("task", [TASK, messages.evaluate_task()], ids=["train", "evaluate"])
def test_a_fault_is_not_kept_for_its_reason_may_be_mended(task: AnyTask, home: Home, open_desk: OpenDesk) -> None:
    fault = Fault(run=task.run, round=task.round, code=FaultCode.NO_USABLE_CASES)
    desk, workers = open_desk(replying(fault), replying(REPLY))

    assert code_of(desk.answer(pack(task))) is FaultCode.NO_USABLE_CASES
    assert is_the(REPLY, desk.answer(pack(task)))

    assert workers.count == 2
    assert [entry["message"] for entry in sent(home)] == ["fault", "train_reply"]


def cut_short(reply_file: Path) -> None:
    reply_file.write_bytes(reply_file.read_bytes()[:-1])


NOT_READY: dict[str, Callable[[Path], object]] = {
    "cut short": cut_short,
    "empty": lambda file: file.write_bytes(b""),
    "a fault": lambda file: write_packed(file, pack(messages.fault())),
    "of another version": lambda file: write_packed(file, Packed('{"kind": "train_reply", "protocol": 2}')),
    "a task": lambda file: write_packed(file, pack(TASK)),
}


@pytest.mark.parametrize("what", NOT_READY)
def test_a_kept_reply_that_can_not_be_sent_is_made_again(what: str, home: Home, open_desk: OpenDesk) -> None:
    desk, workers = open_desk(replying(REPLY), replying(REPLY))
    desk.answer(pack(TASK))
    (kept,) = home.work.glob("reply-*")
    NOT_READY[what](kept)

    assert is_the(REPLY, desk.answer(pack(TASK)))
    assert workers.count == 2


def test_the_fault_of_an_earlier_try_is_never_taken_for_the_reply_of_this_one(open_desk: OpenDesk) -> None:
    def power_cut(reply_file: Path) -> int:
        replying(Fault(run="run-1", round=3, code=FaultCode.DISK_FULL))(reply_file)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_desk(power_cut)[0].answer(pack(TASK))

    assert code_of(open_desk(ending(-signal.SIGKILL))[0].answer(pack(TASK))) is FaultCode.OUT_OF_MEMORY


# --- workers that come to grief ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (-signal.SIGKILL, FaultCode.OUT_OF_MEMORY),
        (-signal.SIGSEGV, FaultCode.INTERNAL),
        (1, FaultCode.INTERNAL),
        (0, FaultCode.INTERNAL),
    ],
)
def test_a_worker_that_leaves_no_reply_is_told_by_the_way_it_ended(
    code: int, told: FaultCode, home: Home, open_desk: OpenDesk, said: list[str]
) -> None:
    desk, _ = open_desk(ending(code))

    assert code_of(desk.answer(pack(TASK))) is told

    assert sent(home)[0]["figures"] == {"code": told.value}
    assert f"round 3: the work ended without a reply (exit {code}); see {home.log}" in said


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", FaultCode.OUT_OF_MEMORY),
        ("raise ValueError('Jane Doe')", FaultCode.INTERNAL),
    ],
)
def test_a_process_that_crashes_says_why_here_and_nowhere_else(
    script: str, told: FaultCode, open_desk: OpenDesk, capfd: pytest.CaptureFixture[str]
) -> None:
    desk = replace(open_desk()[0], run=lambda command: run_command([sys.executable, "-c", script]))

    reply = desk.answer(pack(TASK))

    assert code_of(reply) is told
    assert "Jane" not in reply.header
    assert ("Jane Doe" in capfd.readouterr().err) == ("Jane" in script)


def test_an_error_of_our_own_becomes_a_code_and_its_text_stays_in_the_log(
    open_desk: OpenDesk, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(reply_file: Path) -> int:
        raise ValueError("Jane Doe")

    reply = open_desk(broken)[0].answer(pack(TASK))

    assert code_of(reply) is FaultCode.INTERNAL
    assert "Jane" not in reply.header
    assert "Jane Doe" in caplog.text


UNREADABLE: dict[str, Packed] = {
    "no JSON": Packed("{"),
    "a reply": pack(REPLY),
    "no weights": Packed(pack(TASK).header),
    "another protocol": Packed(json.dumps(json.loads(pack(TASK).header) | {"protocol": 2}), pack(TASK).values),
    "a field of another version": Packed(json.dumps(json.loads(pack(TASK).header) | {"run_code": "x"}), pack(TASK).values),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_message_that_is_no_task_is_answered_without_any_work(what: str, home: Home, open_desk: OpenDesk) -> None:
    desk, workers = open_desk()

    assert code_of(desk.answer(UNREADABLE[what])) is FaultCode.TASK_NOT_UNDERSTOOD

    assert (workers.count, [(entry["run"], entry["message"]) for entry in sent(home)]) == (0, [("unknown", "fault")])
    assert not home.received.exists()


# --- the ledger -------------------------------------------------------------------------------------------------------------


def spoil(home: Home) -> None:
    home.ledger.rename(home.ledger.with_suffix(".away"))
    home.ledger.mkdir()


def mend(home: Home) -> None:
    home.ledger.rmdir()
    home.ledger.with_suffix(".away").rename(home.ledger)


def test_without_a_ledger_nothing_leaves_and_no_work_is_lost(home: Home, open_desk: OpenDesk) -> None:
    desk, workers = open_desk(replying(REPLY))
    spoil(home)

    for _ in range(2):
        with pytest.raises(BrainUNetError, match="ledger"):
            desk.answer(pack(TASK))
    with pytest.raises(BrainUNetError, match="ledger"):  # not even a fault
        desk.answer(Packed("{"))
    mend(home)

    assert is_the(REPLY, desk.answer(pack(TASK)))
    assert (workers.count, len(sent(home))) == (1, 1)


def test_a_ledger_whose_end_was_changed_is_not_continued(home: Home, open_desk: OpenDesk) -> None:
    home.ledger.write_bytes(home.ledger.read_bytes().replace(b"lagos", b"abuja"))

    with pytest.raises(ChainBroken):
        open_desk(replying(REPLY))[0].answer(pack(TASK))


def test_without_settings_nobody_knows_by_what_right_and_nothing_leaves(home: Home, open_desk: OpenDesk) -> None:
    home.settings.unlink()

    with pytest.raises(ConfigError):
        open_desk()[0].answer(pack(TASK))


# --- hours and deadlines ----------------------------------------------------------------------------------------------------


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
    assert tuple(command[len(WORKER) + 3 :]) == told


def test_an_evaluation_has_a_deadline_too(open_desk: OpenDesk) -> None:
    task: EvaluateTask = messages.evaluate_task().model_copy(update={"answer_within_s": 60})
    desk, workers = open_desk(replying(messages.evaluate_reply()))

    desk.answer(pack(task))

    assert workers.commands[0][-2:] == ["--seconds", "60"]
