"""A task is answered once, whatever is cut off in the middle; nothing leaves that the ledger does not tell of."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from brainunet.errors import BrainUNetError, ChainBroken, ConfigError
from brainunet.records import AnyTask, Fault, FaultCode, Reply, TrainReply, TrainTask
from brainunet.spool import read_packed, write_packed
from brainunet.wire import Packed, pack
from brainunet_client.answering import run_command
from brainunet_client.home import Home
from brainunet_client.ledger import figures_of
from tests.support import messages
from tests.support.desks import OpenDesk, code_of, ending, home, is_the, open_desk, replying, said, sent
from tests.support.homes import set_to

__all__ = ["home", "open_desk", "said"]

TASK: TrainTask = messages.train_task()
REPLY: TrainReply = messages.train_reply()


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


@pytest.mark.parametrize("before", ["", "# nobody yet\n", None])
def test_a_reply_from_before_a_consent_was_withdrawn_is_not_sent_after_it(
    before: str | None, home: Home, open_desk: OpenDesk
) -> None:
    home.consent.unlink(missing_ok=True)
    if before is not None:
        home.consent.write_text(before)
    desk, workers = open_desk(replying(REPLY), replying(REPLY))
    desk.answer(pack(TASK))
    home.consent.write_text("BraTS-SSA-00002\n")

    for _ in range(2):
        assert is_the(REPLY, desk.answer(pack(TASK)))

    assert workers.count == 2
    assert len(list(home.work.glob("reply-*"))) == 1


OWN = "[privacy]\npublic_cases = 40\nepsilon = {}\n"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("", OWN.format(8.0)),
        (OWN.format(8.0), OWN.format(2.0)),
        (OWN.format(8.0), OWN.format(8.0) + "tell_scores = false\n"),
        ("min_cases = 3\n", "min_cases = 5\n"),
    ],
    ids=["privacy", "epsilon", "scores", "min_cases"],
)
def test_a_reply_from_before_the_hospital_allowed_less_is_not_sent_after_it(
    before: str, now: str, home: Home, open_desk: OpenDesk
) -> None:
    set_to(home, before)
    desk, workers = open_desk(replying(REPLY), replying(messages.evaluate_reply()))
    desk.answer(pack(TASK))
    set_to(home, now)

    assert is_the(messages.evaluate_reply(), desk.answer(pack(TASK)))
    assert workers.count == 2


def test_a_budget_that_was_raised_is_used_when_the_round_is_asked_for_again(home: Home, open_desk: OpenDesk) -> None:
    set_to(home, OWN.format(8.0))
    spent = messages.evaluate_reply().model_copy(update={"budget_spent": True})
    desk, workers = open_desk(replying(spent), replying(messages.private_reply()))
    assert is_the(spent, desk.answer(pack(TASK)))
    set_to(home, OWN.format(16.0))

    assert is_the(messages.private_reply(), desk.answer(pack(TASK)))
    assert workers.count == 2


def test_what_the_coordinator_knows_of_the_ledger_and_how_long_it_waits_make_no_other_task(open_desk: OpenDesk) -> None:
    """A second training would cost a private site a second time."""
    desk, workers = open_desk(replying(REPLY))
    desk.answer(pack(TASK))

    for change in ({"ledger_head": "ab" * 32}, {"answer_within_s": 7200}, {"answer_within_s": None}):
        assert is_the(REPLY, desk.answer(pack(TASK.model_copy(update=change))))

    assert workers.count == 1


def test_a_register_that_is_missing_is_as_an_empty_one(home: Home, open_desk: OpenDesk) -> None:
    home.consent.write_bytes(b"")
    desk, workers = open_desk(replying(REPLY))
    desk.answer(pack(TASK))
    home.consent.unlink()

    desk.answer(pack(TASK))

    assert workers.count == 1


def test_no_kept_reply_leaves_while_the_register_can_not_be_read(home: Home, open_desk: OpenDesk) -> None:
    desk, _ = open_desk(replying(REPLY))
    desk.answer(pack(TASK))
    home.consent.unlink()
    home.consent.mkdir()

    assert code_of(desk.answer(pack(TASK))) is FaultCode.SITE_NOT_READY


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
    "of another version": lambda file: write_packed(file, Packed('{"kind": "train_reply", "protocol": 1}')),
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
    "another protocol": Packed(json.dumps(json.loads(pack(TASK).header) | {"protocol": 1}), pack(TASK).values),
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
