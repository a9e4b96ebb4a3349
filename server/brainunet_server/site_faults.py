"""What a site's fault means for the run: what the site's people see, who mends it, and whether waiting can."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from brainunet.records import FaultCode

_ANEW: Final = "then begin a new run (flower-server run DIR --new-run), for a run keeps the settings it was begun with"


@dataclass(frozen=True)
class Meaning:
    """What a fault code tells.

    Attributes:
        hint: what is wrong, in words.
        remedy: what to change.
        lasting: the same task gives the same fault however often it is sent, until a person changes something.
    """

    hint: str
    remedy: str
    lasting: bool = False


FAULTS: Final[Mapping[FaultCode, Meaning]] = MappingProxyType(
    {
        FaultCode.TASK_NOT_UNDERSTOOD: Meaning(
            "the site's program can't read the task", "bring server and sites to one version of brainunet-fl", lasting=True
        ),
        FaultCode.MODEL_DOES_NOT_FIT: Meaning(
            "the site's program knows no such network, loss or setting, or the weights don't fit the network",
            f"correct train.loss.name and the other names in federation.toml, or the start model, {_ANEW}; or bring the sites"
            " to the server's version",
            lasting=True,
        ),
        # the seed is in the task: what diverged once diverges again
        FaultCode.TRAINING_DIVERGED: Meaning(
            "the loss is no longer a number", f"lower train.learning_rate, {_ANEW}", lasting=True
        ),
        FaultCode.NO_USABLE_CASES: Meaning(
            "the site finds no case that it can use, or has made-up ones in what is no demonstration",
            "the site looks with brainunet-client --data DIR --check",
        ),
        FaultCode.SITE_NOT_READY: Meaning(
            "the site's own settings, kit or register can't be read", "the site looks with brainunet-client --data DIR --check"
        ),
        FaultCode.OUT_OF_MEMORY: Meaning(
            "memory ran out", "the site closes other programs or raises memory_gb; or choose a smaller train.patch in a new run"
        ),
        FaultCode.DISK_FULL: Meaning("the disk is full", "the site makes room"),
        FaultCode.OUTSIDE_HOURS: Meaning("training may not run at this hour", "wait, or agree on hours and rounds.deadline_s"),
        FaultCode.TOO_LATE: Meaning(
            "it took longer than the coordinator waits", "raise rounds.deadline_s, or lower train.steps"
        ),
        FaultCode.PRIVACY_REFUSED: Meaning(
            "the site's rules of privacy, or its ledger of spending, forbid this training",
            f"the site reads why in client.log; agree on [privacy] in federation.toml, {_ANEW}; "
            "or a person at the site decides about its ledger (brainunet-client --privacy)",
            lasting=True,
        ),
        FaultCode.BUDGET_SPENT: Meaning(
            "the site's budget of privacy bears no further round; it only evaluates",
            "end the run here: the models of its rounds are kept; or the hospital raises privacy.epsilon in its site.toml",
            lasting=True,
        ),
        FaultCode.INTERNAL: Meaning("an unforeseen error", "client.log at the site says more"),
    }
)


def explained(outcomes: Iterable[tuple[str, str | None]]) -> str:
    """What the faults among these outcomes mean and who mends them, each code once; empty without any.

    >>> explained([("fault", "disk_full"), ("absent", "no reply in time"), ("fault", "disk_full")])
    'disk_full means: the disk is full (the site makes room)'
    """
    codes = sorted({FaultCode(reason) for outcome, reason in outcomes if outcome == "fault" and reason is not None})
    return "; ".join(f"{code} means: {FAULTS[code].hint} ({FAULTS[code].remedy})" for code in codes)


def lasting_only(outcomes: Iterable[tuple[str, str | None]], needed: int) -> FaultCode | None:
    """The fault for which a round needs not be tried again; None if there is none.

    That is so when every site that answered did so with a lasting fault, and these are as many as a round needs: one site
    must not end the run of the others, nor be able to.

    Args:
        outcomes: of each site its outcome and the reason, which is a fault's code.
        needed: sites without which there is no round.

    Returns:
        The most frequent of these faults, the first by name of equals.
    """
    answered = [(outcome, reason) for outcome, reason in outcomes if outcome != "absent"]
    codes = [FaultCode(reason) for outcome, reason in answered if outcome == "fault" and reason is not None]
    if len(codes) < max(len(answered), needed) or not all(FAULTS[code].lasting for code in codes):
        return None
    return max(sorted(set(codes)), key=codes.count)
