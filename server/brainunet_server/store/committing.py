"""One transaction, whole or not at all, that outlives a restart of the database's server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from brainunet_server.store.problems import explained, is_lost

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0

T = TypeVar("T")


def committed(engine: Engine, work: Callable[[Connection], T], *, wait_s: float) -> T:
    """What ``work`` gives, in a transaction of its own, begun anew for up to ``wait_s`` where the server goes away.

    A connection that breaks while it commits leaves open whether it did: ``work`` must be such that doing it twice is doing
    it once.

    Raises:
        BrainUNetError: a problem that a person can act on; the server's absence only after ``wait_s``.
    """
    until = time.monotonic() + wait_s
    pause_s = FIRST_PAUSE_S
    with explained(engine.url):
        while True:
            try:
                with engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                left_s = until - time.monotonic()
                if not is_lost(error) or left_s <= 0:
                    raise
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
