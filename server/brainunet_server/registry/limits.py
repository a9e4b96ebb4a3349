"""How much one caller, one address and all together may ask: nobody's mistake or malice keeps the others out."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from brainunet_server.registry.refusing import please_wait

MINUTE_S: Final = 60
DAY_S: Final = 86_400
MOST_ADDRESSES: Final = 10_000  # of callers with wrong tokens that are remembered; of more the oldest are forgotten


@dataclass(frozen=True)
class Limits:
    """
    Attributes:
        calls_per_minute: of one caller; a download over a line that breaks takes one for each attempt.
        downloads_each, downloads: at once, of one caller and of all.
        bytes_per_day: of one caller; two hundred times the largest of our models.
        wrong_tokens_per_minute: of one address, which is that of all behind a hospital's router.
    """

    calls_per_minute: int = 120
    downloads_each: int = 4
    downloads: int = 48
    bytes_per_day: int = 20_000_000_000
    wrong_tokens_per_minute: int = 20


class Counts:
    """What was asked so far, by this process.

    Args:
        limits: how much may be.
        clock: seconds that only ever grow.
    """

    def __init__(self, limits: Limits = Limits(), clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._calls: dict[str, deque[float]] = {}
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()
        self._downloads: Counter[str] = Counter()
        self._bytes: dict[str, tuple[float, int]] = {}  # caller -> since when, how many

    def call(self, caller: str) -> None:
        """
        Raises:
            Refused: the caller has asked too often.
        """
        most = self._limits.calls_per_minute
        times = self._calls.setdefault(caller, deque())
        if (wait_s := self._wait(times, most)) is not None:
            raise please_wait(f"more than {most} questions in a minute; ask again in {wait_s} s", wait_s)
        times.append(self._clock())

    @contextmanager
    def download(self, caller: str) -> Iterator[None]:
        """The block is one download.

        Raises:
            Refused: the caller, or all callers, have too many under way, or the caller has had its bytes of the day.
        """
        each, most = self._limits.downloads_each, self._limits.downloads
        if self._downloads[caller] >= each:
            raise please_wait(f"{each} downloads of yours are under way; wait until one has ended", 30)
        if self._downloads.total() >= most:
            raise please_wait(f"{most} downloads of all callers are under way; try again in a minute", 60)
        self.sent(caller, 0)
        self._downloads[caller] += 1
        try:
            yield
        finally:
            self._downloads[caller] -= 1

    def sent(self, caller: str, n_bytes: int) -> None:
        """So many bytes more are sent to the caller.

        Raises:
            Refused: that were too many for a day.
        """
        now = self._clock()
        since, before = self._bytes.get(caller, (now, 0))
        if now - since >= DAY_S:
            since, before = now, 0
        most = self._limits.bytes_per_day
        if before + n_bytes > most or (before == most and not n_bytes):
            wait_s = int(DAY_S - (now - since)) + 1
            hours = -(-wait_s // 3600)
            raise please_wait(f"{most / 1e9:g} GB were sent to you within a day; go on in {hours} h", wait_s)
        self._bytes[caller] = (since, before + n_bytes)

    def wrong_token(self, address: str) -> None:
        """Somebody at an address came with a token that is nobody's.

        Raises:
            Refused: that happened there too often.
        """
        times = self._wrong.setdefault(address, deque())
        self._wrong.move_to_end(address)
        while len(self._wrong) > MOST_ADDRESSES:
            self._wrong.popitem(last=False)
        most = self._limits.wrong_tokens_per_minute
        if (wait_s := self._wait(times, most)) is not None:
            words = f"more than {most} calls with a wrong pass in a minute from this address; use the pass that the coordinator"
            raise please_wait(f"{words} sent last, in {wait_s} s", wait_s)
        times.append(self._clock())

    def _wait(self, times: deque[float], most: int) -> int | None:
        """How long until there is room for one more of ``most`` in a minute; None if there is."""
        now = self._clock()
        while times and now - times[0] >= MINUTE_S:
            times.popleft()
        return int(MINUTE_S - (now - times[0])) + 1 if len(times) >= most else None
