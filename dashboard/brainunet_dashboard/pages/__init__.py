"""The pages, in the order of the menu: a new one is a file here and a line in PAGES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from brainunet_dashboard.pages import federation


@dataclass(frozen=True)
class Page:
    """One page: ``show`` draws it, ``path`` ends its address."""

    show: Callable[[], None]
    title: str
    icon: str
    path: str


PAGES: Final = (Page(federation.show, "Federation", ":material/hub:", "federation"),)
