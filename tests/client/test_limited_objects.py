"""A server can't fill the hospital's memory: what no message of the protocol needs is refused, dropped and forgotten."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate import NodeState, NodeStateFactory

from brainunet_client.flower.limited_objects import LimitedObjectStore, Refused, limit_responses, pull_limited
from brainunet_client.flower.node import _PatientClient, pull_or_drop
from tests.support.homes import joined_home

RUN, NODE = 11, 5


@pytest.fixture(autouse=True)
def _ours_as_in_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, None)
    monkeypatch.setattr(start_client_internal, "pull_objects", pull_limited)


def state_with(store: LimitedObjectStore) -> NodeState:
    objects = ObjectStoreFactory()
    objects.store_instance = store
    state = NodeStateFactory(objectstore_factory=objects).state()
    state.set_node_id(NODE)
    state.store_run(replace(Run.create_empty(RUN), fab_hash="0" * 64))
    return state


class Sender:
    """What Flower asks a server for, of one message with weights of ``values`` numbers."""

    def __init__(self, values: int) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 1, 1
        content = RecordDict(
            {"header": ConfigRecord({"header": "{}"}), "values": ArrayRecord({"values": Array(np.arange(float(values)))})}
        )
        message = Message(content, dst_node_id=NODE, message_type=MessageType.TRAIN)
        message.metadata.__dict__["_message_id"] = message.object_id
        self.tree = get_object_tree(message)
        self.objects = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        self.bare = Message(RecordDict(), dst_node_id=NODE, message_type=MessageType.TRAIN)
        self.bare.metadata.__dict__.update(message.metadata.__dict__)
        self.confirmed = False

    @property
    def n_bytes(self) -> int:
        return sum(map(len, self.objects.values()))

    def confirm(self, run_id: int, message_id: str) -> None:
        self.confirmed = True


def pulled(state: NodeState, sender: Sender) -> int | None:
    def unasked(*_: object) -> Any:
        raise AssertionError("the run is known")

    return pull_or_drop(
        state=state,
        object_store=state.object_store,
        node_config={},
        receive=lambda: (sender.bare, sender.tree),
        get_run=unasked,
        get_fab=unasked,
        pull_object=lambda run_id, object_id: sender.objects[object_id],
        confirm_message_received=sender.confirm,
        trusted_entities=None,
    )


def assert_nothing_left(state: NodeState) -> None:
    assert len(state.object_store) == 0
    assert not list(state.get_messages_legacy(is_reply=False))


def test_a_message_within_the_limits_is_kept_to_be_answered() -> None:
    sender = Sender(10)
    store = LimitedObjectStore(len(sender.objects), sender.n_bytes)
    state = state_with(store)

    assert pulled(state, sender) == RUN

    assert sender.confirmed
    assert {name: store.get(name) for name in sender.objects} == sender.objects
    assert len(state.get_messages_legacy(is_reply=False)) == 1


def with_more_objects(sender: Sender) -> LimitedObjectStore:
    store = LimitedObjectStore(most_objects=len(sender.objects))
    sender.tree.children.append(ObjectTree(object_id=next(iter(sender.objects))))  # named twice: all that is named counts
    return store


LIMITS: dict[str, Callable[[Sender], LimitedObjectStore]] = {
    "too many objects": with_more_objects,
    "too many bytes": lambda sender: LimitedObjectStore(most_bytes=sender.n_bytes - 1),
}


@pytest.mark.parametrize("what", LIMITS)
def test_a_message_over_a_limit_is_dropped_and_the_next_one_is_taken(what: str) -> None:
    large, small = Sender(1000), Sender(1)
    state = state_with(LIMITS[what](large))

    for _ in range(3):
        assert pulled(state, large) is None
        assert_nothing_left(state)
    assert not large.confirmed

    assert pulled(state, small) == RUN
    assert small.confirmed


def test_a_tree_that_names_one_object_a_million_times_is_refused() -> None:
    leaf = ObjectTree(object_id="a" * 64)
    for level in "bcd":
        leaf = ObjectTree(object_id=level * 64, children=[leaf] * 100)
    store = LimitedObjectStore()

    with pytest.raises(Refused, match="more than 2100 objects"):
        store.preregister(RUN, leaf)

    assert len(store) == 0


def test_an_object_under_no_proper_name_drops_the_message_and_what_was_registered_before_it() -> None:
    sender = Sender(3)
    sender.tree.object_id = "../../etc/passwd"
    state = state_with(LimitedObjectStore())

    assert pulled(state, sender) is None

    assert_nothing_left(state)


def test_a_tree_whose_objects_flower_would_not_delete_is_forgotten_all_the_same() -> None:
    sender = Sender(1000)
    # the message as a part of a part of itself: what has a parent stays, and all its parts with it
    around = ObjectTree(object_id="e" * 64, children=[ObjectTree(object_id=sender.tree.object_id)])
    sender.tree.children.append(around)
    sender.objects[around.object_id] = b""
    state = state_with(LimitedObjectStore(most_bytes=sender.n_bytes - 1000))

    assert pulled(state, sender) is None

    assert_nothing_left(state)


def test_pulling_stops_at_the_limit_and_not_when_all_objects_are_in_memory() -> None:
    asked = list[str]()

    def pull(object_id: str) -> bytes:
        asked.append(object_id)
        return b"x" * 100

    with pytest.raises(Refused, match="more than 1000 bytes"):
        pull_limited([str(n) for n in range(200)], pull, most_bytes=1000)

    assert len(asked) < 50


def pieces(number: int, sent: list[int]) -> Iterator[bytes]:
    for n in range(number):
        sent.append(n)
        yield b"x" * 100


def client_of(response: Callable[[], httpx.Response], most_bytes: int) -> httpx.Client:
    client = httpx.Client(transport=httpx.MockTransport(lambda request: response()))
    limit_responses(client, most_bytes)
    return client


def test_a_response_within_the_limit_is_read_and_one_above_it_is_not_read_to_its_end() -> None:
    sent = list[int]()
    with client_of(lambda: httpx.Response(200, content=pieces(10, sent)), 1000) as client:
        assert client.post("http://server").content == b"x" * 1000

    sent.clear()
    with (
        client_of(lambda: httpx.Response(200, content=pieces(1000, sent)), 1000) as client,
        pytest.raises(Refused, match="a response of more than 1000 bytes"),
    ):
        client.post("http://server")
    assert len(sent) == 11


def test_a_response_that_would_grow_when_it_is_unpacked_is_refused() -> None:
    packed = gzip.compress(b"\0" * 100_000)
    response = httpx.Response(200, headers={"content-encoding": "gzip"}, content=iter([packed]))

    with client_of(lambda: response, 1000) as client, pytest.raises(Refused, match="compressed"):
        client.post("http://server")


def test_no_server_is_asked_for_a_compressed_response() -> None:
    with httpx.Client() as client:
        limit_responses(client)

        assert client.build_request("POST", "http://server").headers["accept-encoding"] == "identity"


NODE_PROCESS = """
import sys
from pathlib import Path
from flwr.supernode import start_client_internal as flower
from brainunet_client.enrolment import load_identity
from brainunet_client.flower.node import run_node
from brainunet_client.home import Home

def started(state_factory, **named):
    store = state_factory.objectstore_factory.store()
    print(type(store).__name__, flower.pull_objects.__name__, flower._pull_and_store_message.__name__)

flower.start_client_internal = started
identity = load_identity(Home(Path(sys.argv[1])))
run_node(identity.kit, identity.private_key, lambda content: content)
"""


def test_the_node_keeps_to_the_limits(tmp_path: Path) -> None:
    home = joined_home(tmp_path / "home")

    said = subprocess.run([sys.executable, "-c", NODE_PROCESS, home.path], capture_output=True, text=True, check=True).stdout

    assert said.split() == ["LimitedObjectStore", "pull_limited", "pull_or_drop"]


def test_the_node_s_own_connection_keeps_to_the_limits() -> None:
    with _PatientClient("http://server") as client:
        assert client._client.event_hooks["response"]
