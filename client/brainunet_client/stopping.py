"""Stopping a task without losing what it has trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

from brainunet.records import FaultCode
from brainunet.training.checkpoint import Checkpoint
from brainunet_client.faults import Stopped

# Whether to go on. It may also raise Stopped, with the code that the coordinator is to be told.
KeepGoing: TypeAlias = Callable[[], bool]


def require_going(keep_going: KeepGoing) -> None:
    """
    Raises:
        Stopped: with a code of ``keep_going``'s own, else OUTSIDE_HOURS.
    """
    if not keep_going():
        raise Stopped(FaultCode.OUTSIDE_HOURS)


@dataclass(frozen=True, kw_only=True)
class WatchedCheckpoint(Checkpoint):
    """A checkpoint that ends its training where the site must stop, and saves by the clock as well as by the step.

    The loop offers it every step, and it takes those that are due: large steps would otherwise be lost by the hour when the
    power goes. A training whose last step is done is not stopped: its reply is as good as made.

    Attributes:
        kept: where the state is kept; its ``every_steps`` holds.
        last_step: number of the last step.
        every_s: save when this many seconds have passed since the last time.
    """

    every_steps: int = 1
    kept: Checkpoint
    last_step: int
    keep_going: KeepGoing
    every_s: float = 60.0
    _saved_at: list[float] = field(default_factory=lambda: [time.monotonic()], repr=False, compare=False)

    def save(
        self, step: int, losses: list[float], network: Any, optimizer: Any, rest: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Save if it is time to, and always before stopping.

        Raises:
            Stopped: the site must stop.
            BrainUNetError: the disk is full or the folder can't be written.
        """
        stopped: Stopped | None = None
        try:
            if step < self.last_step:
                require_going(self.keep_going)
        except Stopped as reason:
            stopped = reason
        is_time = time.monotonic() - self._saved_at[0] >= self.every_s
        if stopped or is_time or step % self.kept.every_steps == 0:
            self.kept.save(step, losses, network, optimizer, rest)
            self._saved_at[0] = time.monotonic()
        if stopped:
            raise stopped


def watched(kept: Checkpoint, *, last_step: int, keep_going: KeepGoing) -> WatchedCheckpoint:
    return WatchedCheckpoint(path=kept.path, purpose=kept.purpose, kept=kept, last_step=last_step, keep_going=keep_going)
