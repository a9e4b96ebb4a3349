"""``brainunet-client --check``: everything that can be known before the first round, each thing in a line with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from brainunet.complaints import one_line
from brainunet_client.enrolment import Identity
from brainunet_client.home import Home
from brainunet_client.preflight.contact import Clock, machine_clock
from brainunet_client.preflight.context import Context
from brainunet_client.preflight.data_checks import consent, data
from brainunet_client.preflight.identity_checks import key, kit, settings
from brainunet_client.preflight.machine_checks import disk, memory
from brainunet_client.preflight.network_checks import network_checks
from brainunet_client.preflight.privacy_checks import privacy
from brainunet_client.preflight.report import CONFIG, DATA, NETWORK, Check, exit_code, guarded, show, to_json

__all__ = ["CHECKS", "Check", "Context", "diagnose", "exit_code", "run_checks", "show", "to_json"]


def network(context: Context) -> Sequence[Check]:
    found = context.kit()
    if found is None:
        return [
            Check("network", "WARN", "not checked: the server is named in the kit, and there is no good one", exit_code=NETWORK)
        ]
    return network_checks(found, context.clock)


Look = Callable[[Context], Check | Sequence[Check]]
CHECKS: Final[tuple[Look, ...]] = (settings, key, kit, data, consent, privacy, disk, memory, network)
_CODES: Final[dict[Look, int]] = {data: DATA, network: NETWORK}  # of a check that can't be made; 4 elsewhere


def run_checks(home: Home, data: Path | None, *, now: Clock | None = None) -> list[Check]:
    """Every check, in the order of the table; none raises, and a dead network takes less than a minute.

    Args:
        home: the client's folder; nothing but its cache is written.
        data: the folder of cases; None leaves them unchecked.
        now: gives this machine's time (aware); None is the machine's own clock.
    """
    context = Context(home, data, now or machine_clock)
    return [check for look in CHECKS for check in guarded(look.__name__, look, context, _CODES.get(look, CONFIG))]


def diagnose(identity: Identity, now: Clock | None = None) -> str | None:
    """The first thing that keeps this site from its server, and what to do about it, in one sentence; None if all is well."""
    for check in network_checks(identity.kit, now or machine_clock):
        if check.outcome == "FAIL":
            return one_line(f"{check.said}: {check.remedy}")
    return None
