"""Flower's state of nodes and messages, with what hospitals behind bad links need of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flwr.common.constant import Status
from flwr.supercore.corestate import in_memory_corestate
from flwr.supercore.error import FlowerError
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from brainunet.certificates import new_site_key
from brainunet.records import TrainTask
from brainunet_server.flower import linkstate
from tests.support.fleet import FakeNode, Fleet, Work, at_once, fleet, new_superlink, superlink
from tests.support.replies import PLAN, START, train_reply

__all__ = ["fleet", "superlink"]  # fixtures

TASK = TrainTask(run=PLAN.run, round=1, model=PLAN.model, preprocess=PLAN.preprocess, train=PLAN.train, seed=7, weights=START)


@pytest.fixture
def crv(fleet: Fleet) -> Work:
    return Work(fleet.node("CRV"))


def states(fleet: Fleet) -> dict[str, bool]:
    return {node.site: node.online for node in fleet.superlink.nodes()}


def test_a_site_is_a_node_under_its_name_and_online_once_it_has_called(fleet: Fleet) -> None:
    key = new_site_key()
    fleet.superlink.admit("CRV", key.public_key())
    (node,) = fleet.superlink.nodes()
    assert (node.site, node.online, node.last_heard) == ("CRV", False, None)

    before = datetime.now(UTC)
    crv = FakeNode(fleet.superlink, "CRV", key)

    (node,) = fleet.superlink.nodes()
    assert (node.id, node.online) == (crv.id, True)
    assert node.last_heard is not None
    assert before <= node.last_heard <= datetime.now(UTC)


def test_a_site_that_is_let_in_twice_is_one_node(fleet: Fleet, crv: Work) -> None:
    fleet.superlink.admit("CRV", crv.node.key.public_key())

    assert [node.id for node in fleet.superlink.nodes()] == [crv.node.id]


def test_nodes_stand_in_the_order_of_their_names(fleet: Fleet) -> None:
    for site in ("NKDC", "CRV", "LASUTH"):
        fleet.node(site)

    assert list(states(fleet)) == ["CRV", "LASUTH", "NKDC"]


def test_a_site_s_number_does_not_change_when_the_server_is_started_anew(tmp_path: Path) -> None:
    keys = [new_site_key() for _ in range(3)]
    numbers = []
    for order in (keys, list(reversed(keys))):
        started = new_superlink(tmp_path)
        for number, key in enumerate(order):
            started.admit(f"S{number}", key.public_key())
        known = [started.state.get_node_id_by_public_key(public_key_to_bytes(key.public_key())) for key in keys]
        numbers.append(known)

    assert numbers[0] == numbers[1]
    assert len(set(numbers[0])) == 3
    assert not {0, 1, None} & set(numbers[0])


def test_a_server_started_anew_knows_no_run_and_no_node_of_the_one_before(tmp_path: Path) -> None:
    first = new_superlink(tmp_path)
    first.admit("CRV", new_site_key().public_key())

    second = new_superlink(tmp_path)

    assert second.nodes() == []
    assert len(second.state.object_store) == 0


def test_a_node_that_crashed_may_call_again_at_once(fleet: Fleet, crv: Work) -> None:
    before = crv.node.id

    crv.node.activate()

    assert crv.node.id == before
    assert states(fleet) == {"CRV": True}


def test_a_node_that_said_goodbye_is_offline_and_may_come_back(fleet: Fleet, crv: Work) -> None:
    crv.node.deactivate()
    assert states(fleet) == {"CRV": False}

    crv.node.activate()
    assert states(fleet) == {"CRV": True}


def test_a_site_that_was_shut_out_is_no_node_and_may_not_call(fleet: Fleet, crv: Work) -> None:
    fleet.superlink.expel("CRV")

    assert fleet.superlink.nodes() == []
    with pytest.raises(FlowerError):
        crv.node.activate()
    assert fleet.state.get_node_id_by_public_key(crv.node.public) is None
    fleet.superlink.expel("CRV")  # nothing happens to one that is not there


def test_a_site_with_a_new_key_is_another_node(fleet: Fleet, crv: Work) -> None:
    fleet.superlink.expel("CRV")

    again = fleet.node("CRV")

    assert again.id != crv.node.id
    assert states(fleet) == {"CRV": True}


def test_a_site_whose_roster_line_was_restored_comes_in_with_the_key_it_had(fleet: Fleet, crv: Work) -> None:
    fleet.superlink.expel("CRV")

    crv.node.superlink.admit("CRV", crv.node.key.public_key())

    assert list(states(fleet)) == ["CRV"]


def test_each_proof_of_who_it_is_counts_as_being_heard(fleet: Fleet, crv: Work) -> None:
    fleet.state.heard[crv.node.id] = datetime.now(UTC) - timedelta(hours=1)

    assert fleet.state.get_node_id_by_public_key(crv.node.public) == crv.node.id

    assert datetime.now(UTC) - fleet.state.heard[crv.node.id] < timedelta(minutes=1)


def test_a_run_never_expires_though_nobody_sends_its_heartbeats(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory_corestate, "now", lambda: datetime.now(UTC) + timedelta(days=3650))

    assert fleet.state.get_run_status({fleet.run})[fleet.run].status == Status.RUNNING


def test_a_run_that_was_ended_is_over_and_gives_no_task(fleet: Fleet, crv: Work) -> None:
    fleet.superlink.end_run(fleet.run)

    assert fleet.state.get_run_status({fleet.run})[fleet.run].status == Status.FINISHED
    crv.is_given_nothing()


def test_an_upload_may_rest_for_hours(fleet: Fleet, crv: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def completes_later() -> None:
        monkeypatch.setattr(in_memory_corestate, "now", lambda: datetime.now(UTC) + timedelta(hours=11))
        assert crv.parcel is not None
        assert len(crv.node.replies(crv.parcel)) == 2

    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, crv.answers_half, completes_later)

    assert answer.reply is not None


def test_a_reply_of_too_many_pieces_is_refused_and_stores_nothing(
    fleet: Fleet, crv: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    crv.chunk = 4

    def announces() -> None:
        monkeypatch.setattr(linkstate, "MAX_OBJECTS_A_REPLY", 5)
        before = len(fleet.state.object_store)
        parcel = crv.makes()
        assert len(parcel.objects) > 5
        wanted, session = crv.node.announces(parcel)
        assert wanted == []
        assert not any(crv.node.sends(parcel, list(parcel.objects), session))
        assert len(fleet.state.object_store) == before

    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, announces)

    assert (answer.reply, answer.problem) == (None, "no reply in time")


def test_a_node_can_not_answer_in_the_place_of_another(fleet: Fleet, crv: Work) -> None:
    nkdc = fleet.node("NKDC")

    def answers_for_crv() -> None:
        assert crv.delivered is not None
        assert nkdc.announces(nkdc.parcel(crv.delivered, train_reply(9.0), src_node_id=nkdc.id))[0] == []

    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes, answers_for_crv, crv.answers)

    assert answer.reply is not None
    assert answer.reply.delta.flat().tolist() == [0.5] * 5  # type: ignore[union-attr]


def late_reply(fleet: Fleet, crv: Work, **metadata: str) -> None:
    """CRV takes the task of round 1 and answers when the exchange has ended."""
    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes)
    assert answer.problem == "no reply in time"
    crv.answers_late(**metadata)


def test_a_reply_after_the_end_is_told_with_its_round_in_the_next_exchange(fleet: Fleet, crv: Work) -> None:
    late_reply(fleet, crv)
    assert len(fleet.state.object_store) == 0

    fleet.ask(TASK.model_copy(update={"round": 2}), ["CRV"], crv.takes, crv.answers)

    assert fleet.late == [("CRV", 1)]
    assert fleet.state.late == []


def test_a_reply_of_a_site_that_was_silent_is_told_as_late_too(fleet: Fleet, crv: Work) -> None:
    def falls_silent() -> None:
        crv.takes()
        fleet.state.heard[crv.node.id] = datetime.now(UTC) - timedelta(hours=1)
        fleet.clock.sleep(40)

    (answer,) = fleet.ask(TASK, ["CRV"], falls_silent, deadline_s=100, silence_s=30)
    assert answer.problem == "nothing heard of it"
    crv.answers_late()

    fleet.ask(TASK.model_copy(update={"round": 2}), ["CRV"], crv.takes, crv.answers, deadline_s=100, silence_s=30)

    assert fleet.late == [("CRV", 1)]


def test_a_late_reply_of_a_site_that_was_shut_out_is_not_told(fleet: Fleet, crv: Work) -> None:
    late_reply(fleet, crv)
    fleet.superlink.expel("CRV")

    fleet.ask(TASK, [fleet.node("NKDC").site])

    assert fleet.late == []


# a node may write anything there
@pytest.mark.parametrize("group", ["", "x", "-1", "1.5", "²", "٣", "9" * 5000, "0", "31", "99999999999999999999"])
def test_a_late_reply_that_names_an_odd_round_ends_no_exchange_and_tells_no_round_that_was_not(
    fleet: Fleet, crv: Work, group: str
) -> None:
    late_reply(fleet, crv, group_id=group)

    (answer,) = fleet.ask(TASK.model_copy(update={"round": 2}), ["CRV"], crv.takes, crv.answers)

    assert answer.reply is not None
    assert all(1 <= number <= 2 for _, number in fleet.late)


def test_a_second_reply_to_the_round_in_progress_is_not_called_late(fleet: Fleet, crv: Work) -> None:
    nkdc = Work(fleet.node("NKDC"))

    def answers_again() -> None:
        crv.reply = train_reply(9.0)
        crv.node.announces(crv.makes())

    fleet.ask(TASK, ["CRV", "NKDC"], crv.takes, at_once(crv.answers, answers_again), nkdc.takes, nkdc.answers)
    fleet.ask(TASK.model_copy(update={"round": 2}), ["CRV"])

    assert fleet.late == []


def test_an_unbounded_number_of_late_replies_is_not_remembered(fleet: Fleet, crv: Work) -> None:
    (answer,) = fleet.ask(TASK, ["CRV"], crv.takes)
    assert answer.reply is None
    for number in range(20):
        crv.reply = train_reply(float(number))
        crv.node.announces(crv.makes())

    assert len(fleet.state.late) == 1


def files(fleet: Fleet) -> list[Path]:
    return list(fleet.state.object_store._folder.iterdir())


def test_what_travels_lies_in_files_that_go_with_the_exchange(fleet: Fleet, crv: Work) -> None:
    seen = list[int]()

    fleet.ask(TASK, ["CRV"], crv.takes, crv.answers_half, lambda: seen.append(len(files(fleet))), crv.takes, crv.answers)

    assert seen[0] > 5
    assert files(fleet) == []


def test_what_a_server_that_was_killed_has_left_is_removed(tmp_path: Path) -> None:
    first = new_superlink(tmp_path)
    left = first.state.object_store._folder / ("ab" * 32)
    left.write_bytes(b"left behind")

    second = new_superlink(tmp_path)

    assert not left.exists()
    assert second.nodes() == []
    assert len(second.state.object_store) == 0
