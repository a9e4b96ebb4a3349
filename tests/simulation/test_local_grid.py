"""Flower's grid in one process keeps the promises of the real one that the server relies on."""

from __future__ import annotations

import gc
import weakref
from itertools import permutations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

from brainunet_sim.local_grid import LocalGrid, run_locally

SITES = ("CRV", "MEDHUB", "NKDC")


@pytest.fixture(autouse=True)
def _in_a_task_of_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Clients:
    """An app that notes who worked, and answers with the array it was sent plus one."""

    def __init__(self) -> None:
        self.worked: list[str] = []
        self.made: list[weakref.ref[RecordDict]] = []
        self.app = ClientApp()
        self.app.train()(self._answer)

        @self.app.evaluate()
        def fail(message: Message, context: Context) -> Message:
            raise OSError(f"no disk for message {message.metadata.message_id}")

    def _answer(self, message: Message, context: Context) -> Message:
        self.worked.append(str(context.node_config["site"]))
        values = message.content.array_records["values"]["values"].numpy()
        content = content_of(values + 1)
        self.made.append(weakref.ref(content))
        return Message(content, reply_to=message)

    def alive(self) -> int:
        gc.collect()
        return sum(made() is not None for made in self.made)


def content_of(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> RecordDict:
    return RecordDict({"values": ArrayRecord({"values": Array(values)})})


def question(node: int, value: float = 0.0, kind: str = MessageType.TRAIN) -> Message:
    return Message(content_of(np.array([value], np.float32)), dst_node_id=node, message_type=kind)


def value_of(message: Message) -> float:
    return float(message.content.array_records["values"]["values"].numpy()[0])


def test_sites_are_found_by_name_and_a_site_knows_its_own() -> None:
    clients = Clients()
    grid = LocalGrid(clients.app, SITES)
    nodes = {node.name: node.node_id for node in grid.get_nodes()}

    grid.send_and_receive([question(nodes[site]) for site in reversed(SITES)])

    assert sorted(nodes) == sorted(SITES)
    assert sorted(nodes.values()) == sorted(grid.get_node_ids())
    assert all(node.status == "online" for node in grid.get_nodes())
    assert clients.worked == list(reversed(SITES))


def test_a_reply_says_which_message_it_answers_and_who_sent_it() -> None:
    grid = LocalGrid(Clients().app, SITES)
    asked = dict(zip(grid.push_messages([question(node, value=10 * node) for node in (1, 2, 3)]), (1, 2, 3), strict=True))

    replies = [reply for name in asked for reply in grid.pull_messages([name])]

    assert len(set(asked)) == 3
    assert [asked[reply.metadata.reply_to_message_id] for reply in replies] == [1, 2, 3]
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2, 3]
    assert [value_of(reply) for reply in replies] == [11, 21, 31]
    assert not any(reply.has_error() for reply in replies)


def test_each_reply_comes_once_and_only_for_the_ids_that_were_asked_for() -> None:
    grid = LocalGrid(Clients().app, SITES)
    first, second = grid.push_messages([question(1), question(2)])

    assert [reply.metadata.reply_to_message_id for reply in grid.pull_messages([second])] == [second]
    assert list(grid.pull_messages([second, "message-99"])) == []
    assert [reply.metadata.reply_to_message_id for reply in grid.pull_messages([second, first])] == [first]
    assert list(grid.pull_messages([first, second])) == []


def test_ids_differ_from_one_round_to_the_next() -> None:
    grid = LocalGrid(Clients().app, SITES)

    assert set(grid.push_messages([question(1)])).isdisjoint(grid.push_messages([question(1)]))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_work_is_done_in_the_order_of_the_ids_pulled(order: tuple[int, ...]) -> None:
    clients = Clients()
    grid = LocalGrid(clients.app, SITES)
    ids = list(grid.push_messages([question(node) for node in (1, 2, 3)]))

    while list(grid.pull_messages([ids[i] for i in order])):
        pass

    assert clients.worked == [SITES[i] for i in order]


def test_a_message_waits_until_it_is_pulled_and_one_pull_does_one_sites_work() -> None:
    clients = Clients()
    grid = LocalGrid(clients.app, SITES)
    ids = list(grid.push_messages([question(node) for node in (1, 2, 3)]))
    assert clients.worked == []

    for done in (1, 2, 3):
        assert len(list(grid.pull_messages(ids))) == 1
        assert len(clients.worked) == done


@pytest.mark.slow
def test_the_grid_keeps_no_reply_so_that_one_at_a_time_is_in_memory() -> None:
    clients = Clients()
    grid = LocalGrid(clients.app, SITES)
    ids = list(grid.push_messages([question(node) for node in (1, 2, 3)]))

    for _ in ids:
        (reply,) = grid.pull_messages(ids)
        assert clients.alive() == 1
        del reply
        assert clients.alive() == 0


def test_asking_and_waiting_in_one_call_gives_all_replies() -> None:
    replies = LocalGrid(Clients().app, SITES).send_and_receive([question(3, 1.0), question(1, 2.0)], timeout=0.0)

    assert [value_of(reply) for reply in replies] == [2.0, 3.0]


def test_an_error_that_the_app_lets_out_ends_the_simulation_instead_of_looking_like_a_silent_site() -> None:
    grid = LocalGrid(Clients().app, SITES)
    ids = list(grid.push_messages([question(1, kind=MessageType.EVALUATE)]))

    with pytest.raises(OSError, match="no disk for message message-1"):
        grid.pull_messages(ids)
    assert list(grid.pull_messages(ids)) == []


def test_ctrl_c_in_a_sites_work_reaches_the_person() -> None:
    app = ClientApp()

    @app.train()
    def interrupted(message: Message, context: Context) -> Message:
        raise KeyboardInterrupt

    grid = LocalGrid(app, SITES)
    with pytest.raises(KeyboardInterrupt):
        grid.send_and_receive([question(1)])


def test_a_server_app_runs_to_its_end_on_it_and_its_error_comes_out() -> None:
    clients, seen = Clients(), list[float]()
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        seen.extend(value_of(reply) for reply in grid.send_and_receive([question(node) for node in grid.get_node_ids()]))
        raise ValueError("the end")

    with pytest.raises(ValueError, match="the end"):
        run_locally(server, clients.app, SITES)
    assert seen == [1.0, 1.0, 1.0]
    assert clients.worked == list(SITES)


def test_what_a_site_keeps_between_messages_is_its_own() -> None:
    app = ClientApp()

    @app.train()
    def counting(message: Message, context: Context) -> Message:
        before = context.state.array_records.get("count")
        count = 0.0 if before is None else float(before["values"].numpy()[0])
        context.state["count"] = content_of(np.array([count + 1], np.float32)).array_records["values"]
        return Message(RecordDict({"values": context.state.array_records["count"]}), reply_to=message)

    grid = LocalGrid(app, SITES)
    counts = [value_of(reply) for reply in grid.send_and_receive([question(1), question(1), question(2)])]

    assert counts == [1.0, 2.0, 1.0]
