"""Workers that come to grief and messages that are no task: the coordinator hears a code, and this site keeps the reason."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from brainunet.records import FaultCode, TrainReply, TrainTask
from brainunet.wire import Packed, pack
from brainunet_client.answering import run_command
from brainunet_client.home import Home
from tests.support import messages
from tests.support.desks import OpenDesk, code_of, ending, home, open_desk, said, sent

__all__ = ["home", "open_desk", "said"]

TASK: TrainTask = messages.train_task()
REPLY: TrainReply = messages.train_reply()


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
    "another protocol": Packed(json.dumps(json.loads(pack(TASK).header) | {"protocol": 1}), pack(TASK).values),
    "a field of another version": Packed(json.dumps(json.loads(pack(TASK).header) | {"run_code": "x"}), pack(TASK).values),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_message_that_is_no_task_is_answered_without_any_work(what: str, home: Home, open_desk: OpenDesk) -> None:
    desk, workers = open_desk()

    assert code_of(desk.answer(UNREADABLE[what])) is FaultCode.TASK_NOT_UNDERSTOOD

    assert (workers.count, [(entry["run"], entry["message"]) for entry in sent(home)]) == (0, [("unknown", "fault")])
    assert not home.received.exists()
