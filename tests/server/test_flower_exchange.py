"""Flower's grid seen as an exchange: who is asked, how answers come, and what is made of odd ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import pytest
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig
from brainunet.flower_records import from_records, to_records
from brainunet.records import AnyTask, TrainReply, TrainTask
from brainunet.wire import pack, unpack
from brainunet_server.answers import Answer
from brainunet_server.flower import app
from brainunet_server.flower.app import FlowerExchange
from tests.support.replies import PLAN, START, train_reply

TASK = TrainTask(
    run=PLAN.run, round=1, model=ModelConfig(), preprocess=PreprocessConfig(), train=TrainConfig(), seed=7, weights=START
)
Respond = Callable[[Message], Message | None]


class GridOfFunctions:
    """Nodes that answer by a function each, the last asked first; None never answers."""

    def __init__(self, nodes: dict[str, Respond], *, every_reply: int = 1) -> None:
        self._nodes, self._times = list(nodes.items()), every_reply
        self.pushed: list[Message] = []

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=100 + i, name=name) for i, (name, _) in enumerate(self._nodes)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{len(self.pushed)}"
            self.pushed.append(message)
            yield message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message in reversed(self.pushed):
            if message.metadata.message_id in set(message_ids):
                reply = self._nodes[message.metadata.dst_node_id - 100][1](message)
                if reply is not None:
                    return [reply] * self._times
        return []


def answers(message: Message) -> Message:
    return Message(to_records(pack(train_reply(0.5))), reply_to=message)


def with_records(records: RecordDict) -> Respond:
    return lambda message: Message(records, reply_to=message)


def never(message: Message) -> None:
    return None


@pytest.fixture(autouse=True)
def _in_a_task_of_flower_that_polls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(app, "POLL_S", 0.01)


def ask(grid: GridOfFunctions, sites: list[str] | None = None, *, deadline_s: float = 0.2) -> list[Answer]:
    exchange = FlowerExchange(cast(Grid, grid), deadline_s)
    return list(exchange.ask(TASK, exchange.sites() if sites is None else sites))


def test_every_site_gets_the_task_and_its_answer_carries_its_name() -> None:
    grid = GridOfFunctions({"NKDC": answers, "CRV": answers})

    got = ask(grid)

    assert [answer.site for answer in got] == ["NKDC", "CRV"]  # as they arrive
    for answer in got:
        assert isinstance(answer.reply, TrainReply)
        assert answer.reply.delta.flat().tolist() == [0.5] * 5
        assert answer.bytes_down > START.n_bytes
        assert answer.bytes_up > START.n_bytes
    for message in grid.pushed:
        task: AnyTask = unpack(from_records(message.content), TrainTask)
        assert task.weights.digest == START.digest
        assert message.metadata.message_type == "train"
    assert grid.pushed[0].content is grid.pushed[1].content  # encoded once


def test_a_site_that_is_not_there_or_does_not_answer_comes_last_with_the_reason() -> None:
    got = ask(GridOfFunctions({"CRV": never, "NKDC": answers}), ["CRV", "LILY", "NKDC"])

    assert [(answer.site, answer.problem) for answer in got] == [
        ("NKDC", None),
        ("CRV", "no reply in time"),
        ("LILY", "not connected"),
    ]
    assert [answer.reply is None for answer in got] == [False, True, True]


def test_a_reply_that_comes_twice_counts_once() -> None:
    assert [answer.site for answer in ask(GridOfFunctions({"CRV": answers, "NKDC": answers}, every_reply=2))] == ["NKDC", "CRV"]


@pytest.mark.parametrize(
    "respond",
    [
        with_records(RecordDict()),
        with_records(to_records(pack(TASK))),
        with_records(
            RecordDict(
                {
                    **to_records(pack(train_reply(0.5))),
                    "values": ArrayRecord({"values": Array("float32", (1,), "numpy.ndarray", b"PK\x03\x04")}),
                }
            )
        ),
    ],
    ids=["empty", "a task", "broken values"],
)
def test_bytes_that_are_no_reply_are_a_problem_of_that_site_alone(respond: Respond) -> None:
    odd, good = sorted(ask(GridOfFunctions({"CRV": respond, "NKDC": answers})), key=lambda answer: answer.site)

    assert odd.reply is None
    assert odd.problem is not None
    assert odd.problem.startswith("message: ")
    assert odd.unreadable
    assert isinstance(good.reply, TrainReply)


def test_of_flower_s_own_errors_only_the_number_is_kept() -> None:
    (answer,) = ask(GridOfFunctions({"CRV": lambda message: Message(Error(2, "patient Jane Doe"), reply_to=message)}))

    assert (answer.reply, answer.problem) == (None, "Flower error 2")


def test_a_grid_without_nodes_has_no_sites_and_no_answers() -> None:
    assert ask(GridOfFunctions({})) == []
