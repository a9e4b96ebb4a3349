"""With what a registry is asked: whose server to trust, whose signature, and who asks. From a kit, or from a reader's pass."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from brainunet import home_folder
from brainunet.addresses import host_and_port
from brainunet.certificates import key_in_pem, read_site_key
from brainunet.errors import ConfigError, UsageError
from brainunet.kit import Kit, open_kit, require_kit_of
from brainunet.reader_pass import ReaderPass, open_reader_pass
from brainunet.signing import PublicKey

REGISTRY_PORT: Final = 8444  # of a federation that has not chosen another

_PASS: Final = re.compile(rb'"format"\s*:\s*"brainunet-reader-')


@dataclass(frozen=True)
class Access:
    """Who asks, of whom.

    Attributes:
        server: ``host:port`` of the registry.
        federation: its name, for people.
        ca_certificate: PEM of the authority that the server's certificate must be of.
        signing_key: by which every model must be signed.
        who: asks, for people: "site lagos", "reader jane".
        certificate, key: of a site, both PEM; empty for a reader.
        token: of a reader; empty for a site.
    """

    server: str
    federation: str
    ca_certificate: str
    signing_key: PublicKey
    who: str
    certificate: str = ""
    key: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)


def access_by(file: Path | None, home: Path, server: str | None = None, *, now: datetime | None = None) -> Access:
    """The access that a kit or a reader's pass gives.

    Args:
        file: the kit or the pass; None is the kit in ``home``.
        home: the folder with the key of this site; a pass needs none.
        server: ``host:port`` in the place of the registry's that the file names. It changes whom to ask, never whom to trust.

    Raises:
        UsageError: ``server`` is no ``host:port``.
        ConfigError: neither kit nor pass, one that is damaged or has expired, a kit without its key, or one that names no
            registry while ``server`` does not either.
    """
    if server is not None:
        try:
            host_and_port(server)
        except ConfigError as error:
            raise UsageError("--server", found=error.found, expected=error.expected) from None
    if file is not None and file.is_fifo():  # it would be waited for, and can be read only once
        raise ConfigError(file, found="a pipe", expected="the file that the coordinator sent", remedy="save it as a file first")
    if file is not None and _is_pass(file):
        return _of_reader(open_reader_pass(file, now=now), server)
    kit_file = file or home / home_folder.KIT
    if not kit_file.exists():
        raise ConfigError(
            str(kit_file),
            found="no kit",
            expected="the kit of this site, or a reader's pass",
            remedy="name the file that the coordinator sent you: --kit FILE; or name the client's folder by --home DIR",
        )
    return _of_site(open_kit(kit_file, now=now), kit_file, home, server)


def _of_reader(opened: ReaderPass, server: str | None) -> Access:
    return Access(
        server=server or opened.server,
        federation=opened.federation,
        ca_certificate=opened.ca_certificate,
        signing_key=PublicKey.from_text(opened.signing_key),
        who=f"reader {opened.reader}",
        token=opened.token,
    )


def _of_site(kit: Kit, kit_file: Path, home: Path, server: str | None) -> Access:
    key_file = home / home_folder.KEY
    if not key_file.exists():
        raise ConfigError(
            str(home),
            found=f"no key ({home_folder.KEY})",
            expected=f"the key of the site {kit.site}, whose kit this is",
            remedy="name the folder where brainunet-client made it: --home DIR; somebody without a site needs a reader's pass",
        )
    key = read_site_key(key_file)
    require_kit_of(kit, key)
    if not (server or kit.registry):
        host = kit.server.rpartition(":")[0]
        raise ConfigError(
            kit_file,
            found="a kit that names no registry: it was made by an earlier version",
            expected="one that says where published models are",
            remedy=f"ask the coordinator for a new kit, or try --server {host}:{REGISTRY_PORT}",
        )
    return Access(
        server=server or kit.registry,
        federation=kit.federation,
        ca_certificate=kit.ca_certificate,
        signing_key=PublicKey.from_text(kit.signing_key),
        who=f"site {kit.site}",
        certificate=kit.site_certificate,
        key=key_in_pem(key),
    )


def _is_pass(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return _PASS.search(opened.read(64 * 1024)) is not None
    except OSError:  # reading it as a kit says why
        return False
