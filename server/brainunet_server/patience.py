"""An exchange that waits: for enough sites before a round, and for a person who has paused the run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from brainunet.records import AnyTask, TrainTask
from brainunet_server.answers import Answer, Exchange
from brainunet_server.federation import Folder, RoundsConfig
from brainunet_server.membership import Membership
from brainunet_server.presence import Board
from brainunet_server.record import Record, say
from brainunet_server.status import wanted

POLL_S: Final = 0.5


@dataclass(frozen=True)
class Patient:
    """``inner``, and what is told of it."""

    inner: Exchange
    folder: Folder
    rounds: RoundsConfig
    membership: Membership
    board: Board
    record: Record

    def sites(self) -> Sequence[str]:
        """Wait until the run is not paused and enough sites are connected; gives these.

        Raises:
            Stop: the server is asked to end.
        """
        self._while_paused()
        enough_since: float | None = None
        if len(self.membership.connected()) < self.rounds.min_sites:
            say(f"waiting for {self.rounds.min_sites} sites ({self.membership.size} enrolled)")
        while True:
            obey(self.folder)
            if wanted(self.folder) == "pause":
                self._while_paused()
            connected = self.membership.connected()
            if len(connected) < self.rounds.min_sites:
                enough_since = None
                here = ", ".join(connected) or "none"
                self.board.say("waiting for sites", f"{self.rounds.min_sites} sites are needed, connected: {here}")
            else:
                enough_since = enough_since or time.monotonic()
                if len(connected) == self.membership.size or time.monotonic() - enough_since >= self.rounds.gather_s:
                    return connected
                self.board.say("waiting for sites", f"{len(connected)} of {self.membership.size} sites are connected")
            time.sleep(POLL_S)

    def is_member(self, site: str) -> bool:
        return self.inner.is_member(site)

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        self.board.begin(task.round, sites, self.rounds.deadline_s)
        if sites:
            what = "" if isinstance(task, TrainTask) else " to score the last model"
            say(f"round {task.round}: asking {', '.join(sites)}{what}")
            self.record.note("task-sent", round=task.round, task=task.kind, sites=list(sites))
        for answer in self.inner.ask(task, sites):
            self.board.heard_from(answer.site)
            yield answer

    def rest(self, seconds: float) -> None:
        """
        Raises:
            Stop: the server is asked to end.
        """
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            obey(self.folder)
            time.sleep(min(POLL_S, seconds))

    def _while_paused(self) -> None:
        if wanted(self.folder) != "pause":
            return
        self.record.note("run-paused")
        say("paused: no round begins until flower-server resume")
        self.board.say("paused", "paused: no round begins until flower-server resume")
        while wanted(self.folder) == "pause":
            time.sleep(POLL_S)
        if wanted(self.folder) == "run":
            self.record.note("run-resumed")
            say("going on")


class Stop(KeyboardInterrupt):
    """The server is asked to end, by a signal or by ``flower-server stop``: an end in order, not an error."""


def obey(folder: Folder) -> None:
    """
    Raises:
        Stop: the server is asked to end.
    """
    if wanted(folder) == "stop":
        raise Stop
