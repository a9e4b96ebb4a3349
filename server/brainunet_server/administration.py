"""What the coordinator does to a federation by hand: let sites in, put them out, change keys.

Each step prepares all it will write, then gives the files their names, the audit entry among the first: what happened is never
without its entry, and a step that was interrupted can be repeated.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from brainunet.certificates import MAX_BYTES, SiteRequest, days_left, public_key_id, read_certificate, read_request
from brainunet.chain import JSON, append
from brainunet.errors import ConfigError, FederationError, UsageError
from brainunet.files import writing_aside
from brainunet.signing import new_signing_key, sign_file, verify_file, write_signing_key
from brainunet_server.authority import (
    certify_server,
    certify_site,
    hosts_of,
    new_key,
    pem_of,
    read_authority,
    read_certificate_file,
    renew_site,
    write_key,
)
from brainunet_server.federation import Folder, read_settings
from brainunet_server.kits import Desk, KitGiven, kit_name, kit_place, prepared, public_text
from brainunet_server.roster import Roster, changing, read_roster
from brainunet_server.start_model import PURPOSE
from brainunet_server.status import is_served

RENEW_WITHIN_DAYS: Final = 30  # a kit that is asked for again holds a certificate with at least so many days left


def enrol(
    folder: Folder, request_file: Path, out: Path | None, server: str | None = None, *, replace: bool = False
) -> KitGiven:
    """Let a site in by its request, and write its kit; the same request again gives its kit again.

    Args:
        folder: of the federation.
        request_file: what the site sent.
        out: file or folder for the kit; None is ``NAME.kit.json`` here.
        server: ``host:port`` where the site reaches the server, if not as the settings say.
        replace: the site has a new key, and its earlier one is revoked.

    Raises:
        ConfigError: no federation, no request, a revoked key, another site's key, or another key than before.
        UsageError: a server that is not in its certificate, or a place for the kit that holds another file.
        BrainUNetError: something can't be written.
    """
    desk = Desk.open(folder, server)
    request = _read_request_file(request_file)
    kit_file = kit_place(out, request.name)
    with changing(folder.roster):
        roster, now, key_id = read_roster(folder.roster), datetime.now(UTC), public_key_id(request.public_key)
        known = roster.require_admissible(request.name, key_id, replace=replace)
        earlier = roster.sites.get(request.name)
        entries: list[tuple[str, Mapping[str, JSON]]] = []
        if known and earlier is not None:
            certificate = read_certificate(earlier.certificate)
            if days_left(certificate) >= RENEW_WITHIN_DAYS:
                with prepared(kit_file, desk.kit(request.name, certificate)):
                    pass
                return desk.given(request.name, kit_file, certificate, "unchanged", request.fingerprint)
            certificate = certify_site(desk.authority(), request)
            roster = roster.with_renewed(request.name, certificate)
            entries.append(("site-certificate-renewed", _facts(request.name, certificate)))
        else:
            certificate = certify_site(desk.authority(), request)
            roster = roster.with_enrolled(request.name, certificate, now)
            if earlier is not None and earlier.revoked_at is None:
                gone = {"site": request.name, "public_key_id": earlier.public_key_id, "reason": "replaced by a new key"}
                entries.append(("site-revoked", gone))
            entries.append(("site-enrolled", {**_facts(request.name, certificate), "request": request.fingerprint}))
        with prepared(kit_file, desk.kit(request.name, certificate)):
            _keep(folder, roster, entries)
        return desk.given(request.name, kit_file, certificate, "renewed" if known else "enrolled", request.fingerprint)


def revoke(folder: Folder, name: str, reason: str) -> None:
    """Put a site out: its key never comes back.

    Raises:
        ConfigError: no federation, or the site was revoked before.
        UsageError: no such site, or no reason.
        BrainUNetError: something can't be written.
    """
    folder.require()
    reason = reason.strip()
    if not (0 < len(reason) <= 200 and reason.isprintable()):
        raise UsageError("--reason", found=repr(reason[:40]), expected="1 to 200 characters in one line", remedy="say why")
    with changing(folder.roster):
        roster = read_roster(folder.roster)
        following = roster.with_revoked(name, reason, datetime.now(UTC))
        gone = {"site": name, "public_key_id": roster.site(name).public_key_id, "reason": reason}
        _keep(folder, following, [("site-revoked", gone)])


def rotate_server(folder: Folder, hosts: Sequence[str] = ()) -> x509.Certificate:
    """A new key and certificate for the server, for its hosts so far, the settings' host and ``hosts``.

    Raises:
        ConfigError: no federation, or no authority in it.
        BrainUNetError: something can't be written.
    """
    config, authority = read_settings(folder), read_authority(folder.ca_key, folder.ca_certificate)
    so_far: tuple[str, ...] = ()
    if folder.server_certificate.exists():
        so_far = hosts_of(read_certificate_file(folder.server_certificate))
    key = new_key()
    certificate = certify_server(authority, key.public_key(), config.name, [config.host, *hosts, *so_far])
    facts = {"serial": f"{certificate.serial_number:x}", "hosts": list(hosts_of(certificate))}
    with changing(folder.roster), writing_aside(folder.server_certificate) as beside:
        beside.write_text(pem_of(certificate), encoding="ascii")
        with writing_aside(folder.server_key) as aside:
            write_key(aside, key)
            append(folder.audit, "server-certificate-renewed", facts)
    return certificate


def rotate_site(folder: Folder, name: str, out: Path | None, server: str | None = None) -> KitGiven:
    """A new certificate for a site's key, and a new kit.

    Raises:
        ConfigError: no federation, or the site was revoked.
        UsageError: no such site, or as :func:`enrol`.
        BrainUNetError: something can't be written.
    """
    desk = Desk.open(folder, server)
    with changing(folder.roster):
        roster = read_roster(folder.roster)
        roster.require_active(name)
        kit_file = kit_place(out, name)
        certificate = renew_site(desk.authority(), read_certificate(roster.site(name).certificate))
        with prepared(kit_file, desk.kit(name, certificate)):
            _keep(folder, roster.with_renewed(name, certificate), [("site-certificate-renewed", _facts(name, certificate))])
    return desk.given(name, kit_file, certificate, "renewed")


def rotate_signing(folder: Folder, out: Path | None, server: str | None = None) -> tuple[KitGiven, ...]:
    """A new signing key: the start model is signed again, and every active site gets a new kit in the folder ``out``.

    Raises:
        ConfigError: no federation, or a start model that the earlier key did not sign.
        UsageError: there are sites and no folder for their kits, or as :func:`enrol`.
        FederationError: a server runs: it would go on with the earlier key.
        BrainUNetError: something can't be written.
    """
    earlier = Desk.open(folder, server)
    if is_served(folder):
        raise FederationError(
            str(folder.path),
            found="a server runs, and would go on signing with the earlier key",
            expected="none while the signing key changes",
            remedy=f"stop it first: flower-server stop {folder.path}",
        )
    with changing(folder.roster), ExitStack() as files, tempfile.TemporaryDirectory() as elsewhere:
        sites = read_roster(folder.roster).active()
        if sites and out is None:
            raise UsageError("-o", found="no folder", expected=f"one for the new kits of {len(sites)} sites")
        desk = Desk(folder, earlier.config, earlier.ca, new_signing_key(), earlier.server)
        given = []
        for site in sites:  # named last: a kit must not be out before its key
            assert out is not None
            kit_file, certificate = kit_place(out / kit_name(site.name), site.name), read_certificate(site.certificate)
            files.enter_context(prepared(kit_file, desk.kit(site.name, certificate)))
            given.append(desk.given(site.name, kit_file, certificate, "unchanged"))
        if folder.start_model.exists():
            verify_file(folder.start_model, earlier.signing.public, PURPOSE)  # or a changed file would be blessed
            linked = Path(elsewhere) / folder.start_model.name
            linked.symlink_to(folder.start_model.absolute())
            content = sign_file(linked, desk.signing, PURPOSE).read_bytes()
            files.enter_context(prepared(folder.start_model.with_name(f"{folder.start_model.name}.sig"), content))
        files.enter_context(prepared(folder.signing_public, public_text(desk.signing.public)))
        write_signing_key(files.enter_context(writing_aside(folder.signing_key)), desk.signing)
        facts = {"earlier": earlier.signing.public.text, "now": desk.signing.public.text}
        append(folder.audit, "signing-key-rotated", facts)
    return tuple(given)


def _keep(folder: Folder, roster: Roster, entries: Sequence[tuple[str, Mapping[str, JSON]]]) -> None:
    with prepared(folder.roster, roster.content()):
        for kind, data in entries:
            append(folder.audit, kind, data)


def _facts(site: str, certificate: x509.Certificate) -> dict[str, JSON]:
    return {
        "site": site,
        "public_key_id": public_key_id(certificate.public_key()),
        "serial": f"{certificate.serial_number:x}",
        "valid_until": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
    }


def _read_request_file(path: Path) -> SiteRequest:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            path,
            found=error.strerror or "not readable",
            expected="the request that a site sent",
            remedy="check that it is there and that you may read it",
        ) from None
    return read_request(content, path)
