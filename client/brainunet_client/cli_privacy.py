"""``brainunet-client --privacy``: spent, next and left, as a table or as JSON; and a person's decision about the ledger."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence

import typer

from brainunet.errors import UsageError
from brainunet.privacy.accounting import Charge
from brainunet_client.home import Home
from brainunet_client.privacy_status import PrivacyStatus, privacy_status, settle_privacy

_RUN = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # as records.Name


def show_privacy(place: Home, settle: Sequence[str], as_json: bool) -> None:
    """Print how the hospital stands; ``settle`` goes on with a stopped ledger first.

    Raises:
        UsageError: words of ``settle`` that are no steps.
        PrivacyError: the ledger can't be trusted, after what can be said of it.
    """
    status = settle_privacy(place, carried_in(settle)) if settle else privacy_status(place)
    if as_json:
        typer.echo(json.dumps(status.facts()))
    else:
        _table(status)
    if status.problem is not None:
        raise status.problem


def carried_in(words: Sequence[str]) -> dict[str, list[Charge]]:
    """What was lost of a ledger, as a person writes it: run -> steps, under "" of a run that is not named.

    >>> carried_in(["none"]), carried_in(["1.5,0.2,40,glioma-1", "2,0.1,9"])
    ({}, {'glioma-1': [Charge(noise=1.5, rate=0.2, steps=40)], '': [Charge(noise=2.0, rate=0.1, steps=9)]})

    Raises:
        UsageError: neither "none" nor noise, rate and steps.
    """
    found: dict[str, list[Charge]] = {}
    for text in words:
        if text.strip() == "none" and len(words) == 1:
            return {}
        try:
            noise, rate, steps, *runs = (word.strip() for word in text.split(","))
            (run,) = runs or ("",)
            charge = Charge(float(noise), float(rate), int(steps))
            if not (0 < charge.noise < 1e6 and 0 < charge.rate <= 1 and 0 < charge.steps <= 10**9):
                raise ValueError
            if runs and not _RUN.fullmatch(run):
                raise ValueError
        except ValueError:
            raise UsageError(
                "--settle",
                found=text,
                expected='noise, rate and steps of what was lost (and its run), such as 1.5,0.2,40; or "none" if nothing was',
                remedy="the coordinator can tell: flower-server privacy DIR --site NAME",
            ) from None
        found.setdefault(run, []).append(charge)
    return found


def _table(status: PrivacyStatus) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "epsilon", "what it is", title_justify="left")
    for name, epsilon, words in _rows(status):
        table.add_row(name, epsilon, words)
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    console.print(table)
    own = status.own
    console.print(f"Counted at delta {own.counted_at:g}; {own.public_cases} training cases are declared.", soft_wrap=True)
    console.print(
        "Epsilon bounds what all that has left this site tells of any one training case. Validation cases are not covered; "
        + ("their mean figures leave." if own.tell_scores else "none of their figures leave."),
        soft_wrap=True,
    )


def _rows(status: PrivacyStatus) -> Iterator[tuple[str, str, str]]:
    spent, own, plan = status.spent, status.own, status.plan
    if spent is None or status.epsilon is None:
        yield "spent", "unknown", "this site's ledger is not there to be read: see below"
    else:
        runs, steps = len(spent.charges.keys() - {""}), sum(charge.steps for charge in spent.all_charges)
        words = f"{_many(steps, 'noisy step')} of {_many(runs, 'run')}" if steps else "nothing yet"
        yield "spent", f"{status.epsilon:.3f}", words if status.problem is None else f"at least: {words} in the ledger"
        for run, charges in spent.charges.items():
            name = f"run {run}" if run else "settled by hand"
            yield (
                "",
                f"{spent.epsilon_of_run(run, own.counted_at):.3f}",
                f"{name}: {_many(sum(c.steps for c in charges), 'step')}",
            )
    after = status.epsilon_after_next
    if plan is not None and after is not None and status.epsilon is not None:
        a_round = plan.a_round
        words = f"a round of run {plan.run}: {_many(a_round.steps, 'step')}, noise {a_round.noise:.3f}, rate {a_round.rate:.3f}"
        yield "next", f"+{after - status.epsilon:.3f}", words + (f"; {status.no_next}" if status.no_next else "")
    else:
        yield "next", "none", status.no_next or ""
    left, rounds = status.epsilon_left, status.rounds_left
    bears = "" if rounds is None else f"; {rounds} more round{'' if rounds == 1 else 's'} of this run"
    yield "left", "unknown" if left is None else f"{left:.3f}", f"of {own.epsilon:g}, which site.toml allows{bears}"


def _many(count: int, what: str) -> str:
    """
    >>> _many(1, "step"), _many(2, "step")
    ('1 step', '2 steps')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"
