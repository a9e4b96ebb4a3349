"""Nodes of hospitals in the server's own process: they ask Flower's fleet handlers what they would ask over the network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, RecordDict
from flwr.app.message import array as flower_array
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import fleet_pb2, message_pb2
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.servicer.fleet import fleet_handlers

from brainunet.certificates import new_site_key
from brainunet.flower_environment import CHUNK_BYTES
from brainunet.flower_records import from_records, to_records
from brainunet.records import AnyTask, Reply
from brainunet.signing import new_signing_key
from brainunet.wire import pack, unpack
from brainunet_server.answers import Answer
from brainunet_server.flower import fleet as fleet_module
from brainunet_server.flower.fleet import FleetExchange, object_tree_ids
from brainunet_server.flower.linkstate import LinkState
from brainunet_server.flower.superlink import SuperLink
from tests.support.replies import train_reply

HEARTBEAT_S = 600.0


def new_superlink(folder: Path) -> SuperLink:
    return SuperLink(folder / "objects", "Glioma Africa")


@contextmanager
def flower_as_it_is() -> Iterator[None]:
    """Flower uses an older spelling of pathspec, which tells so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "GitWildMatchPattern", DeprecationWarning)
        yield


@dataclass(frozen=True)
class Delivered:
    """A task as it arrives: the message, and the ids of the objects that it is made of."""

    message: Message
    ids: Sequence[str]


@dataclass(frozen=True)
class Parcel:
    """A reply as it leaves: the message without its content, its tree, and its objects by id."""

    message: Message
    tree: Any
    objects: Mapping[str, bytes]


@dataclass
class FakeNode:
    """The node of ``site``, let in with a key of its own; what ``messages`` holds is what it has been given."""

    superlink: SuperLink
    site: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_site_key)

    def __post_init__(self) -> None:
        self.public = public_key_to_bytes(self.key.public_key())
        self.superlink.admit(self.site, self.key.public_key())
        self.activate()

    @property
    def state(self) -> LinkState:
        return self.superlink.state

    @property
    def node(self) -> Node:
        return Node(node_id=self.id)

    def activate(self) -> None:
        request = fleet_pb2.ActivateNodeRequest(public_key=self.public, heartbeat_interval=HEARTBEAT_S)
        self.id = int(fleet_handlers.activate_node(request, self.state).node_id)

    def deactivate(self) -> None:
        fleet_handlers.deactivate_node(fleet_pb2.DeactivateNodeRequest(node_id=self.id), self.state)

    def asks(self) -> Delivered | None:
        """What it is given when it asks for work."""
        told = fleet_handlers.pull_messages(fleet_pb2.PullMessagesRequest(node=self.node), self.state, self.state.object_store)
        if not told.messages_list:
            return None
        return Delivered(message_from_proto(told.messages_list[0]), object_tree_ids(told.message_object_trees[0]))

    def fetches(self, delivered: Delivered) -> AnyTask | None:
        """The task, once every object of it was fetched and its receipt was confirmed; None if one is not there."""
        run = delivered.message.metadata.run_id
        contents = {}
        for object_id in delivered.ids:
            request = message_pb2.PullObjectRequest(node=self.node, run_id=run, object_id=object_id)
            told = fleet_handlers.pull_object(request, self.state)
            if not told.object_available:
                return None
            contents[object_id] = told.object_content
        whole: Any = inflate_object_from_contents(delivered.message.metadata.message_id, contents)
        confirmed = message_pb2.ConfirmMessageReceivedRequest(
            node=self.node, run_id=run, message_object_id=delivered.message.metadata.message_id
        )
        fleet_handlers.confirm_message_received(confirmed, self.state, self.state.object_store)
        task: AnyTask = unpack(from_records(whole.content), AnyTask)
        return task

    def parcel(self, delivered: Delivered, content: Reply | RecordDict, *, chunk: int = CHUNK_BYTES, **metadata: Any) -> Parcel:
        """A reply in chunks of so many bytes; ``metadata`` in place of what Flower would say."""
        records = content if isinstance(content, RecordDict) else to_records(pack(content))
        with self._speaking(delivered.message.metadata.run_id), no_object_id_recompute(), chunks_of(chunk):
            message = Message(records, reply_to=delivered.message)
            message.metadata.__dict__.update({f"_{name}": value for name, value in metadata.items()})
            message.metadata.__dict__["_message_id"] = message.object_id
            objects = {object_id: part.deflate() for object_id, part in get_all_nested_objects(message).items()}
            return Parcel(remove_content_from_message(message), get_object_tree(message), objects)

    def announces(self, parcel: Parcel) -> tuple[list[str], str]:
        """The objects that the server wants, and the session in which to send them."""
        told = fleet_handlers.push_messages(
            fleet_pb2.PushMessagesRequest(
                node=self.node,
                messages_list=[message_to_proto(parcel.message)],
                message_object_trees=[parcel.tree],
                clientapp_runtime_list=[1.0],
            ),
            self.state,
        )
        return list(told.objects_to_push), told.session_id

    def sends(self, parcel: Parcel, ids: Sequence[str], session: str) -> list[bool]:
        """Whether each object was taken."""
        return [
            fleet_handlers.push_object(
                message_pb2.PushObjectRequest(
                    node=self.node,
                    run_id=parcel.message.metadata.run_id,
                    session_id=session,
                    object_id=object_id,
                    object_content=parcel.objects[object_id],
                ),
                self.state,
            ).stored
            for object_id in ids
        ]

    def replies(self, parcel: Parcel) -> list[str]:
        """Bring a reply there whole; gives what had to travel."""
        wanted, session = self.announces(parcel)
        assert all(self.sends(parcel, wanted, session))
        return wanted

    @contextmanager
    def _speaking(self, run: int) -> Iterator[None]:
        before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, self.id, 0
        try:
            yield
        finally:
            TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


