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
        names = {node.site: node.id for node in self._superlink.nodes()}
        started = time.monotonic()
        try:
            waiting = self._push(to_records(packed), task, {site: names[site] for site in sites if site in names})
            while waiting and (self._deadline_s is None or time.monotonic() - started < self._deadline_s):
                arrived = [message for message in waiting if self._state.has_reply(message)]
                for message in arrived:
                    answer = read_answer(waiting.pop(message), self._take(message), packed.n_bytes)
                    yield replace(answer, digest=_digest(answer))
                for message in [m for m, site in waiting.items() if self._is_silent(site, started)]:
                    yield Answer(waiting.pop(message), None, packed.n_bytes, problem="nothing heard of it")
                self._tell_late()
                self._while_waiting()
                if waiting and not arrived:
                    time.sleep(POLL_S)
            for site in sorted(set(sites) - set(names) | set(waiting.values())):
                sent = packed.n_bytes if site in names else 0
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
        (reply,) = self._state.get_message_res({message_id}, self._run)
        root = reply.metadata.message_id
        store = self._state.object_store
        contents = {id_: store.get(id_) or b"" for id_ in object_tree_ids(store.get_object_tree(root))}
        message: Message = inflate_object_from_contents(root, contents)  # type: ignore[assignment]
        message.metadata.__dict__["_message_id"] = root
        self._state.delete_messages({message_id})
        store.delete(root)
        return message

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
            node, exchange = self._state.late.pop()
            if node in names and exchange.isdigit():
                self._on_late(names[node], int(exchange))


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
