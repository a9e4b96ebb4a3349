"""Flower's state of nodes, messages and objects, with what it lacks for sites behind bad links (docs/adr/0011).

Each override says what goes wrong without it. They lean on names inside Flower 1.41, and each such name has its contract
test in tests/contracts/test_flower_internals.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.corestate import sql_corestate
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.object_store.object_store import NoObjectInStoreError
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.corestate_models import Task
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes, Node
from flwr.supercore.state.schema.objectstore_models import StoredObject
from flwr.supercore.utils import uint64_to_int64
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager
from sqlalchemy import delete, event, func, select, update

# An upload may rest for as long as a link is cut: with Flower's 180 s a longer cut threw away all that had arrived.
setattr(sql_corestate, "OBJECT_PUSH_SESSION_TTL_SECONDS", 12 * 3600)  # noqa: B010 - the module does not export it

# 2000 chunks of 256 KiB are 500 MB; a tree above that is no reply of ours but an attempt to fill the disk.
MAX_OBJECTS_A_REPLY = 8_000
_IDS_A_QUERY = 500


class Objects(SqlObjectStore):
    """Flower's object store; ``held`` objects stay until they are let go, so that a task can be delivered twice."""

    def __init__(self, database: str) -> None:
        super().__init__(database)
        self.held: set[str] = set()

    def delete(self, object_id: str) -> None:
        # a node confirms a task as soon as it has it, long before it has done it, and Flower deletes it then
        if object_id not in self.held:
            super().delete(object_id)

    def is_whole(self, root: str) -> bool:
        """Whether the object and all that it refers to have arrived."""
        try:
            ids = [node.object_id for node in iterate_object_tree(self.get_object_tree(root))]
        except NoObjectInStoreError:
            return False
        with self.session() as session:
            for part in (ids[i : i + _IDS_A_QUERY] for i in range(0, len(ids), _IDS_A_QUERY)):
                missing = select(func.count()).where(StoredObject.object_id.in_(part), StoredObject.is_available == 0)
                if session.scalar(missing):
                    return False
        return True


class LinkState(SqlLinkState):
    """Flower's link state; ``heard`` says when each node last proved who it is, ``late`` which nodes replied too late."""

    object_store: Objects

    def __init__(self, database: Path) -> None:
        objects = Objects(str(database))
        super().__init__(str(database), NoOpFederationManager(), objects)
        self.heard: dict[int, datetime] = {}
        self.late: list[tuple[int, str]] = []  # node, and the group of the message that it answers
        for part in (objects, self):
            part.initialize()
            _keep_small(part)

    def create_node_of(self, public_key: bytes, site: str) -> None:
        """Let a node in, if it is not. Its number comes from its key: a site need not notice that this server restarted."""
        if super().get_node_id_by_public_key(public_key) is not None:
            return
        drawn = self.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key, HEARTBEAT_DEFAULT_INTERVAL, name=site)
        number = int.from_bytes(hashlib.sha256(public_key).digest()[:8], "big") | 2  # never 0 or 1, which Flower keeps
        with self.session() as session:
            change = update(Node).where(Node.node_id == uint64_to_int64(drawn))
            session.execute(change.values(node_id=uint64_to_int64(number)))

    def never_expire(self, task: int) -> None:
        """Flower ends a run whose process sends no heartbeat for a minute; ours has none, it is conducted in this one."""
        with self.session() as session:
            change = update(Task).where(Task.task_id == uint64_to_int64(task))
            session.execute(change.values(active_until=datetime(9999, 1, 1, tzinfo=UTC)))

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        # Flower asks this for every request that it has authenticated
        node = super().get_node_id_by_public_key(public_key)
        if node is not None:
            self.heard[node] = datetime.now(UTC)
        return node

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        # a node that crashed counts as online for minutes, and Flower keeps it out until then
        if super().activate_node(node_id, heartbeat_interval):
            return True
        self.deactivate_node(node_id)
        return bool(super().activate_node(node_id, heartbeat_interval))

    def get_message_ins(self, node_id: int, limit: int | None, *, run_id: int | None = None) -> list[Message]:
        # A node does one task at a time: one that asks again has lost what it was given (a lost reply to its question, a
        # power cut), or could not bring its reply here. Flower never gives a message twice.
        messages: list[Message] = super().get_message_ins(node_id, limit, run_id=run_id)
        if messages:
            return messages
        unanswered = [message for message in self._delivered_to(node_id) if not self.has_reply(message)]
        if not unanswered:
            return []
        with self.session() as session:
            # half a reply is in the way of a whole one; its objects stay, and only the missing ones travel again
            session.execute(delete(MessageRes).where(MessageRes.reply_to_message_id.in_(unanswered)))
            session.execute(update(MessageIns).where(MessageIns.message_id.in_(unanswered)).values(delivered_at=""))
        return list(super().get_message_ins(node_id, limit, run_id=run_id))

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        # the object tree is the sender's claim of what it will send
        if sum(1 for _ in iterate_object_tree(object_tree)) > MAX_OBJECTS_A_REPLY:
            return False, []
        stored, missing = super().store_message_and_object_tree(message, object_tree, session_id)
        if not stored and message.metadata.reply_to_message_id:
            self.late.append((message.metadata.src_node_id, message.metadata.group_id))
        return stored, missing

    def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        # a node that sends again because our "stored" was lost on the way is told "not stored", and gives up its reply
        return bool(super().store_object(run_id, session_id, object_id, object_content)) or bool(
            self.object_store.get(object_id)
        )

    def has_reply(self, message_id: str) -> bool:
        """Whether a reply to this message is here whole; unlike Flower's own question it never blocks nor takes it."""
        with self.session() as session:
            reply = session.scalar(select(MessageRes.message_id).where(MessageRes.reply_to_message_id == message_id))
        return reply is not None and self.object_store.is_whole(reply)

    def _delivered_to(self, node_id: int) -> Iterator[str]:
        query = select(MessageIns.message_id).where(
            MessageIns.dst_node_id == uint64_to_int64(node_id), MessageIns.delivered_at != ""
        )
        with self.session() as session:
            yield from [str(message_id) for message_id in session.scalars(query)]


def _keep_small(part: Any) -> None:
    """Flower gives each of up to 15 connections a cache of 64 MB and maps 256 MB of the file."""

    @event.listens_for(part._engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        for pragma in ("cache_size = -4000", "mmap_size = 0", "busy_timeout = 60000"):
            connection.execute(f"PRAGMA {pragma}")

    part._engine.dispose()  # those it has opened already