def at_once(*steps: Callable[[], object]) -> Callable[[], None]:
    """These steps as one."""

    def all_of_them() -> None:
        for step in steps:
            step()

    return all_of_them


@contextmanager
def chunks_of(n_bytes: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flower_array, "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", n_bytes)
        yield


@dataclass
class Clock:
    """Time that passes only while the exchange sleeps."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Fleet:
    """A running server, the hour by which its exchanges go, and its exchanges.

    Attributes:
        late: what was told of replies that came too late.
        looks: how often an exchange has looked for replies.
        heads: of the sites' ledgers of spending, as far as they are known.
    """

    superlink: SuperLink
    run: int
    clock: Clock
    late: list[tuple[str, int]] = field(default_factory=list)
    looks: int = 0
    steps: list[Callable[[], object]] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)
    _exchanges: dict[tuple[int | None, int], FleetExchange] = field(default_factory=dict)

    @property
    def state(self) -> LinkState:
        return self.superlink.state

    def node(self, site: str) -> FakeNode:
        return FakeNode(self.superlink, site)

    def ask(
        self,
        task: AnyTask,
        sites: Sequence[str],
        *steps: Callable[[], object],
        deadline_s: int | None = 8,
        silence_s: int = 10_000,
    ) -> list[Answer]:
        """The answers of an exchange in which one of ``steps`` is done each time it has looked for replies."""
        self.steps = list(steps)
        answers = list(self.exchange(deadline_s, silence_s).ask(task, sites))
        assert not self.steps, "the exchange ended before all was done"
        return answers

    def exchange(self, deadline_s: int | None = 8, silence_s: int = 10_000) -> FleetExchange:
        """The same one for the same patience, as a run has one for all its rounds."""
        if (deadline_s, silence_s) not in self._exchanges:
            self._exchanges[deadline_s, silence_s] = FleetExchange(
                self.superlink,
                self.run,
                deadline_s=deadline_s,
                silence_s=silence_s,
                on_late=lambda site, number: self.late.append((site, number)),
                while_waiting=self._step,
                heads=lambda: self.heads,
            )
        return self._exchanges[deadline_s, silence_s]

    def _step(self) -> None:
        self.looks += 1
        assert self.looks < 10_000, "it waits for ever"
        if self.steps:
            self.steps.pop(0)()


@dataclass
class Work:
    """What a node does step by step, each as a function to be called later."""

    node: FakeNode
    reply: Any = None
    chunk: int = 1000
    delivered: Delivered | None = None
    parcel: Parcel | None = None

    def takes(self) -> None:
        self.delivered = self.node.asks()
        assert self.delivered is not None, "there was no task"
        assert self.node.fetches(self.delivered) is not None

    def is_given_nothing(self) -> None:
        assert self.node.asks() is None

    def makes(self) -> Parcel:
        assert self.delivered is not None
        return self.node.parcel(self.delivered, self.reply or train_reply(0.5), chunk=self.chunk)

    def answers(self) -> None:
        self.parcel = self.makes()
        self.node.replies(self.parcel)

    def answers_late(self, **metadata: Any) -> None:
        """Announce a reply of which the server wants nothing any more."""
        assert self.delivered is not None
        assert self.node.announces(self.node.parcel(self.delivered, train_reply(0.5), **metadata))[0] == []

    def answers_half(self) -> None:
        self.chunk = 8  # two values a piece
        self.parcel = self.makes()
        wanted, session = self.node.announces(self.parcel)
        assert all(self.node.sends(self.parcel, wanted[:-2], session))


@pytest.fixture(scope="module")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> SuperLink:
    return new_superlink(tmp_path_factory.mktemp("flower"))


@pytest.fixture
def fleet(superlink: SuperLink, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)  # put back at the end
    clock = Clock()
    monkeypatch.setattr(fleet_module, "time", clock)
    with flower_as_it_is():
        run = superlink.start_run(new_signing_key())
    yield Fleet(superlink, run, clock)
    superlink.end_run(run)
    for node in superlink.nodes():
        superlink.expel(node.site)
    superlink.state.late.clear()
    assert len(superlink.state.object_store) == 0
