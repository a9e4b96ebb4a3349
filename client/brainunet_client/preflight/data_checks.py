"""The hospital's cases: which can be used, which are refused and why, and whether they are enough."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from brainunet.config import PreprocessConfig
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.data.made_up import made_up_among
from brainunet.data.preprocess import prepare
from brainunet.data.splits import Side, hold_out
from brainunet.errors import DataError, PrivacyError
from brainunet.labels import DEFAULT_MODALITIES
from brainunet.records import Case, Problem
from brainunet.terminal import progress_bar
from brainunet_client.consent import allowed, read_register, without_effect
from brainunet_client.home import Home
from brainunet_client.preflight.context import Context
from brainunet_client.preflight.report import DATA, Check

MOST_NAMED: Final = 5

_SIDES: TypeAdapter[dict[str, Side]] = TypeAdapter(dict[str, Side])


@dataclass(frozen=True)
class Looked:
    """The cases of a folder after reading each.

    Attributes:
        allowed: ids of the cases that have all files and are not excluded.
        usable: those of them that could be read.
        refused: the others, and files that make no case, with the reasons.
        excluded: how many the register takes out.
        made_up: ids of the usable cases that are marked as made up.
    """

    allowed: tuple[str, ...]
    usable: tuple[str, ...]
    refused: tuple[Problem, ...]
    excluded: int
    made_up: tuple[str, ...] = ()


def data(context: Context) -> list[Check]:
    if context.data is None:
        return [Check("data", "WARN", "not checked: no folder of cases was named", "add --data DIR", DATA)]
    try:
        register = read_register(context.home.consent)
    except PrivacyError:
        said = "not checked: no case may be read while the register of excluded cases can't be"
        return [Check("data", "WARN", said, exit_code=DATA)]
    return tell(look(context.data, context.home, register), kept_sides(context.home), context.settings().min_cases)


def consent(context: Context) -> Check:
    """The register of excluded cases; an id in it that no case has may be misspelt, and then somebody's case is used."""
    try:
        register = read_register(context.home.consent)
    except PrivacyError as error:
        return Check("consent", "FAIL", f"{error.where}: {error.found}", error.remedy)
    many = f"{len(register)} {'entry' if len(register) == 1 else 'entries'} in {context.home.consent.name}"
    if context.data is None or not register:
        return Check("consent", "PASS", many if register else "no case is excluded")
    try:
        found = find_cases(context.data)
    except DataError:  # the check of the data says so
        return Check("consent", "PASS", many)
    ids = [case.case_id for case in found.cases] + [problem.case_id for problem in found.problems]
    if unknown := without_effect(ids, register):
        named = some(unknown, ", ")
        said = f"{many}, of which {len(unknown)} {'is' if len(unknown) == 1 else 'are'} of no case in the data: {named}"
        return Check("consent", "WARN", said, "check the spelling: a misspelt id excludes nobody")
    return Check("consent", "PASS", many)


def look(folder: Path, home: Home, register: Collection[str]) -> Looked:
    """Read every case that may be used; one that is in the cache already costs a hash of its files.

    Raises:
        DataError: no such folder, or nothing in it is named like a case.
        BrainUNetError: the cache can't be written.
    """
    found = find_cases(folder)
    unknown = without_effect((case.case_id for case in found.cases), register)  # the check of the register names them
    cases, excluded = allowed(found.cases, set(register) - set(unknown))
    usable: list[str] = []
    refused = list(found.problems)
    with progress_bar() as progress:
        for case in progress.track(cases, description="reading cases"):
            try:
                _read(case, home)
                usable.append(case.case_id)
            except DataError as error:
                refused.append(Problem(case.case_id, str(error)))
    made_up = made_up_among(case for case in cases if case.case_id in usable)
    return Looked(tuple(case.case_id for case in cases), tuple(usable), tuple(refused), excluded, tuple(made_up))


def tell(looked: Looked, before: Mapping[str, Side], min_cases: int) -> list[Check]:
    found = len(looked.usable) + len(looked.refused) + looked.excluded
    sides = hold_out(looked.allowed, before)  # of all, as for a task: a case that can't be read has a side too
    train, validation = (sum(sides[case] == side for case in looked.usable) for side in ("train", "validation"))
    said = f"{found} found, {len(looked.usable)} usable"
    said += f" ({train} to train on, {validation} for validation)" if looked.usable else ""
    said += f", {len(looked.refused)} refused" if looked.refused else ""
    said += f", {looked.excluded} excluded by the register" if looked.excluded else ""
    if not looked.usable:
        checks = [Check("data", "FAIL", said, "mend what is said of the refused cases, or name another folder", DATA)]
    elif not train:
        remedy = "add cases of other patients: as it is, the site only evaluates"
        checks = [Check("data", "WARN", f"{said}: nothing to train on", remedy, DATA)]
    else:
        checks = [Check("data", "PASS", said, exit_code=DATA)]
    if looked.refused:
        reasons = some([_named(problem) for problem in looked.refused], " ")
        remedy = "brainunet check DIR looks at more than this, and with --out shows each case"
        checks.append(Check("refused cases", "WARN", reasons, remedy, DATA))
    if looked.made_up:
        said = f"{len(looked.made_up)} of {len(looked.usable)} usable cases, as their files say: {some(looked.made_up, ', ')}"
        remedy = "keep them in a folder of their own: a federation that is no demonstration refuses a site that has any"
        checks.append(Check("made-up cases", "WARN", said, remedy, DATA))
    if looked.usable and validation < min_cases:
        said = f"{validation} for validation, and figures are withheld below {min_cases}: this site's scores stay unknown"
        checks.append(Check("validation cases", "WARN", said, "add cases, or lower min_cases in site.toml", DATA))
    return checks


def some(words: Sequence[str], between: str) -> str:
    """The first few, and how many more there are.

    >>> some(["a", "b", "c", "d", "e", "f", "g"], ", ")
    'a, b, c, d, e, and 2 more'
    """
    more = len(words) - MOST_NAMED
    return between.join(words[:MOST_NAMED]) + (f"{between}and {more} more" if more > 0 else "")


def kept_sides(home: Home) -> dict[str, Side]:
    """The sides that cases were given before; none before the first task.

    Raises:
        DataError: a file that can't be read, which would keep every task from being done.
    """
    try:
        return _SIDES.validate_json(home.sides.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise DataError(
            home.sides,
            found=(error.strerror if isinstance(error, OSError) else None) or "something else than the sides of the cases",
            expected="which cases are for training and which for validation",
            remedy="put back a copy of it; only if there is none, remove it: the cases are then split anew",
        ) from None


def _read(case: Case, home: Home) -> None:
    # with the settings that a federation has unless it says otherwise: they come with the task alone
    if not home.path.is_dir():  # nothing is kept before the site has a folder of its own
        prepare(case, DEFAULT_MODALITIES, PreprocessConfig())
        return
    with suppress(OSError):  # which the cache will tell in words
        home.cache.mkdir(mode=0o700, exist_ok=True)
    CaseCache(home.cache).get(case, DEFAULT_MODALITIES, PreprocessConfig())


def _named(problem: Problem) -> str:
    return problem.reason if problem.reason.startswith(problem.case_id) else f"{problem.case_id}: {problem.reason}"
