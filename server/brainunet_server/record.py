"""What happens in a served federation, for the audit log and for the screen."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from brainunet import chain
from brainunet.metrics.summary import federation_mean
from brainunet.moments import local
from brainunet_server.round_results import RoundResult

_KINDS: Final = {
    "answered": "reply-accepted",
    "absent": "reply-missing",
    "fault": "reply-refused",
    "refused": "reply-refused",
}


@dataclass(frozen=True)
class Record:
    """The audit log of run ``run``."""

    file: Path
    run: str

    def note(self, kind: str, **data: Any) -> None:
        """One entry about the run; what is None is left out.

        Raises:
            BrainUNetError: the log can't be continued.
        """
        chain.append(self.file, kind, {"run": self.run} | {name: value for name, value in data.items() if value is not None})

    def begins(self) -> None:
        before = any(entry.kind == "run-started" and entry.data.get("run") == self.run for entry in chain.entries(self.file))
        self.note("run-resumed" if before else "run-started")

    def exchange(self, result: RoundResult) -> None:
        """Each site's part in an exchange, and the model it made."""
        for site in result.sites:
            self.note(
                _KINDS[site.outcome],
                round=result.exchange,
                site=site.site,
                reason=site.reason,
                bytes=site.bytes_up,
                norm=site.update_norm,
                sha256=site.update_digest,
            )
        if result.weights is not None:
            self.note("model-saved", round=result.exchange, sha256=result.weights.digest)


def sentence(result: RoundResult) -> str:
    """How an exchange went."""
    answered = [site for site in result.sites if site.outcome == "answered"]
    dice = federation_mean(site.score for site in answered if site.score is not None).get("WT")
    withheld = sum(site.score is not None and site.score.withheld for site in answered)
    if dice is not None:
        figure = f"mean whole-tumour Dice {dice:.3f}" + (f" (figures of {withheld} withheld)" if withheld else "")
    else:
        figure = "figures withheld, too few validation cases" if withheld else "no figure"
    others = ", ".join(f"{site.site} {site.outcome}: {site.reason}" for site in result.sites if site.outcome != "answered")
    words = f"round {result.exchange}: {len(answered)} of {len(result.sites)} answered; the model they were sent: {figure}"
    return f"{words}; {others}" if others else words


def say(words: str) -> None:
    sys.stdout.write(f"{local(datetime.now(UTC))} {words}\n")
    sys.stdout.flush()
