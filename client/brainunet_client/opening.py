"""From the client's folder and a folder of cases to the site that a task is done at; done anew for every task."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.data.made_up import made_up_among
from brainunet.data.splits import Side, hold_out
from brainunet.errors import DataError
from brainunet.files import writing_aside
from brainunet.kit import open_kit
from brainunet.labels import Convention
from brainunet.records import Task
from brainunet_client.consent import allowed, read_register
from brainunet_client.home import Home, open_home
from brainunet_client.ledger import entries_told, record_consent
from brainunet_client.site import PrivateSite, Site
from brainunet_client.site_settings import SiteSettings

UNNAMED: Final = "this-site"  # until the kit is there

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_SIDES: TypeAdapter[dict[str, Side]] = TypeAdapter(dict[str, Side])

log = logging.getLogger(__name__)


def open_site(
    home_path: Path, data: Path, task: Task, *, convention: Convention | None = None, in_earnest: bool = False
) -> Site:
    """The site with the cases below ``data`` that have what the task needs and that the register does not exclude.

    A case keeps the side it first got, training or validation, also while it is excluded or its files are away.

    Args:
        home_path: the client's folder.
        data: the folder of cases.
        task: what the cases are for.
        convention: of cases whose names don't tell it.
        in_earnest: the task's reply may leave. A change of the register is written down in the ledger, and the prepared
            copies of cases that are no longer used, or that were prepared for other tasks, leave the cache.

    Raises:
        DataError: no usable case, cases that are made up though the task is for no demonstration, or kept sides that can't be
            read.
        PrivacyError: a register of excluded cases that can't be read.
        ConfigError: a kit that is not good.
        BrainUNetError: a home that can't be written, or a ledger that can't be continued.
    """
    home = open_home(home_path)
    name = open_kit(home.kit).site if home.kit.exists() else UNNAMED
    found = find_cases(data, modalities=task.model.modalities, convention=convention)
    for problem in found.problems:
        log.warning("left out: %s", problem.reason)
    register = read_register(home.consent)
    cases, excluded = allowed(found.cases, register)
    if in_earnest:
        record_consent(home, listed=len(register), excluded=excluded)
    if in_earnest and found.cases:  # a disk that is away for an hour must not cost every copy
        gone = CaseCache(home.cache).keep_only({case.case_id for case in cases}, task.model.modalities, task.preprocess)
        if gone:
            log.info("removed %d prepared copies that are no longer used", gone)
    if not cases:
        raise DataError(
            data,
            found=f"no usable case ({len(found.problems)} with problems, {excluded} excluded by {home.consent.name})",
            expected="at least one",
            remedy=f"mend what {home.log.name} names",
        )
    if not task.demo and (made_up := made_up_among(cases)):
        raise DataError(
            data,
            found=f"{len(made_up)} of {len(cases)} cases are made up, as their files say (the first is {made_up[0]})",
            expected="cases of patients: this federation is no demonstration",
            remedy="keep made-up cases in a folder of their own",
        )
    sides = _fixed_sides(home, [case.case_id for case in cases])
    return Site.of(name, cases, sides, CaseCache(home.cache), home.work)


def private_site(home: Home, settings: SiteSettings) -> PrivateSite | None:
    """How the site trains privately; None where its settings don't ask for it.

    Raises:
        ChainBroken, BrainUNetError: the ledger of transfers can't be read.
    """
    if settings.privacy is None:
        return None
    return PrivateSite(settings.privacy, home.privacy, least_entries=entries_told(home))


def _fixed_sides(home: Home, case_ids: list[str]) -> Mapping[str, Side]:
    before = _read_sides(home.sides)
    sides = before | hold_out(case_ids, before)
    if sides != before:
        # closed to others from its first byte, for it holds case ids
        with writing_aside(home.sides) as aside, os.fdopen(os.open(aside, _NEW, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps(sides, indent=2, sort_keys=True) + "\n")
    return sides


def _read_sides(path: Path) -> dict[str, Side]:
    try:
        return _SIDES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise DataError(
            path,
            found=(error.strerror if isinstance(error, OSError) else None) or "something else than the sides of the cases",
            expected="which cases are for training and which for validation",
            remedy="put back a copy of it; without one the model would be trained on cases that it is scored on. "
            "Only if there is no copy, remove it: the cases are then split anew",
        ) from None
