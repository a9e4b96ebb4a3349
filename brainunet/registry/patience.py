"""Trying again where a line breaks: after longer and longer pauses, in words, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

from brainunet.registry.client import Listing
from brainunet.registry.records import Described
from brainunet.registry.troubles import Passing

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
FIRST_ANSWER_S: Final = 60.0  # until anything was heard of a registry: a mistyped name is not tried for long

Answer = TypeVar("Answer")


class Patience:
    """How long to wait before each attempt.

    Args:
        patience_s: how long to try again without any progress.
        on_wait: told what has happened and after how many seconds it is tried again.
        sleep, clock: of this machine.
    """

    def __init__(
        self,
        patience_s: float,
        on_wait: Callable[[Passing, float], None] = lambda trouble, wait_s: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.patience_s = patience_s
        self._on_wait, self._sleep, self._clock = on_wait, sleep, clock
        self.progress()

    def progress(self) -> None:
        """Something came: begin anew."""
        self._last, self._pause_s = self._clock(), FIRST_PAUSE_S

    def wait(self, trouble: Passing) -> bool:
        """Wait, and say so; False, at once, where there is no patience left."""
        wait_s = max(self._pause_s, trouble.wait_s)
        if self._clock() - self._last + wait_s > self.patience_s:
            return False
        self._on_wait(trouble, wait_s)
        self._sleep(wait_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return True


class Questions(Protocol):
    """A connection to a registry (``client.Registry``)."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /) -> None: ...
    def listing(self) -> Listing: ...
    def describe(self, name: str) -> Described: ...


class PatientRegistry:
    """A registry that is asked again, over a new connection, where the line breaks. To be closed.

    Args:
        connect: makes a connection.
        patience_s: with each question; with the first one :data:`FIRST_ANSWER_S` at most.
        on_wait, sleep, clock: as for :class:`Patience`.
    """

    def __init__(
        self,
        connect: Callable[[], Questions],
        patience_s: float,
        on_wait: Callable[[Passing, float], None] = lambda trouble, wait_s: None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._registry = connect()
        self._patience = Patience(min(patience_s, FIRST_ANSWER_S), on_wait, sleep, clock)
        self._later_s = patience_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._registry.__exit__(kind, error, at)

    def listing(self) -> Listing:
        """
        Raises:
            FederationError: as :meth:`client.Registry.listing`, or there was no patience left.
        """
        return self._ask(lambda registry: registry.listing())

    def describe(self, name: str) -> Described:
        """
        Raises:
            FederationError: as :meth:`client.Registry.describe`, or there was no patience left.
        """
        return self._ask(lambda registry: registry.describe(name))

    def _ask(self, question: Callable[[Questions], Answer]) -> Answer:
        self._patience.progress()
        while True:
            try:
                answer = question(self._registry)
            except Passing as trouble:
                if not self._patience.wait(trouble):
                    raise
                self._registry.__exit__(None, None, None)
                self._registry = self._connect()
            else:
                self._patience.patience_s = self._later_s
                return answer
