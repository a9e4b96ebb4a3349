"""The pages, in the order of the menu: a new one is a file here and a line in PAGES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from brainunet_dashboard.pages import audit, compare, federation, models, scores, sites, traffic


@dataclass(frozen=True)
class Page:
    """One page: ``show`` draws it, ``path`` ends its address."""

    show: Callable[[], None]
    title: str
    icon: str
    path: str


PAGES: Final = (
    Page(federation.show, "Federation", ":material/hub:", "federation"),
    Page(sites.show, "Sites", ":material/local_hospital:", "sites"),
    Page(scores.show, "Scores", ":material/monitoring:", "scores"),
    Page(traffic.show, "Privacy and traffic", ":material/shield_lock:", "traffic"),
    Page(models.show, "Models", ":material/deployed_code:", "models"),
    Page(audit.show, "Audit", ":material/receipt_long:", "audit"),
    Page(compare.show, "Simulation compare", ":material/compare_arrows:", "compare"),
)
