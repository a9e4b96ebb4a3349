"""What a check found, and how all of them are told: on a screen, as JSON, as an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias, TypeVar

from rich.console import Console
from rich.text import Text

from brainunet.complaints import one_line
from brainunet.errors import BrainUNetError, ConfigError, DataError, FederationError

Outcome: TypeAlias = Literal["PASS", "WARN", "FAIL"]
T = TypeVar("T")

DATA: Final = DataError.exit_code
CONFIG: Final = ConfigError.exit_code  # the machine, the key, the kit, the settings
NETWORK: Final = FederationError.exit_code

_COLOURS: Final[dict[Outcome, str]] = {"PASS": "green", "WARN": "yellow", "FAIL": "bold red"}


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        outcome: FAIL keeps the client from its work, WARN will or may cost something.
        said: what was found.
        remedy: what to do; empty where there is nothing to do.
        exit_code: what a FAIL of it ends the command with.
    """

    name: str
    outcome: Outcome
    said: str
    remedy: str = ""
    exit_code: int = CONFIG


def guarded(name: str, look: Callable[[T], Check | Sequence[Check]], subject: T, code: int) -> list[Check]:
    """What a look at the subject found; an exception becomes a FAIL, so that one check never hides the others.

    ``code`` is for exceptions that nobody expected; those of the project bring their own.
    """
    try:
        found = look(subject)
    except BrainUNetError as error:
        return [failed(name, error)]
    except Exception as error:  # noqa: BLE001 - a report of every other check is worth more than a traceback
        said = f"the check itself failed: {type(error).__name__}" + (f": {error}" if str(error) else "")
        return [Check(name, "FAIL", said, "tell the makers of brainunet-fl what this line says", code)]
    return [found] if isinstance(found, Check) else list(found)


def failed(name: str, error: BrainUNetError) -> Check:
    """An error of the project as a FAIL: the same words, and its exit code where that is one of a check."""
    code = error.exit_code if error.exit_code in (DATA, CONFIG, NETWORK) else CONFIG
    return Check(name, "FAIL", f"{error.where}: {error.found}" + _but(error.expected), error.remedy, code)


def exit_code(checks: Sequence[Check]) -> int:
    """0 if nothing failed, else the smallest code of what did: data before configuration before network.

    >>> exit_code([Check("kit", "FAIL", "no such file"), Check("clock", "FAIL", "slow", exit_code=6), Check("key", "WARN", "")])
    4
    """
    return min((check.exit_code for check in checks if check.outcome == "FAIL"), default=0)


def to_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The checks as JSON's own types, in the order in which they were made."""
    return [asdict(check) for check in checks]


def show(checks: Sequence[Check]) -> None:
    """Print a line for each check, its remedy below it, and a verdict last; in colours on a terminal."""
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        line = Text(check.outcome, style=_COLOURS[check.outcome]).append(f"  {check.name:<{width}}  ", style="not bold default")
        # a line must stay one line, whatever a file or a server put into it; soft_wrap leaves the breaking to the terminal
        console.print(line.append(one_line(check.said), style="not bold default"), soft_wrap=True)
        if check.remedy:
            console.print(Text(f"{'':<{width + 8}}{one_line(check.remedy)}", style="dim"), soft_wrap=True)
    console.print(_verdict(checks), soft_wrap=True)


def _but(expected: str) -> str:
    return f", but expected {expected}" if expected else ""


def _verdict(checks: Sequence[Check]) -> Text:
    failed, warned = (sum(check.outcome == outcome for check in checks) for outcome in ("FAIL", "WARN"))
    warnings = f"{warned} warning{'' if warned == 1 else 's'}" if warned else "no warnings"
    if failed:
        return Text(f"Not ready: {failed} of {len(checks)} checks failed, {warnings}.", style=_COLOURS["FAIL"])
    return Text(f"Ready: nothing failed, {warnings}.", style=_COLOURS["WARN" if warned else "PASS"])
