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

from flwr.app import Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from brainunet.errors import FederationError
from brainunet.flower_records import to_records
from brainunet.records import AnyTask, TrainReply, TrainTask
from brainunet.wire import pack
from brainunet_server.answers import Answer
from brainunet_server.flower.answer import read_answer
from brainunet_server.flower.superlink import SuperLink

POLL_S = 0.5
FOREVER_S = 10 * 365 * 86_400


class FleetExchange:
    """Sites are nodes of ``superlink`` that are online.

    Args:
        run: Flower's number of the run.
        deadline_s: an exchange ends so long after its sending at the latest; None waits for all.
        silence_s: a site from which nothing at all was heard for so long is not waited for.
        on_late: told a site and the number of the exchange whose end its reply has missed.
        while_waiting: called about twice a second.
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
    ) -> None:
        self._superlink, self._state, self._run = superlink, superlink.state, run
        self._deadline_s, self._silence_s = deadline_s, silence_s
        self._on_late, self._while_waiting = on_late, while_waiting
        self._missed: set[tuple[str, int]] = set()  # who was asked in which exchange, and had not answered at its end
        # Flower reads from here in whose name messages are made
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, SUPERLINK_NODE_ID, 0

    def sites(self) -> list[str]:
        return [node.site for node in self._superlink.nodes() if node.online]

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        """Answers as they arrive; sites without one come last, with no reply.

        Raises:
            FederationError: Flower would not take the task.
        """
        packed = pack(task)
        n_bytes, records = packed.n_bytes, to_records(packed)
        del packed  # the records hold its values anew, and are stored and let go before the first reply comes
        names = {node.site: node.id for node in self._superlink.nodes()}
        started = time.monotonic()
        try:
            waiting = self._push(records, task, {site: names[site] for site in sites if site in names})
            del records
            while waiting and (self._deadline_s is None or time.monotonic() - started < self._deadline_s):
                arrived = [message for message in waiting if self._state.has_reply(message)]
                for message in arrived:
                    answer = read_answer(waiting.pop(message), self._take(message), n_bytes)
                    yield replace(answer, digest=_digest(answer))
                for message in [m for m, site in waiting.items() if self._is_silent(site, started)]:
                    self._missed.add((waiting[message], task.round))
                    yield Answer(waiting.pop(message), None, n_bytes, problem="nothing heard of it")
                self._tell_late()
                self._while_waiting()
                if waiting and not arrived:
                    time.sleep(POLL_S)
            self._missed |= {(site, task.round) for site in waiting.values()}
            for site in sorted(set(sites) - set(names) | set(waiting.values())):
                sent = n_bytes if site in names else 0
                yield Answer(site, None, sent, problem="no reply in time" if site in names else "not connected")
        finally:
            # what comes from now on finds no question to answer, and is noted as late
            self._state.object_store.held.clear()
            self._state.cleanup_run(self._run)

    def _push(self, records: RecordDict, task: AnyTask, nodes: Mapping[str, int]) -> dict[str, str]:
        """Message ids -> sites. The weights are stored once for all."""
        kind = MessageType.TRAIN if isinstance(task, TrainTask) else MessageType.EVALUATE
        ttl = float(FOREVER_S if self._deadline_s is None else self._deadline_s + 3600)
        waiting: dict[str, str] = {}
        for site, node in nodes.items():
            session = self._state.start_session(self._run)  # one each: Flower ends a session with its last object
            message = Message(records, dst_node_id=node, message_type=kind, ttl=ttl, group_id=str(task.round))
            with no_object_id_recompute():
                message_id = message.object_id
                message.metadata.__dict__["_message_id"] = message_id
                tree = get_object_tree(message)
                # held before it is stored: a node may fetch and confirm it at once
                self._state.object_store.held.update(object_tree_ids(tree))
                stored, missing = self._state.store_message_and_object_tree(remove_content_from_message(message), tree, session)
                if not stored:
                    raise FederationError(f"the task of {site}", found="Flower refused it", expected="that it is taken")
                if missing:
                    objects = get_all_nested_objects(message)
                    for object_id in missing:
                        self._state.store_object(self._run, session, object_id, objects[object_id].deflate())
            waiting[message_id] = site
        return waiting

    def _take(self, message_id: str) -> Message:
        """The reply to a message, once it is whole; it is gone from Flower's state afterwards."""
        reply, store = self._state.reply_to(message_id), self._state.object_store
        root = reply.metadata.message_id
        if not reply.has_error():  # an error has no objects
            contents = {object_id: store.get(object_id) or b"" for object_id in store.below(root)}
            reply = inflate_object_from_contents(root, contents)  # type: ignore[assignment]
            reply.metadata.__dict__["_message_id"] = root
        self._state.delete_messages({message_id})
        store.delete(root)
        return reply

    def _is_silent(self, site: str, started: float) -> bool:
        node = next((node for node in self._superlink.nodes() if node.site == site), None)
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
