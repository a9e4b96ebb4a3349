"""Connections on which nothing is asked are closed: for a first request, or the end of its head, uvicorn waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

IDLE_S: Final = 90.0  # above uvicorn's own patience between two requests


class Impatient(H11Protocol):
    """A connection of uvicorn's that ends where no request was under way from one look to the next, dripping heads included."""

    _next_look: asyncio.TimerHandle | None = None
    _answered: object = None  # the request that had been answered at the last look, with no other begun

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._next_look = self.loop.call_later(IDLE_S, self._look)

    def _look(self) -> None:
        request: Any = self.cycle
        is_idle = request is None or request.response_complete
        if is_idle and request is self._answered:
            self.transport.abort()  # close would wait for the other side to say goodbye
            return
        self._answered = request if is_idle else None
        self._look_again()
