"""Flower's state of nodes, messages and objects, with what it lacks for sites behind bad links (docs/adr/0011).

Each override says what goes wrong without it. They lean on names inside Flower 1.41, and each such name has its contract
test in tests/contracts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from flwr.app import Message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.constant import NodeStatus
from flwr.supercore.corestate import in_memory_corestate
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.run import RunStatus
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager

from brainunet_server.flower.objects import Objects

# An upload may rest for as long as a link is cut: with Flower's 180 s a longer cut threw away all that had arrived.
setattr(in_memory_corestate, "OBJECT_PUSH_SESSION_TTL_SECONDS", 12 * 3600)  # noqa: B010 - the module does not export it

# So many chunks of 1 MiB are 2 GB, the most that a message may hold, four times over: a reply may have to be sent anew.
MAX_OBJECTS_A_REPLY: Final = 8_400
MAX_DEPTH: Final = 6  # message, records, record, array, chunk
MAX_LATE: Final = 1_000
NEVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


class LinkState(InMemoryLinkState):
    """Flower's link state, in memory: whatever must outlive this process is kept elsewhere.

    Attributes:
        heard: when each node last proved who it is.
        reply_limit_bytes: how much a node may send in the exchange in progress.
        late: nodes whose reply came when nobody waited for it any more, with the group of the message that it answers.
    """

    object_store: Objects

    def __init__(self, objects: Path) -> None:
        super().__init__(NoOpFederationManager(), Objects(objects))
        self.heard: dict[int, datetime] = {}
        self.late: list[tuple[int, str]] = []
        self.reply_limit_bytes = 0
        self._senders: dict[str, int] = {}  # push session -> node
        self._announced: Counter[int] = Counter()  # node -> objects in this exchange
        self._stored: Counter[int] = Counter()  # node -> bytes in this exchange

    def create_node_of(self, public_key: bytes, site: str) -> None:
        """Let a node in, if it is not. Its number comes from its key: a site need not notice that this server restarted."""
        number = int.from_bytes(hashlib.sha256(public_key).digest()[:8], "big") | 2  # never 0 or 1, which Flower keeps
        with self.lock:
            if number in self.nodes:
                if self.nodes[number].status == NodeStatus.UNREGISTERED:  # its certificate had ended, and was renewed
                    self.nodes[number].status = NodeStatus.REGISTERED
                return
            drawn = self.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key, HEARTBEAT_DEFAULT_INTERVAL, name=site)
            self.nodes[number] = self.nodes.pop(drawn)
            self.nodes[number].node_id = number
            self.node_public_key_to_node_id[public_key] = number
            self.owner_to_node_ids[NOOP_FLWR_AID] ^= {drawn, number}

    def is_admitted(self, public_key: bytes) -> bool:
        with self.lock:
            node = self.nodes.get(self.node_public_key_to_node_id.get(public_key, 0))
            return node is not None and node.status != NodeStatus.UNREGISTERED

    def never_expire(self, task: int) -> None:
        """Flower ends a run whose process sends no heartbeat for a minute; ours has none, it is conducted in this one."""
        with self.lock_task_store:
            self.task_token_store[task].active_until = NEVER

    def get_run_status(self, run_ids: set[int]) -> dict[int, RunStatus]:
        # A reply to a server that ran before this one: Flower stumbles over its run, and would answer that it broke (500)
        known: dict[int, RunStatus] = super().get_run_status(run_ids)
        if run_ids - known.keys():
            raise FlowerError(ApiErrorCode.RUN_ID_NOT_FOUND, "a run of an earlier server process")
        return known

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        # Flower asks this for every request that it has authenticated
        node: int | None = super().get_node_id_by_public_key(public_key)
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
        # A node that was at work when this server restarted asks without saying hello again
        node = self.nodes.get(node_id)
        if node is not None and node.status in (NodeStatus.REGISTERED, NodeStatus.OFFLINE):
            self.acknowledge_node_heartbeat(node_id, node.heartbeat_interval)
        # A node does one task at a time: one that asks again has lost what it was given (a lost reply to its question, a
        # power cut), or could not bring its reply here. Flower never gives a message twice.
        with self.lock:
            messages: list[Message] = super().get_message_ins(node_id, limit, run_id=run_id)
            if messages:
                return messages
            for message_id, message in self.message_ins_store.items():
                if message.metadata.dst_node_id == node_id and not self.has_reply(message_id):
                    # half a reply is in the way of a whole one; its objects stay, and only the missing ones travel again
                    half = self.message_ins_id_to_message_res_id.pop(message_id, None)
                    if half is not None:
                        del self.message_res_store[half]
                    message.metadata.delivered_at = ""
            return list(super().get_message_ins(node_id, limit, run_id=run_id))

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        if not message.metadata.reply_to_message_id:
            return super().store_message_and_object_tree(message, object_tree, session_id)
        sender = message.metadata.src_node_id
        with self.lock:
            # the object tree is the sender's claim of what it will send; Flower believes it, whatever its size or shape
            size = _size(object_tree)
            if (
                size is None
                or object_tree.object_id != message.metadata.message_id
                or self._announced[sender] + size > MAX_OBJECTS_A_REPLY
            ):
                self._drop_session(session_id)
                return False, []
            stored, missing = super().store_message_and_object_tree(message, object_tree, session_id)
            if stored:
                self._announced[sender] += size
                self._senders[session_id] = sender
            else:
                self._drop_session(session_id)
                if message.metadata.reply_to_message_id not in self.message_ins_store:
                    self._note_late(sender, message.metadata.group_id)
            return stored, missing

    def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        with self.lock:  # always before Flower's lock of sessions, which may ask for this one
            sender = self._senders.get(session_id)
            if sender is not None:
                if self._stored[sender] + len(object_content) > self.reply_limit_bytes:
                    return False
                self._stored[sender] += len(object_content)
            # a node that sends again because our "stored" was lost on the way is told "not stored", and gives up its reply
            return bool(super().store_object(run_id, session_id, object_id, object_content)) or bool(
                self.object_store.get(object_id)
            )

    def get_object(self, run_id: int, object_id: str) -> bytes | None:
        with self.lock:  # as in store_object
            content: bytes | None = super().get_object(run_id, object_id)
            return content

    def forget_messages(self, run_id: int) -> None:
        """Remove all messages of a run, what was sent with them, and what was counted."""
        with self.lock:
            self.delete_messages(self.get_message_ids_from_run_id(run_id))
            self.delete_sessions_in_run(run_id)
            self.object_store.clear()
            for counted in (self._senders, self._announced, self._stored):
                counted.clear()

    def _drop_session(self, session_id: str) -> None:
        with self._lock_object_push_sessions:
            self._object_push_sessions.pop(session_id, None)

    def _note_late(self, sender: int, group: str) -> None:
        told = (sender, group[:16])
        if told not in self.late:
            self.late.append(told)
            del self.late[:-MAX_LATE]

    def has_reply(self, message_id: str) -> bool:
        """Whether a reply to this message is here whole; unlike Flower's own question it never blocks nor takes it."""
        with self.lock:
            reply = self.message_ins_id_to_message_res_id.get(message_id)
            return reply is not None and self.object_store.is_whole(reply)

    def reply_to(self, message_id: str) -> Message:
        """The reply to a message for which :meth:`has_reply` holds; also of a node that has gone offline since."""
        with self.lock:
            return self.message_res_store[self.message_ins_id_to_message_res_id[message_id]]


def _size(tree: ObjectTree) -> int | None:
    """How many objects a tree names; None for one that is too large, or deeper than any reply."""
    count, level = 0, [tree]
    for _ in range(MAX_DEPTH):
        count += len(level)
        if count > MAX_OBJECTS_A_REPLY:
            return None
        level = [child for node in level for child in node.children]
        if not level:
            return count
    return None
