"""An exchange with hospitals behind bad links: what they lost is given again, what they sent counts once, and time ends it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict

from brainunet.records import EvaluateTask, TrainReply, TrainTask
from brainunet.wire import pack
from brainunet_server.answers import Answer
from brainunet_server.flower.fleet import FleetExchange
from tests.support.fleet import Fleet, Parcel, Work, at_once, fleet, superlink
from tests.support.replies import PLAN, START, evaluate_reply, train_reply

__all__ = ["fleet", "superlink"]  # fixtures

TASK = TrainTask(run=PLAN.run, round=1, model=PLAN.model, preprocess=PLAN.preprocess, train=PLAN.train, seed=7, weights=START)
EVALUATE = EvaluateTask(run=PLAN.run, round=3, model=PLAN.model, preprocess=PLAN.preprocess, weights=START)


@pytest.fixture
def crv(fleet: Fleet) -> Work:
    return Work(fleet.node("CRV"))


def nothing() -> None:
    pass


def test_a_task_is_fetched_and_its_reply_comes_back_as_it_was_sent(fleet: Fleet, crv: Work) -> None:
    got = list[Any]()

    def takes() -> None:
        crv.delivered = crv.node.asks()
        assert crv.delivered is not None
        got.append(crv.node.fetches(crv.delivered))

    (answer,) = fleet.ask(TASK, ["CRV"], takes, crv.answers)

    assert got[0].model_dump(exclude={"weights"}) == TASK.model_dump(exclude={"weights"})
    assert got[0].weights.digest == START.digest
    assert (answer.site, answer.problem, answer.unreadable) == ("CRV", None, False)
    assert isinstance(answer.reply, TrainReply)
    assert answer.reply.delta.flat().tolist() == [0.5] * 5
    sent = pack(train_reply(0.5))
    assert (answer.bytes_down, answer.bytes_up) == (pack(TASK).n_bytes, sent.n_bytes)


def test_each_site_gets_the_head_of_its_own_ledger_back_with_the_same_weights(fleet: Fleet, crv: Work) -> None:
    lasuth = Work(fleet.node("LASUTH"))
    fleet.heads = {"CRV": "ab" * 32}
    got = dict[str, Any]()

    def takes(work: Work, site: str) -> Callable[[], None]:
        def take() -> None:
            work.delivered = work.node.asks()
            assert work.delivered is not None
            got[site] = work.node.fetches(work.delivered)

        return take

    answers = fleet.ask(TASK, ["CRV", "LASUTH"], takes(crv, "CRV"), takes(lasuth, "LASUTH"), crv.answers, lasuth.answers)

    assert {site: task.ledger_head for site, task in got.items()} == {"CRV": "ab" * 32, "LASUTH": ""}
    assert {task.weights.digest for task in got.values()} == {START.digest}
    assert all(isinstance(answer.reply, TrainReply) for answer in answers)


def test_the_digest_of_an_answer_is_that_of_the_values_that_were_sent(fleet: Fleet, crv: Work) -> None:
    import hashlib

    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, crv.answers)

    values = pack(train_reply(0.5)).values
    assert values is not None
    assert answer.digest == hashlib.sha256(values.tobytes()).hexdigest()


def test_an_evaluation_has_no_values_and_no_digest(fleet: Fleet, crv: Work) -> None:
    crv.reply = evaluate_reply()

    (answer,) = fleet.ask(EVALUATE, ["CRV"], crv.takes, crv.answers)

    assert answer.reply == crv.reply
    assert answer.digest is None


def test_each_site_gets_the_weights_that_are_stored_once(fleet: Fleet) -> None:
    works = [Work(fleet.node(site)) for site in ("CRV", "LASUTH", "NKDC")]
    stored = list[int]()

    steps: list[Callable[[], object]] = [lambda: stored.append(len(fleet.state.object_store))]
    for work in works:
        steps += [work.takes, work.answers]
    answers = fleet.ask(TASK, ["CRV", "LASUTH", "NKDC"], *steps)

    assert [answer.site for answer in answers] == ["CRV", "LASUTH", "NKDC"]
    one = stored[0] - 2  # each message beyond the first is one object more, its content the same
    assert one < 10


def test_sites_are_asked_by_name_and_who_is_not_there_comes_last(fleet: Fleet, crv: Work) -> None:
    fleet.node("NKDC").deactivate()

    answers = fleet.ask(TASK, ["ABUTH", "CRV"], crv.takes, crv.answers)

    assert [(answer.site, answer.problem, answer.bytes_down) for answer in answers] == [
        ("CRV", None, pack(TASK).n_bytes),
        ("ABUTH", "not connected", 0),
    ]
    exchange = FleetExchange(fleet.superlink, fleet.run, deadline_s=1, silence_s=10)
    assert exchange.sites() == ["CRV"]


def test_nobody_asked_is_nobody_waited_for(fleet: Fleet) -> None:
    assert fleet.ask(TASK, []) == []
    assert [answer.problem for answer in fleet.ask(TASK, ["ABUTH"])] == ["not connected"]
    assert fleet.clock.now == 1000


def test_a_task_is_delivered_again_to_a_node_that_asks_again_before_it_has_replied(fleet: Fleet, crv: Work) -> None:
    seen = list[str]()

    def takes() -> None:
        crv.takes()
        assert crv.delivered is not None
        seen.append(crv.delivered.message.metadata.message_id)

    (answer,) = fleet.ask(TASK, ["CRV"], takes, takes, takes, crv.answers)

    assert len(set(seen)) == 1
    assert answer.reply is not None


def test_a_task_that_got_lost_on_the_way_is_delivered_again(fleet: Fleet, crv: Work) -> None:
    (answer,) = fleet.ask(TASK, ["CRV"], crv.node.asks, crv.takes, crv.answers)

    assert answer.reply is not None


def test_half_a_reply_is_no_answer(fleet: Fleet, crv: Work) -> None:
    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, crv.answers_half)

    assert (answer.reply, answer.problem) == (None, "no reply in time")


def test_half_a_reply_is_completed_in_a_second_try_and_only_what_is_missing_travels(fleet: Fleet, crv: Work) -> None:
    travelled = list[int]()

    def completes() -> None:
        assert crv.parcel is not None
        travelled.extend([len(crv.parcel.objects), len(crv.node.replies(crv.parcel))])

    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, crv.answers_half, completes)

    assert answer.reply is not None
    assert travelled[0] > 5
    assert travelled[1] == 2


def test_half_a_reply_is_replaced_by_a_whole_one_to_the_task_delivered_again(fleet: Fleet, crv: Work) -> None:
    travelled = list[int]()

    def other_reply() -> None:
        parcel = crv.makes()
        assert crv.parcel is not None
        assert parcel.message.metadata.message_id != crv.parcel.message.metadata.message_id
        travelled.extend([len(parcel.objects), len(crv.node.replies(parcel))])

    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, crv.answers_half, crv.takes, other_reply)

    assert isinstance(answer.reply, TrainReply)
    assert answer.reply.delta.flat().tolist() == [0.5] * 5
    assert travelled[1] < travelled[0] / 2  # the equal chunks of both are here already


def test_a_task_with_a_whole_reply_is_never_delivered_again(fleet: Fleet) -> None:
    crv, nkdc = Work(fleet.node("CRV")), Work(fleet.node("NKDC"))

    answers = fleet.ask(
        TASK,
        ["CRV", "NKDC"],
        crv.takes,
        at_once(crv.answers, crv.is_given_nothing),  # whole, but not yet looked at
        crv.is_given_nothing,
        nkdc.takes,
        nkdc.answers,
    )

    assert [answer.site for answer in answers] == ["CRV", "NKDC"]


def test_a_second_whole_reply_is_not_taken(fleet: Fleet) -> None:
    crv, nkdc = Work(fleet.node("CRV")), Work(fleet.node("NKDC"))

    def answers_again() -> None:
        crv.reply = train_reply(9.0)
        assert crv.node.announces(crv.makes())[0] == []

    answers = fleet.ask(
        TASK,
        ["CRV", "NKDC"],
        crv.takes,
        at_once(crv.answers, answers_again),
        answers_again,
        nkdc.takes,
        nkdc.answers,
    )

    assert [answer.site for answer in answers] == ["CRV", "NKDC"]
    assert isinstance(answers[0].reply, TrainReply)
    assert answers[0].reply.delta.flat().tolist() == [0.5] * 5


def test_an_object_that_is_pushed_twice_is_said_to_be_stored_both_times(fleet: Fleet, crv: Work) -> None:
    def pushes_twice() -> None:
        crv.chunk = 8
        parcel = crv.makes()
        wanted, session = crv.node.announces(parcel)
        for object_id in wanted:
            assert crv.node.sends(parcel, [object_id, object_id], session) == [True, True]

    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, pushes_twice)

    assert answer.reply is not None


def test_bytes_that_are_not_the_object_they_are_called_are_not_stored(fleet: Fleet, crv: Work) -> None:
    def pushes_others() -> None:
        parcel = crv.makes()
        wanted, session = crv.node.announces(parcel)
        mixed = Parcel(parcel.message, parcel.tree, dict.fromkeys(wanted, parcel.objects[wanted[0]]))
        assert crv.node.sends(mixed, wanted[1:], session) == [False] * (len(wanted) - 1)

    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, pushes_others)

    assert (answer.reply, answer.problem) == (None, "no reply in time")


def test_the_deadline_ends_an_exchange_and_names_who_has_not_replied(fleet: Fleet) -> None:
    crv, nkdc = Work(fleet.node("CRV")), Work(fleet.node("NKDC"))

    answers = fleet.ask(TASK, ["CRV", "NKDC"], crv.takes, nkdc.takes, nkdc.answers, deadline_s=6)

    assert [(answer.site, answer.problem) for answer in answers] == [("NKDC", None), ("CRV", "no reply in time")]
    assert 1006 <= fleet.clock.now < 1007


def test_half_a_reply_does_not_hold_up_the_deadline(fleet: Fleet, crv: Work) -> None:
    fleet.ask(TASK, ["CRV"], crv.takes, crv.answers_half, deadline_s=6)

    assert 1006 <= fleet.clock.now < 1007


def test_without_a_deadline_all_are_waited_for(fleet: Fleet, crv: Work) -> None:
    (answer,) = fleet.ask(TASK, ["CRV"], lambda: fleet.clock.sleep(10**8), nothing, crv.takes, crv.answers, deadline_s=None)

    assert answer.reply is not None


def test_a_site_of_which_nothing_was_heard_is_not_waited_for(fleet: Fleet, crv: Work) -> None:
    nkdc = Work(fleet.node("NKDC"))
    fleet.state.heard[crv.node.id] = datetime.now(UTC) - timedelta(seconds=31)

    def later() -> None:
        fleet.clock.sleep(31)

    answers = fleet.ask(TASK, ["CRV", "NKDC"], later, nothing, nkdc.takes, nkdc.answers, deadline_s=1000, silence_s=30)

    assert [(answer.site, answer.problem) for answer in answers] == [("CRV", "nothing heard of it"), ("NKDC", None)]
    assert answers[0].bytes_down == pack(TASK).n_bytes


def test_at_the_beginning_nobody_is_silent_yet(fleet: Fleet, crv: Work) -> None:
    fleet.state.heard.clear()

    (answer,) = fleet.ask(TASK, ["CRV"], *[nothing] * 5, crv.takes, crv.answers, deadline_s=1000, silence_s=30)

    assert answer.reply is not None


def test_a_site_that_is_revoked_in_the_middle_is_not_waited_for(fleet: Fleet, crv: Work) -> None:
    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, lambda: fleet.superlink.expel("CRV"), nothing, deadline_s=1000)

    assert (answer.reply, answer.problem) == (None, "nothing heard of it")
    assert fleet.clock.now < 1010


def test_bytes_that_are_no_reply_are_that_sites_problem_alone(fleet: Fleet) -> None:
    crv, nkdc = Work(fleet.node("CRV")), Work(fleet.node("NKDC"))
    crv.reply = RecordDict({"header": ConfigRecord({"header": "not JSON"})})

    crv_answer, nkdc_answer = fleet.ask(TASK, ["CRV", "NKDC"], crv.takes, crv.answers, nkdc.takes, nkdc.answers)

    assert (crv_answer.reply, crv_answer.unreadable) == (None, True)
    assert nkdc_answer.reply is not None


@pytest.mark.parametrize("sites", [5, 20])
def test_replies_of_many_sites_leave_nothing_behind(fleet: Fleet, sites: int) -> None:
    names = [f"S{number:02d}" for number in range(sites)]
    stored = list[int]()
    steps: list[Callable[[], object]] = []
    for number, name in enumerate(names):
        work = Work(fleet.node(name), train_reply(number / 10))
        steps.append(at_once(work.takes, work.answers, lambda: stored.append(len(fleet.state.object_store))))

    answers: list[Answer] = fleet.ask(TASK, names, *steps)

    assert [answer.site for answer in answers] == names
    assert len(stored) == sites
    assert max(stored) == stored[0]  # what was taken is gone before the next one comes
    assert len(fleet.state.object_store) == 0
    assert (fleet.state.num_message_ins(), fleet.state.num_message_res()) == (0, 0)


def test_an_exchange_that_is_broken_off_leaves_nothing_behind(fleet: Fleet, crv: Work) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fleet.ask(TASK, ["CRV"], crv.takes, crv.answers_half, stop)

    assert len(fleet.state.object_store) == 0
    assert fleet.state.object_store.held == set()
    crv.is_given_nothing()
    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, crv.answers)
    assert answer.reply is not None


def test_one_exchange_after_the_other_each_gives_its_own_task(fleet: Fleet, crv: Work) -> None:
    for number in (1, 2, 3):
        crv.reply = train_reply(float(number), round=number)
        task = TASK.model_copy(update={"round": number})
        (answer,) = fleet.ask(task, ["CRV"], crv.takes, crv.answers)
        assert isinstance(answer.reply, TrainReply)
        assert (answer.reply.round, answer.reply.delta.flat().tolist()) == (number, [float(number)] * 5)
        assert len(fleet.state.object_store) == 0
