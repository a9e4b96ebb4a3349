"""What comes back from a site in an exchange."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from brainunet.records import AnyTask, Reply


@dataclass(frozen=True)
class Answer:
    """A site's reply, or None and why there is none; ``unreadable`` if something did come back.

    ``digest``: SHA-256 of the values that came, where the exchange takes one (hex).
    """

    site: str
    reply: Reply | None
    bytes_down: int = 0
    bytes_up: int = 0
    problem: str | None = None
    unreadable: bool = False
    digest: str | None = None


class Exchange(Protocol):
    """Carries one task to many sites."""

    def sites(self) -> Sequence[str]:
        """The sites that can be asked now."""

    def is_member(self, site: str) -> bool:
        """Whether the site may still take part, at the end of an exchange."""

    def ask(self, task: AnyTask, sites: Sequence[str]) -> Iterator[Answer]:
        """Answers as they arrive, one for each site that was asked."""
