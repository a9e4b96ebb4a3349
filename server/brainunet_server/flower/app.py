"""The ServerApp, and Flower's grid seen as an :class:`brainunet_server.rounds.Exchange`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from flwr.app import Context, Message, MessageType
from flwr.serverapp import Grid, ServerApp

from brainunet.flower_records import to_records
from brainunet.records import AnyTask, TrainTask
from brainunet.wire import pack
from brainunet_server.answers import Answer, Exchange
from brainunet_server.flower.answer import read_answer

POLL_S = 1.0


def server_app(conduct: Callable[[Exchange], None]) -> ServerApp:
    """A ServerApp whose main hands the grid to ``conduct`` as an exchange."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        conduct(FlowerExchange(grid))

    return app


class FlowerExchange:
    """Sites are Flower's nodes by name; every site gets the same message content, encoded once."""

    def __init__(self, grid: Grid, deadline_s: float | None = None) -> None:
        self._grid, self._deadline_s = grid, deadline_s

    def sites(self) -> list[str]:
        return sorted(self._nodes())

    def is_member(self, site: str) -> bool:
        return True

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        """Answers as they arrive; sites without one by the deadline come last, with no reply."""
        packed = pack(task)
        records = to_records(packed)
        kind = MessageType.TRAIN if isinstance(task, TrainTask) else MessageType.EVALUATE
        nodes = self._nodes()
        messages = [Message(records, dst_node_id=nodes[site], message_type=kind) for site in sites if site in nodes]
        asked = dict(zip(self._grid.push_messages(messages), (site for site in sites if site in nodes), strict=True))
        ends_at = None if self._deadline_s is None else time.monotonic() + self._deadline_s
        while asked and (ends_at is None or time.monotonic() < ends_at):
            replies = list(self._grid.pull_messages(list(asked)))
            for reply in replies:
                site = asked.pop(reply.metadata.reply_to_message_id, None)
                if site is not None:
                    yield read_answer(site, reply, packed.n_bytes)
            if not replies:
                time.sleep(POLL_S)
        for site in sorted(set(sites) - set(nodes) | set(asked.values())):
            yield Answer(site, None, problem="no reply in time" if site in nodes else "not connected")

    def _nodes(self) -> dict[str, int]:
        # nodes of Flower's own simulation have no name
        return {node.name or str(node.node_id): node.node_id for node in self._grid.get_nodes()}
