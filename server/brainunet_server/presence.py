"""What the running server knows from moment to moment, told to people in status.json and to the store's readers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from brainunet_server.federation import Folder
from brainunet_server.round_results import RoundResult
from brainunet_server.status import ServerState, SiteState, Status, write_status

SILENT_AFTER = timedelta(seconds=90)  # a waiting node asks every few seconds, a working one says every half minute it is there


class Seen(Protocol):
    """A site that was let in, and when it was last heard of."""

    @property
    def site(self) -> str: ...
    @property
    def last_heard(self) -> datetime | None: ...


@dataclass
class Board:
    """The state of things, written by the rounds and read by the ticking thread; one lock for all."""

    folder: Folder
    run: str
    rounds: int
    min_sites: int
    address: str
    state: ServerState = "starting"
    message: str = "starting"
    round: int = 0
    round_started_at: datetime | None = None
    deadline_at: datetime | None = None
    doing: str = ""
    asked: frozenset[str] = frozenset()  # who is at work on the round in progress
    outcomes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, state: ServerState, message: str) -> None:
        with self._lock:
            self.state, self.message = state, message

    def begin(self, number: int, sites: Sequence[str], deadline_s: int | None) -> None:
        now = datetime.now(UTC)
        with self._lock:
            self.state, self.round, self.round_started_at = "running", min(number, self.rounds), now
            self.deadline_at = None if deadline_s is None else now + timedelta(seconds=deadline_s)
            self.asked = frozenset(sites)
            self.doing = f"round {number}" if number <= self.rounds else "scoring the last model"
            self.message = f"{self.doing}: waiting for {', '.join(sites)}"

    def heard_from(self, site: str) -> None:
        """A site's answer to the round in progress is here."""
        with self._lock:
            self.asked -= {site}
            if self.asked:
                self.message = f"{self.doing}: waiting for {', '.join(sorted(self.asked))}"

    def end(self, result: RoundResult) -> None:
        with self._lock:
            self.asked, self.deadline_at, self.round_started_at = frozenset(), None, None
            self.message = f"{self.doing}: done"
            for site in result.sites:
                self.outcomes[site.site] = f"round {result.exchange}: {site.outcome}" + (
                    f", {site.reason}" if site.reason else ""
                )
                if site.spend is not None:
                    self.outcomes[site.site] += f", epsilon {site.spend.epsilon:.2f} of this run"
                if site.client_version:
                    self.versions[site.site] = site.client_version

    def write(self, nodes: Sequence[Seen], revoked: Sequence[str]) -> Status:
        """Tell how things stand, and give back what was told."""
        with self._lock:
            now = datetime.now(UTC)
            sites = [self._site(node.site, node.last_heard, now) for node in nodes]
            sites += [SiteState(name=name, state="revoked") for name in revoked]
            status = Status(
                pid=os.getpid(),
                state=self.state,
                message=self.message,
                run=self.run,
                round=self.round,
                rounds=self.rounds,
                round_started_at=self.round_started_at,
                deadline_at=self.deadline_at,
                min_sites=self.min_sites,
                sites=tuple(sorted(sites, key=lambda site: site.name)),
                address=self.address,
                updated_at=now,
            )
        write_status(self.folder, status)
        return status

    def _site(self, name: str, heard: datetime | None, now: datetime) -> SiteState:
        if heard is None:
            return SiteState(name=name, state="never seen", last_outcome=self.outcomes.get(name))
        present = now - heard < SILENT_AFTER
        return SiteState(
            name=name,
            state=("working" if name in self.asked else "connected") if present else "silent",
            last_seen=heard,
            last_outcome=self.outcomes.get(name),
            client_version=self.versions.get(name),
        )


def changes(before: Mapping[str, str], now: Sequence[SiteState]) -> tuple[list[str], list[str]]:
    """Sites that joined and sites that left, by their states before and now.

    >>> changes({"CRV": "never seen"}, [SiteState(name="CRV", state="connected")])
    (['CRV'], [])
    """
    here = {"working", "connected"}
    joined = [site.name for site in now if site.state in here and before.get(site.name) not in here]
    left = [site.name for site in now if site.state not in here and before.get(site.name) in here]
    return joined, left


class Ticking:
    """Calls ``tick`` every ``every_s`` seconds in a thread while the block runs; an error in it is told, and it goes on."""

    def __init__(self, tick: Callable[[], None], on_error: Callable[[Exception], None], every_s: float = 1.0) -> None:
        self._tick, self._on_error, self._every_s = tick, on_error, every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        self._once()

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            self._once()

    def _once(self) -> None:
        try:
            self._tick()
        except Exception as error:  # noqa: BLE001 # a full disk, a database that is away: the rounds go on without being told of
            self._on_error(error)
