"""How a site becomes one of a federation: a key made here, a request that a person sends, a kit that comes back."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from brainunet import certificates
from brainunet.addresses import host_and_port
from brainunet.certificates import (
    SiteRequest,
    new_site_key,
    public_key_id,
    read_certificate,
    read_request,
    read_site_key,
    write_site_key,
)
from brainunet.errors import BrainUNetError, ConfigError, UsageError
from brainunet.files import writing_aside
from brainunet.kit import Kit, open_kit, require_kit_of
from brainunet_client import consent, ledger, site_settings
from brainunet_client.home import Home

STEPS: Final = (
    "join in two steps: 1. brainunet-client --enrol NAME --server HOST:PORT makes NAME.request, which you send to the "
    "coordinator; 2. brainunet-client --kit KIT installs the kit that comes back"
)

Confirm = Callable[[Kit, str], bool]  # a kit and its fingerprint -> whether the coordinator reads out the same numbers


@dataclass(frozen=True)
class Identity:
    """Who this site is and whom it trusts: its kit, and the private key that the certificate in it belongs to."""

    kit: Kit
    private_key: EllipticCurvePrivateKey


def make_request(home: Home, name: str, server: str, *, new_key: bool = False) -> SiteRequest:
    """The request of this site, kept as ``home.request_of(name)``: a name and a public key, no patient data.

    The key is made once and kept; a second call gives the same request. ``new_key`` sets both aside and makes new ones.
    Templates of ``site.toml`` and of the register of excluded cases are written where there are none.

    Raises:
        UsageError: a server that is no ``host:port``, or another name than the one of the request that is there.
        ConfigError: not a name for a site, or a key that can't be read.
        ChainBroken: the ledger was changed.
        BrainUNetError: the folder can't be written.
    """
    _require_address(server)
    asked = None if new_key else _present_request(home)
    if asked is not None and asked.name != name:
        raise UsageError(
            "--enrol",
            found=f"the name {name}, while {home.path} holds the key and the request of {asked.name}",
            expected=asked.name,
            remedy=f"go on as {asked.name}, name another folder by --home, or set the old key aside by --new-key",
        )
    made_key = new_key or not home.key.exists()
    request = asked or _make_anew(home, name, made_key)
    _write_where_missing(home.settings, site_settings.TEMPLATE)
    _write_where_missing(home.consent, consent.TEMPLATE)
    if asked is None or requested_server(home) != server:
        ledger.record_request(home, site=name, server=server, fingerprint=request.fingerprint, new_key=made_key)
    return request


def requested_server(home: Home) -> str | None:
    """The server that was named when this site last asked to join; None if it never did."""
    entry = ledger.last_of(home, ledger.REQUEST_MADE)
    return None if entry is None else str(entry.data.get("server"))


def install_kit(home: Home, path: Path, confirm: Confirm, *, replace: bool = False) -> Kit:
    """Keep the kit at ``path`` as this site's own, once it is found good and ``confirm`` says yes to its fingerprint.

    The kit that is there already may be renewed by one of the same federation; ``replace`` allows one of another signing key,
    and after a new key was made one of any federation.

    Raises:
        ConfigError: no key yet, a kit that is damaged, edited, expired, not for this key or of another federation than the
            installed one, also one of another authority while the key is that of the installed kit, or one whose fingerprint
            was not confirmed.
        ChainBroken: the ledger was changed.
        BrainUNetError: the folder can't be written.
    """
    key = _key(home)
    open_kit(path)  # here for its message, which names the file
    content = path.read_bytes()
    kit = open_kit(content)
    require_kit_of(kit, key)
    installed = _installed(home, replace)
    if installed is not None and _is_of(installed.site_certificate, key) and _authority(installed) != _authority(kit):
        # whoever runs the one federation could send what this site signed for it to the other
        raise ConfigError(
            path,
            found=f"a kit of federation {kit.federation}, while the key was used with another federation",
            expected="a key for each federation",
            remedy="make a new one: brainunet-client --enrol NAME --server HOST:PORT --new-key",
        )
    other = home.kit.exists() and (installed is None or installed.fingerprint != kit.fingerprint)
    if other and not replace:
        raise ConfigError(
            path,
            found=f"a kit of federation {kit.federation} with other keys than those of the federation that this site is in",
            expected="a kit of the same federation",
            remedy="ask the coordinator whether its keys have changed; to leave the present federation, add --replace",
        )
    if not confirm(kit, kit.fingerprint):
        raise ConfigError(
            path,
            found="a fingerprint that the coordinator did not confirm",
            expected="the same numbers at both ends",
            remedy="do not use this kit, somebody may have changed it on the way: ask for it again by another way",
        )
    ledger.record_kit(
        home,
        federation=kit.federation,
        site=kit.site,
        server=kit.server,
        fingerprint=kit.fingerprint,
        replaces=other,
    )
    _write_private(home.kit, content)
    return kit


def load_identity(home: Home) -> Identity:
    """Kit and key of a site that has joined.

    Raises:
        ConfigError: no key, no kit, a kit for another key, or one that is damaged or has expired.
    """
    key = _key(home)
    if not home.kit.exists():
        request = home.request.name if home.request else "NAME.request"
        raise ConfigError(
            str(home.path),
            found="no kit",
            expected="the coordinator's kit for this site",
            remedy=f"send {request} to the coordinator; then brainunet-client --kit KIT installs the kit that comes back",
        )
    kit = open_kit(home.kit)
    require_kit_of(kit, key)
    return Identity(kit, key)


def _key(home: Home) -> EllipticCurvePrivateKey:
    if not home.key.exists():
        raise ConfigError(str(home.path), found="no key", expected="a site that has joined a federation", remedy=STEPS)
    return read_site_key(home.key)


def _present_request(home: Home) -> SiteRequest | None:
    """The request that belongs to the key; None if there is no key, or no request of it that can be read."""
    if not home.key.exists():
        return None
    ours = public_key_id(read_site_key(home.key).public_key())
    for path in sorted(home.path.glob("*.request")):
        try:
            request = read_request(path.read_bytes())
        except (OSError, ConfigError):
            continue
        if public_key_id(request.public_key) == ours:
            return request
    return None


def _make_anew(home: Home, name: str, new_key: bool) -> SiteRequest:
    key = new_site_key() if new_key else read_site_key(home.key)
    content = certificates.make_request(key, name)  # refuses a name before anything is touched
    for path in (home.key, *home.path.glob("*.request")) if new_key else (home.request_of(name),):
        _set_aside(path)
    if new_key:
        write_site_key(home.key, key)
    _write_private(home.request_of(name), content)
    return read_request(content)


def _installed(home: Home, replace: bool) -> Kit | None:
    """The kit that is there, which may have expired; None if there is none, or one that can't be read is to be replaced."""
    if not home.kit.exists():
        return None
    try:
        told = json.loads(home.kit.read_bytes())
        installed = Kit.model_validate_json(json.dumps({name: told[name] for name in Kit.model_fields}))
        read_certificate(installed.site_certificate, home.kit)
        _ = installed.fingerprint  # that it has one
        return installed
    except (OSError, ValueError, LookupError, TypeError, ConfigError):
        if replace:
            return None
        raise ConfigError(
            home.kit,
            found="an installed kit that can't be read, so that nobody knows which federation it was of",
            expected="the kit as it was installed",
            remedy="put it back from your backup, or install the new one by --replace",
        ) from None


def _is_of(certificate: str, key: EllipticCurvePrivateKey) -> bool:
    return public_key_id(read_certificate(certificate, "kit").public_key()) == public_key_id(key.public_key())


def _authority(kit: Kit) -> str:
    """Whose certificates the federation's are: an authority that renews its own keeps its key."""
    return public_key_id(read_certificate(kit.ca_certificate, "kit").public_key())


def _require_address(server: str) -> None:
    try:
        host_and_port(server)
    except ConfigError as error:
        raise UsageError("--server", found=error.found, expected=error.expected, remedy="ask the coordinator for it") from None


def _set_aside(path: Path) -> None:
    """Under a name that tells when; nothing is lost, and nothing set aside before is overwritten."""
    aside = path.with_name(f"{path.name}.old-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BrainUNetError(
            path, found=f"it can't be set aside: {error.strerror or error}", remedy="check that you may write to its folder"
        ) from None


def _write_where_missing(path: Path, text: str) -> None:
    if not path.exists():
        _write_private(path, text.encode())


def _write_private(path: Path, content: bytes) -> None:
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with writing_aside(path) as aside, os.fdopen(os.open(aside, new, 0o600), "wb") as file:
        file.write(content)
