"""Flower's grid in one process: the same ServerApp and ClientApp objects, one message at a time, no other process.

Messages wait until they are pulled, so at most one reply and one copy of the network are in memory, and the order of work is
the order in which they were pushed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SITE = "site"


class LocalGrid(Grid):
    """Runs ``app`` for each of ``sites``; a site finds its name in ``context.node_config["site"]``."""

    def __init__(self, app: ClientApp, sites: Sequence[str]) -> None:
        self._app = app
        self._contexts = {
            node: Context(run_id=1, node_id=node, node_config={SITE: site}, state=RecordDict(), run_config={})
            for node, site in enumerate(sites, start=1)
        }
        self._waiting: dict[str, Message] = {}
        self._ids = count(1)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError("a local grid has no run record")

    @property
    def run(self) -> Run:
        raise NotImplementedError("a local grid has no run record")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [
            NodeInfo(node_id=node, name=str(context.node_config[SITE]), status="online")
            for node, context in self._contexts.items()
        ]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            name = f"message-{next(self._ids)}"
            message.metadata.__dict__["_message_id"] = name  # what a SuperLink does on receipt
            self._waiting[name] = message
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Does the next waiting message of these and returns its reply; nothing when all are done."""
        for name in message_ids:
            if name in self._waiting:
                message = self._waiting.pop(name)
                return [self._app(message, self._contexts[message.metadata.dst_node_id])]
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """All replies at once, as the interface asks; ``timeout`` does not apply to work done in turn."""
        del timeout
        ids = list(self.push_messages(messages))
        return [reply for name in ids for reply in self.pull_messages([name])]


def run_locally(server: ServerApp, client: ClientApp, sites: Sequence[str]) -> None:
    """Run both apps to the end of the ServerApp's main."""
    TaskIdentity.run_id = TaskIdentity.task_id = 1
    TaskIdentity.node_id = 0
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    server(LocalGrid(client, sites), context)
