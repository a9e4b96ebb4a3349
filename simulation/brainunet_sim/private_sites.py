"""Virtual hospitals under differential privacy: real ledgers and real noise, but a seed, so that a simulation repeats.

Who knows the seed can take the noise away: what a simulation makes of real cases is no more private than without.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from brainunet.config import PrivacyConfig
from brainunet.errors import UsageError
from brainunet.privacy.accounting import Charge
from brainunet.privacy.purse import open_purse
from brainunet_client.site import PrivateSite, Site
from brainunet_client.site_settings import SitePrivacy
from brainunet_server.store.opening import open_for_writing
from brainunet_server.store.reader import StoreReader

NO_CAP: Final = 1e9  # the caps of hospitals are not simulated: the run's own epsilon ends it
_SHORT: Final = {"eps": "epsilon"}


def privacy_options(text: str) -> dict[str, Any]:
    """What ``--privacy`` says, as settings of :class:`~brainunet.config.PrivacyConfig`.

    >>> privacy_options("eps=8,delta=1e-3,cases_per_step=2")
    {'epsilon': 8, 'delta': 0.001, 'cases_per_step': 2}

    Raises:
        UsageError: no words of the form name=number.
    """
    options: dict[str, Any] = {}
    for word in text.split(","):
        name, equals, value = (part.strip() for part in word.partition("="))
        try:
            if not equals or not name:
                raise ValueError
            options[_SHORT.get(name, name)] = tomllib.loads(f"value = {value}")["value"]
        except ValueError:
            raise UsageError(
                "--privacy", found=word.strip() or "nothing", expected="name=number, such as eps=8 or eps=8,delta=1e-3"
            ) from None
    return options


def privately(sites: Sequence[Site], privacy: PrivacyConfig, seed: int, store: str | Path, run_id: str) -> list[Site]:
    """The sites, each with a ledger of this run that holds what its complete rounds have spent, and nothing else.

    A round that is begun again after an interruption costs nothing twice: unlike a hospital's, its first attempt has not left.
    """
    open_for_writing(store).dispose()  # of a run that is about to begin there is no store yet
    with StoreReader(store) as reader:
        spends = reader.spends(run_id)
    return [replace(site, privacy=_of(site, privacy, seed, run_id, spends)) for site in sites]


def _of(site: Site, privacy: PrivacyConfig, seed: int, run_id: str, spends: Sequence[Any]) -> PrivateSite:
    settings = SitePrivacy(public_cases=len(site.train), epsilon=NO_CAP, delta=min(privacy.delta, 1 / max(1, len(site.train))))
    ledger = site.work / f"privacy-{run_id}.jsonl"
    ledger.unlink(missing_ok=True)
    for row in spends:
        if row.site == site.name:
            cases = settings.public_cases
            with open_purse(ledger, site=site.name, cases=cases, run=run_id, round=row.round) as purse:
                purse.pay(Charge(row.noise_multiplier, row.sample_rate, row.steps))
    return PrivateSite(settings, ledger, seed=seed)
