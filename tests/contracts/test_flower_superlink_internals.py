"""What the server uses inside Flower's SuperLink: a claim for each name, so that an upgrade fails here first."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import (
    HEARTBEAT_DEFAULT_INTERVAL,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SUPERLINK_NODE_ID,
    Status,
    SubStatus,
)
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.constant import NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.corestate import in_memory_corestate
from flwr.supercore.error import http_error_translator
from flwr.supercore.inflatable.inflatable_object import (
    UnexpectedObjectContentError,
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, validate_object_content
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES, ProtobufTranslationMiddleware
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.dependencies.linkstate import get_linkstate
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager
from flwr.superlink.routers.fleet import router as fleet_routes
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.servicer.fleet import fleet_handlers

from brainunet.certificates import new_site_key
from brainunet_server.flower.gate import FLEET_PATHS

import numpy as np  # isort: skip


@pytest.fixture
def state() -> InMemoryLinkState:
    return InMemoryLinkState(NoOpFederationManager(), InMemoryObjectStore())


@pytest.fixture
def run(state: InMemoryLinkState, monkeypatch: pytest.MonkeyPatch) -> int:
    number = state.create_run("a/b", "1.0.0", "ab" * 32, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP)
    task = primary_task(state, number)
    state.claim_task(task)
    state.activate_task(task)
    for name, value in (("_run_id", number), ("_node_id", SUPERLINK_NODE_ID), ("_task_id", 0)):
        monkeypatch.setattr(TaskIdentity, name, value)
    return int(number)


@pytest.fixture
def node(state: InMemoryLinkState) -> int:
    number = state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, b"key", HEARTBEAT_DEFAULT_INTERVAL, name="CRV")
    state.activate_node(number, 60.0)
    return int(number)


def primary_task(state: InMemoryLinkState, run: int) -> int:
    task = state.get_run_info(run_ids=[run])[0].primary_task_id
    assert task is not None
    return task


def a_message(node: int, **fields: Any) -> Message:
    content = RecordDict({"values": ArrayRecord({"values": Array(np.arange(4, dtype=np.float32))})})
    message = Message(content, dst_node_id=node, message_type=MessageType.TRAIN, **fields)
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
    return message


def stored(state: InMemoryLinkState, run: int, message: Message) -> list[str]:
    with no_object_id_recompute():
        tree = get_object_tree(message)
        ok, missing = state.store_message_and_object_tree(remove_content_from_message(message), tree, state.start_session(run))
    assert ok
    return list(missing)


def reply_to(message: Message) -> Message:
    reply = Message(RecordDict(), reply_to=message)
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
    return reply


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (InMemoryLinkState.__init__, ["self", "federation_manager", "object_store"]),
        (InMemoryLinkState.create_node, ["self", "owner_aid", "owner_name", "public_key", "heartbeat_interval"]),
        (InMemoryLinkState.delete_node, ["self", "owner_aid", "node_id"]),
        (InMemoryLinkState.get_node_id_by_public_key, ["self", "public_key"]),
        (InMemoryLinkState.activate_node, ["self", "node_id", "heartbeat_interval"]),
        (InMemoryLinkState.deactivate_node, ["self", "node_id"]),
        (InMemoryLinkState.get_message_ins, ["self", "node_id", "limit", "run_id"]),
        (InMemoryLinkState.store_message_and_object_tree, ["self", "message", "object_tree", "session_id"]),
        (InMemoryLinkState.store_object, ["self", "run_id", "session_id", "object_id", "object_content"]),
        (InMemoryLinkState.delete_messages, ["self", "message_ins_ids"]),
        (InMemoryLinkState.cleanup_run, ["self", "run_id"]),
        (InMemoryLinkState.start_session, ["self", "run_id"]),
        (InMemoryLinkState.get_node_info, ["self", "node_ids", "owner_aids", "statuses"]),
        (InMemoryLinkState.finish_task, ["self", "task_id", "sub_status", "details"]),
        (InMemoryLinkState.store_fab, ["self", "fab"]),
        (InMemoryObjectStore.put, ["self", "object_id", "object_content"]),
        (InMemoryObjectStore.get, ["self", "object_id"]),
        (InMemoryObjectStore.delete, ["self", "object_id"]),
        (InMemoryObjectStore.clear, ["self"]),
        (validate_object_content, ["content"]),
        (http_error_translator, ["request", "call_next"]),
    ],
    ids=lambda value: value.__qualname__ if callable(value) else "",
)
def test_a_method_that_is_called_or_replaced_takes_what_it_took(method: Callable[..., object], names: list[str]) -> None:
    known = [name for name, parameter in inspect.signature(method).parameters.items() if name not in ("location", "name")]

    assert known == names, f"Flower has changed {method.__qualname__}: see brainunet_server/flower before you upgrade"


def test_a_run_begins_pending_and_is_running_once_its_task_was_claimed_and_activated(
    state: InMemoryLinkState, run: int
) -> None:
    assert state.get_run_status({run})[run].status == Status.RUNNING

    assert state.finish_task(primary_task(state, run), SubStatus.COMPLETED, "")
    assert state.get_run_status({run})[run].status == Status.FINISHED


def test_a_running_task_expires_by_the_hour_in_its_token_s_entry(state: InMemoryLinkState, run: int) -> None:
    task = primary_task(state, run)
    with state.lock_task_store:
        entry = state.task_token_store[task]

    assert entry.active_until.tzinfo is not None
    assert abs(entry.active_until - datetime.now(UTC)) < timedelta(minutes=5), "a run expires within minutes: never_expire"


def test_a_node_is_registered_then_online_then_offline_then_unregistered(state: InMemoryLinkState) -> None:
    number = state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, b"key", HEARTBEAT_DEFAULT_INTERVAL, name="CRV")

    def status() -> str:
        return str(state.nodes[number].status)

    assert status() == NodeStatus.REGISTERED
    assert state.activate_node(number, 60.0)
    assert status() == NodeStatus.ONLINE
    assert not state.activate_node(number, 60.0), "Flower keeps a crashed node out until its heartbeats have expired"
    assert state.deactivate_node(number)
    assert status() == NodeStatus.OFFLINE
    state.delete_node(NOOP_FLWR_AID, number)
    assert status() == NodeStatus.UNREGISTERED
    assert state.get_node_id_by_public_key(b"key") is None


def test_a_node_is_told_by_number_name_and_status_under_its_key_and_owner(state: InMemoryLinkState, node: int) -> None:
    (told,) = state.get_node_info(statuses=[NodeStatus.REGISTERED, NodeStatus.ONLINE, NodeStatus.OFFLINE])

    assert (told.node_id, told.name, told.status) == (node, "CRV", NodeStatus.ONLINE)
    assert state.node_public_key_to_node_id == {b"key": node}
    assert state.owner_to_node_ids[NOOP_FLWR_AID] == {node}
    assert state.get_node_id_by_public_key(b"key") == node


def test_a_message_is_delivered_once_until_its_hour_of_delivery_is_taken_back(
    state: InMemoryLinkState, run: int, node: int
) -> None:
    message = a_message(node, ttl=60.0, group_id="3")
    assert stored(state, run, message)
    message_id = message.metadata.message_id
    assert (message.metadata.group_id, list(state.message_ins_store)) == ("3", [message_id])

    (delivered,) = state.get_message_ins(node, limit=1)
    assert delivered.metadata.message_id == message_id
    assert state.get_message_ins(node, limit=1) == []
    state.message_ins_store[message_id].metadata.delivered_at = ""
    assert len(state.get_message_ins(node, limit=1)) == 1


def test_a_reply_stands_under_the_message_it_answers_and_a_second_one_is_refused(
    state: InMemoryLinkState, run: int, node: int
) -> None:
    message = a_message(node, ttl=60.0)
    stored(state, run, message)
    reply = reply_to(message)

    stored(state, run, reply)

    assert state.message_ins_id_to_message_res_id == {message.metadata.message_id: reply.metadata.message_id}
    assert list(state.message_res_store) == [reply.metadata.message_id]
    other = reply_to(message)
    other.metadata.__dict__["_message_id"] = "cd" * 32
    assert state.store_message_and_object_tree(other, ObjectTree(object_id="cd" * 32), state.start_session(run)) == (False, [])
    state.delete_messages({message.metadata.message_id})
    assert (state.message_ins_store, state.message_res_store, state.message_ins_id_to_message_res_id) == ({}, {}, {})


def test_a_reply_to_a_message_that_is_gone_is_not_stored(state: InMemoryLinkState, run: int, node: int) -> None:
    message = a_message(node, ttl=60.0)

    reply = reply_to(message)

    assert state.store_message_res(reply) is None


def test_an_object_is_stored_in_the_session_that_announced_it_and_only_once(
    state: InMemoryLinkState, run: int, node: int
) -> None:
    message = a_message(node, ttl=60.0)
    session = state.start_session(run)
    with no_object_id_recompute():
        _, missing = state.store_message_and_object_tree(
            remove_content_from_message(message), get_object_tree(message), session
        )
        objects = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}

    assert set(missing) == set(objects)
    first = missing[0]
    assert state.store_object(run, session, first, objects[first])
    assert not state.store_object(run, session, first, objects[first]), "ours answers yes to whoever sends again"
    assert not state.store_object(run, "another session", missing[1], objects[missing[1]])


def test_a_session_s_life_is_read_from_a_name_of_its_module_when_it_starts(
    state: InMemoryLinkState, run: int, node: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_memory_corestate, "OBJECT_PUSH_SESSION_TTL_SECONDS", -1)
    message = a_message(node, ttl=60.0)
    session = state.start_session(run)
    with no_object_id_recompute():
        _, missing = state.store_message_and_object_tree(
            remove_content_from_message(message), get_object_tree(message), session
        )
        objects = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}

    assert not state.store_object(run, session, missing[0], objects[missing[0]])


def test_ours_lets_a_session_rest_for_hours() -> None:
    import brainunet_server.flower.linkstate  # sets it

    assert brainunet_server.flower.linkstate
    assert vars(in_memory_corestate)["OBJECT_PUSH_SESSION_TTL_SECONDS"] >= 6 * 3600


def test_the_object_store_notes_of_each_object_whether_it_is_here_and_what_it_needs() -> None:
    store, leaf, root = InMemoryObjectStore(), b"leaf", "ab" * 32
    leaf_id = get_object_id(leaf)

    assert store.preregister(1, ObjectTree(object_id=root, children=[ObjectTree(object_id=leaf_id)])) == [leaf_id, root]

    with store.lock_store:
        assert store.store[root].child_object_ids == [leaf_id]
        assert not store.store[leaf_id].is_available
    assert (store.get(leaf_id), store.get("cd" * 32)) == (b"", None)
    with pytest.raises(NoObjectInStoreError):
        store.put("cd" * 32, leaf) if not store.verify else store.get_object_tree("cd" * 32)
    store.delete(leaf_id)
    assert leaf_id in store, "what another object refers to stays"
    store.delete(root)
    assert len(store) == 0, "deleting calls delete for each object below"


def test_cleaning_a_run_deletes_its_messages_and_objects_one_by_one(
    state: InMemoryLinkState, run: int, node: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted, original = list[str](), state.object_store.delete

    def delete(name: str) -> None:
        deleted.append(name)
        original(name)

    monkeypatch.setattr(state.object_store, "delete", delete)
    ids = stored(state, run, a_message(node, ttl=60.0))

    state.cleanup_run(run)

    assert set(deleted) == set(ids)
    assert (len(state.object_store), state.message_ins_store) == (0, {})


def test_confirming_a_message_deletes_it_though_it_is_not_answered() -> None:
    source = inspect.getsource(fleet_handlers.confirm_message_received)

    assert "store.delete(request.message_object_id)" in source, "see Objects.delete: what is held must stay"


def test_a_message_is_made_of_its_objects_again(node: int, run: int) -> None:
    message = a_message(node, ttl=60.0)
    with no_object_id_recompute():
        contents = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        tree = get_object_tree(message)

    assert {part.object_id for part in iterate_object_tree(tree)} == set(contents)
    assert all(get_object_id(content) == name for name, content in contents.items())
    whole: Any = inflate_object_from_contents(message.metadata.message_id, dict(contents))
    assert whole.content.array_records["values"]["values"].numpy().tolist() == [0, 1, 2, 3]
    for content in contents.values():
        validate_object_content(content)
    with pytest.raises(UnexpectedObjectContentError):
        validate_object_content(b"no object")


def test_the_router_has_every_path_that_passes_the_gate_and_knows_each_by_its_message() -> None:
    paths = {route.path for route in fleet_routes.router.routes}  # type: ignore[attr-defined]

    assert paths >= FLEET_PATHS
    assert {path for method, path in PROTOBUF_REQUEST_TYPES if method == "POST"} >= FLEET_PATHS


def test_the_routes_take_their_state_and_whether_nodes_prove_themselves_from_the_application(state: InMemoryLinkState) -> None:
    class App:
        class state:  # noqa: N801 - as starlette has it
            linkstate_factory = type("Factory", (), {"state": staticmethod(lambda: state)})
            enable_supernode_auth = True

    request: Any = type("Request", (), {"app": App})

    assert get_linkstate(request) is state
    assert fleet_routes.get_enable_supernode_auth(request) is True


def test_the_translated_request_lies_where_our_own_check_looks_for_it() -> None:
    for kind in (ProtobufTranslationMiddleware, NodeAuthMiddleware):
        assert "protobuf_request" in inspect.getsource(inspect.getmodule(kind)), kind  # type: ignore[arg-type]


def test_a_public_key_as_flower_writes_it_is_the_same_each_time() -> None:
    key = new_site_key()

    assert public_key_to_bytes(key.public_key()) == public_key_to_bytes(key.public_key())
    assert public_key_to_bytes(key.public_key()) != public_key_to_bytes(new_site_key().public_key())


def test_our_store_is_used_by_the_state(tmp_path: Path) -> None:
    from brainunet_server.flower.linkstate import LinkState

    state = LinkState(tmp_path / "objects")

    assert state.object_store is state._object_store
    assert type(state).get_message_ins is not InMemoryLinkState.get_message_ins
