"""The real sites as an :class:`~brainunet_server.answers.Exchange`: tasks into Flower's state, replies out of it.

The deadline is real: Flower's own grid blocks for up to two hours on a reply that is half here, this one takes a reply only
when all of it has arrived.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from flwr.app import Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.task_identity import TaskIdentity

from brainunet.errors import BrainUNetError, FederationError
from brainunet.flower_records import for_site, inflated, to_records
from brainunet.records import AnyTask, TrainReply, TrainTask
from brainunet.wire import Packed, pack
from brainunet_server.answers import Answer
from brainunet_server.flower.answer import read_answer
from brainunet_server.flower.superlink import Node, SuperLink

POLL_S = 0.5
FOREVER_S = 10 * 365 * 86_400
ROOM_BYTES = 2**26  # for what is not weights, and for a reply that is sent anew


class FleetExchange:
    """Sites are nodes of ``superlink`` that are online.

    Args:
        run: Flower's number of the run.
        deadline_s: an exchange ends so long after its sending at the latest; None waits for all.
        silence_s: a site from which nothing at all was heard for so long is not waited for.
        on_late: told a site and the number of the exchange whose end its reply has missed.
        while_waiting: called about twice a second.
        heads: gives the last head of each site's ledger of spending that is known; it goes with the site's task.
    """

    def __init__(
        self,
        superlink: SuperLink,
        run: int,
        *,
        deadline_s: int | None,
        silence_s: int,
        on_late: Callable[[str, int], None] = lambda site, exchange: None,
        while_waiting: Callable[[], None] = lambda: None,
        heads: Callable[[], Mapping[str, str]] = lambda: MappingProxyType({}),
    ) -> None:
        self._superlink, self._state, self._run = superlink, superlink.state, run
        self._deadline_s, self._silence_s = deadline_s, silence_s
        self._on_late, self._while_waiting, self._heads = on_late, while_waiting, heads
        self._missed: set[tuple[str, int]] = set()  # who was asked in which exchange, and had not answered at its end
        # Flower reads from here in whose name messages are made
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, SUPERLINK_NODE_ID, 0

    def sites(self) -> list[str]:
        return [node.site for node in self._superlink.nodes() if node.online]

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        """Answers as they arrive; sites without one come last, with no reply.

        Raises:
            BrainUNetError: the disk is full.
            FederationError: Flower would not take the task.
        """
        packed = pack(task)
        n_bytes, records = packed.n_bytes, to_records(packed)
        # the records hold its values anew, and are stored and let go before the first reply comes
        packed = replace(packed, values=None)
        nodes = {node.site: node for node in self._superlink.nodes()}
        started = time.monotonic()
        self._state.reply_limit_bytes = 3 * n_bytes + ROOM_BYTES
        try:
            waiting = self._push(records, packed, task, [nodes[site] for site in sites if site in nodes])
            del records
            while waiting and (self._deadline_s is None or time.monotonic() - started < self._deadline_s):
                arrived = [message for message in waiting if self._state.has_reply(message)]
                for message in arrived:
                    yield self._answer(waiting.pop(message).site, message, n_bytes)
                for message in [m for m, node in waiting.items() if self._is_silent(node, started)]:
                    self._missed.add((waiting[message].site, task.round))
                    yield Answer(waiting.pop(message).site, None, n_bytes, problem="nothing heard of it")
                self._tell_late()
                self._while_waiting()
                if waiting and not arrived:
                    time.sleep(POLL_S)
            missed = {node.site for node in waiting.values()}
            self._missed |= {(site, task.round) for site in missed}
            for site in sorted(set(sites) - set(nodes) | missed):
                sent = n_bytes if site in nodes else 0
                yield Answer(site, None, sent, problem="no reply in time" if site in nodes else "not connected")
        finally:
            self._state.forget_messages(self._run)  # what comes from now on finds no question to answer, and is noted as late

    def is_member(self, site: str) -> bool:
        """Whether the site may still take part: it may have been revoked since it answered."""
        return any(node.site == site for node in self._superlink.nodes())

    def _push(self, records: RecordDict, packed: Packed, task: AnyTask, nodes: Sequence[Node]) -> dict[str, Node]:
        """Message ids -> who was asked. The weights are stored once for all."""
        kind = MessageType.TRAIN if isinstance(task, TrainTask) else MessageType.EVALUATE
        ttl = float(FOREVER_S if self._deadline_s is None else self._deadline_s + 3600)
        waiting: dict[str, Node] = {}
        heads = self._heads()
        for node in nodes:
            session = self._state.start_session(self._run)  # one each: Flower ends a session with its last object
            content = for_site(records, packed, heads.get(node.site))
            message = Message(content, dst_node_id=node.id, message_type=kind, ttl=ttl, group_id=str(task.round))
            with no_object_id_recompute():
                message_id = message.object_id
                message.metadata.__dict__["_message_id"] = message_id
                tree = get_object_tree(message)
                # held before it is stored: a node may fetch and confirm it at once
                self._state.object_store.held.update(object_tree_ids(tree))
                stored, missing = self._state.store_message_and_object_tree(remove_content_from_message(message), tree, session)
                if not stored:
                    raise FederationError(f"the task of {node.site}", found="Flower refused it", expected="that it is taken")
                if missing:
                    objects = get_all_nested_objects(message)
                    for object_id in missing:
                        if not self._state.store_object(self._run, session, object_id, objects[object_id].deflate()):
                            raise BrainUNetError(
                                "the task",
                                found="it can't be put down for sending: the disk is full, or can't be written",
                                expected="room on the disk",
                                remedy="make room: flower.log in the federation's folder says more",
                            )
            waiting[message_id] = node
        return waiting

    def _answer(self, site: str, message_id: str, n_bytes: int) -> Answer:
        """The reply to a message, once it is whole; it is gone from Flower's state afterwards. Never an exception."""
        store, limit = self._state.object_store, self._state.reply_limit_bytes
        try:
            reply = self._state.reply_to(message_id)
            root = reply.metadata.message_id
            try:
                if not reply.has_error():  # an error has no objects
                    reply = inflated(root, {object_id: store.get(object_id) or b"" for object_id in store.below(root)}, limit)
                answer = read_answer(site, reply, n_bytes)
                return replace(answer, digest=_digest(answer))
            finally:
                self._state.delete_messages({message_id})
                store.delete(root)
        except FederationError as error:
            return Answer(site, None, n_bytes, problem=str(error), unreadable=True)
        except Exception as error:  # noqa: BLE001 # whatever a site sends costs its own reply and not the round
            return Answer(site, None, n_bytes, problem=f"a reply that can't be read ({type(error).__name__})", unreadable=True)

    def _is_silent(self, asked: Node, started: float) -> bool:
        # by its number: a site that was enrolled anew meanwhile has another node, which was not asked
        node = next((node for node in self._superlink.nodes() if node.id == asked.id), None)
        if node is None:  # revoked meanwhile
            return True
        if time.monotonic() - started < self._silence_s:
            return False
        return node.last_heard is None or datetime.now(UTC) - node.last_heard > timedelta(seconds=self._silence_s)

    def _tell_late(self) -> None:
        names = {node.id: node.site for node in self._superlink.nodes()}
        while self._state.late:
            node, group = self._state.late.pop()
            # the group is what the sender says: only an exchange that it did miss is believed
            told = next((missed for missed in self._missed if missed == (names.get(node), _number(group))), None)
            if told is not None:
                self._missed.discard(told)
                self._on_late(*told)


def _number(group: str) -> int:
    return int(group) if group.isascii() and group.isdigit() else 0


def object_tree_ids(tree: object) -> list[str]:
    return [node.object_id for node in iterate_object_tree(tree)]  # type: ignore[arg-type]


def _digest(answer: Answer) -> str | None:
    """What the site's own ledger says of the same values."""
    if not isinstance(answer.reply, TrainReply):
        return None
    sha = hashlib.sha256()
    for array in answer.reply.delta.arrays:  # parts of one flat array, in its order
        sha.update(array.data)
    return sha.hexdigest()
