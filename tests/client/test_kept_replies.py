"""A reply is kept until it is asked for again, and leaves only while what it was made under still holds."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from brainunet.records import AnyTask, Fault, FaultCode, Reply, TrainReply, TrainTask
from brainunet.spool import write_packed
from brainunet.wire import Packed, pack
from brainunet_client.home import Home
from tests.support import messages
from tests.support.desks import OpenDesk, code_of, ending, home, is_the, open_desk, replying, said, sent
from tests.support.homes import set_to

__all__ = ["home", "open_desk", "said"]

TASK: TrainTask = messages.train_task()
REPLY: TrainReply = messages.train_reply()


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
