"""Who this site is: its settings, its key, its kit and how long their certificates are good for."""

from __future__ import annotations

import os
import stat
from typing import Final

from cryptography import x509

from brainunet.certificates import days_left, out_of_time, read_certificate, read_site_key
from brainunet.errors import ConfigError
from brainunet.kit import read_kit, require_kit_of
from brainunet.moments import day
from brainunet_client.preflight.context import Context
from brainunet_client.preflight.report import Check, failed
from brainunet_client.site_settings import SiteSettings, read_site_settings

WARN_DAYS: Final = 30
ENROL: Final = "brainunet-client --enrol NAME --server HOST:PORT"


def settings(context: Context) -> Check:
    found = read_site_settings(context.home)
    fields = SiteSettings.model_fields
    empty = [name for name in ("purpose", "legal_basis") if getattr(found, name) in ("", fields[name].default)]
    said = f"training {', '.join(found.hours) or 'at any hour'}, figures from {found.min_cases} validation cases on"
    if empty:
        remedy = f"write {' and '.join(empty)} into site.toml: the ledger notes this with every transfer"
        return Check("settings", "WARN", f"{said}; {' and '.join(empty)} not filled in", remedy)
    return Check("settings", "PASS", said)


def key(context: Context) -> Check:
    path = context.home.key
    if not path.exists():
        return Check("key", "FAIL", f"{path.name}: no such file in {context.home.path}", f"enrol this site first: {ENROL}")
    read_site_key(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        remedy = f"chmod 600 {path}; if others may have read it, ask the coordinator to revoke it and enrol anew"
        return Check("key", "WARN", f"other users of this machine may read it (mode {mode:o})", remedy)
    return Check("key", "PASS", "EC P-384, readable by its owner alone" if os.name == "posix" else "EC P-384")


def kit(context: Context) -> list[Check]:
    """The kit, and one line each for the site's certificate and the authority's."""
    path = context.home.kit
    if not path.exists():
        remedy = f"send the request ({ENROL}) to the coordinator, then brainunet-client --kit KIT with what comes back"
        return [Check("kit", "FAIL", f"{path.name}: no such file in {context.home.path}", remedy)]
    found = read_kit(path)
    checks = []
    try:
        require_kit_of(found, read_site_key(context.home.key))
        checks.append(Check("kit", "PASS", f"of {found.site} in the federation {found.federation!r}, server {found.server}"))
    except ConfigError as error:
        checks.append(failed("kit", error))
    for name, pem in (("certificate", found.site_certificate), ("authority", found.ca_certificate)):
        checks.append(_days(name, read_certificate(pem, name), context))
    return checks


def _days(name: str, certificate: x509.Certificate, context: Context) -> Check:
    if trouble := out_of_time(certificate, context.clock()):
        remedy = "if the clock is wrong (see the line of the clock), only that is to be mended; else ask for a new kit"
        return Check(name, "FAIL", trouble, remedy)
    days = days_left(certificate, context.clock())
    if days >= WARN_DAYS:
        return Check(name, "PASS", f"good for {days} days")
    said = f"expires in {days} days, on {day(certificate.not_valid_after_utc)}"
    return Check(name, "WARN", said, "ask the coordinator for a new kit before that day")
