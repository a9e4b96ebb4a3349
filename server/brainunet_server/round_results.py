"""What a round came to: what each site did in it, and the model that it made or why it made none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from brainunet.errors import ConfigError, FederationError
from brainunet.records import CaseCounts, FaultCode, PrivacySpend, SiteScore
from brainunet.weights import Weights
from brainunet_server.site_faults import FAULTS, explained


@dataclass(frozen=True)
class SiteResult:
    """What one site did in one exchange, and how it scored the model it was sent.

    ``spend`` is what its training cost, whether or not the reply was used: it has left the site.
    """

    site: str
    outcome: Literal["answered", "fault", "refused", "absent"]
    reason: str | None = None
    cases: CaseCounts | None = None
    score: SiteScore | None = None
    loss: float | None = None
    seconds: float | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    client_version: str | None = None
    update_norm: float | None = None
    update_digest: str | None = None
    spend: PrivacySpend | None = None


@dataclass(frozen=True)
class RoundResult:
    """One exchange; ``weights`` is the model it made, None for the last exchange, which only scores."""

    exchange: int
    sites: tuple[SiteResult, ...]
    weights: Weights | None


class TooFewReplies(FederationError):
    """A round that made no model; ``result`` says what each site did."""

    def __init__(self, result: RoundResult, usable: int, needed: int) -> None:
        reasons = "; ".join(f"{r.site}: {r.reason}" for r in result.sites if r.reason) or "no site could be asked"
        meant = explained((site.outcome, site.reason) for site in result.sites)
        super().__init__(
            f"round {result.exchange}",
            found=f"{usable} usable replies of {len(result.sites)} ({reasons})",
            expected=f"at least {needed}",
            remedy="mend the sites named, then resume the run: complete rounds are kept" + (f"; {meant}" if meant else ""),
        )
        self.result = result


class LastingFaults(ConfigError):
    """A round that made no model and never will as the run is set up; ``result`` says what each site did."""

    def __init__(self, result: RoundResult, fault: FaultCode) -> None:
        sites = ", ".join(site.site for site in result.sites if site.reason == fault)
        super().__init__(
            f"round {result.exchange}",
            found=f"every site that answered has a fault that no waiting mends: {FAULTS[fault].hint} ({fault}: {sites})",
            expected="sites that can do the task",
            remedy=FAULTS[fault].remedy,
        )
        self.result, self.fault = result, fault

    def others_suffice(self, members: int, needed: int) -> bool:
        """Whether of ``members`` sites so many are away or silent that these could do the round, with newer programs perhaps.

        Not of a training that diverged: that is the settings' doing, and each attempt costs the sites a training.
        """
        if self.fault is FaultCode.TRAINING_DIVERGED:
            return False
        return members - sum(site.outcome == "fault" for site in self.result.sites) >= max(1, needed)
