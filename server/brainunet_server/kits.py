"""Making kits: what goes into one, where its file lies, and what to compare by telephone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography import x509

from brainunet.addresses import host_and_port
from brainunet.errors import ConfigError, UsageError
from brainunet.files import writing_aside
from brainunet.kit import Kit, seal
from brainunet.sealed import MAX_BYTES, federation_fingerprint
from brainunet.signing import PublicKey, SigningKey, read_signing_key
from brainunet_server.addresses import parse_host, server_address
from brainunet_server.authority import Authority, hosts_of, pem_of, read_authority, read_certificate_file
from brainunet_server.federation import FederationConfig, Folder, read_settings


@dataclass(frozen=True)
class KitGiven:
    """A kit that was written.

    Attributes:
        request_fingerprint: of the site's request; empty where none was read.
        federation_fingerprint: what the site sees when it opens the kit.
        change: what became of the site.
        valid_until: when its certificate ends.
    """

    site: str
    kit: Path
    request_fingerprint: str
    federation_fingerprint: str
    change: Literal["enrolled", "renewed", "unchanged"]
    valid_until: datetime


@dataclass(frozen=True)
class Desk:
    """What is needed to make kits: settings, the authority's certificate, the signing key, and the server's address."""

    folder: Folder
    config: FederationConfig
    ca: x509.Certificate
    signing: SigningKey
    server: str

    @classmethod
    def open(cls, folder: Folder, server: str | None = None) -> Desk:
        """The desk of a federation; ``server`` is the ``host:port`` for its kits, if not as the settings say.

        Raises:
            ConfigError: no federation in the folder, or keys missing or damaged.
            UsageError: a server that the sites would not trust.
        """
        config = read_settings(folder)
        ca, signing = read_certificate_file(folder.ca_certificate), read_signing_key(folder.signing_key)
        certified = hosts_of(read_certificate_file(folder.server_certificate))
        return cls(folder, config, ca, signing, _address(folder, config, certified, server))

    def authority(self) -> Authority:
        return read_authority(self.folder.ca_key, self.folder.ca_certificate)

    def registry(self, port: int) -> str:
        """Where published models are fetched: at the host of the kits, on this port."""
        return server_address(host_and_port(self.server)[0], port)

    @property
    def fingerprint(self) -> str:
        return federation_fingerprint(self.ca, self.signing.public)

    def kit(self, site: str, certificate: x509.Certificate) -> bytes:
        """The content of a kit's file."""
        kit = Kit(
            federation=self.config.name,
            site=site,
            server=self.server,
            ca_certificate=pem_of(self.ca),
            site_certificate=pem_of(certificate),
            signing_key=self.signing.public.text,
            issued_at=datetime.now(UTC).replace(microsecond=0),
            registry=self.registry(self.config.registry.port),
        )
        return seal(kit, self.signing)

    def given(
        self,
        site: str,
        kit_file: Path,
        certificate: x509.Certificate,
        change: Literal["enrolled", "renewed", "unchanged"],
        request_fingerprint: str = "",
    ) -> KitGiven:
        return KitGiven(site, kit_file, request_fingerprint, self.fingerprint, change, certificate.not_valid_after_utc)


def kit_name(site: str) -> str:
    return f"{site}.kit.json"


def kit_place(out: Path | None, site: str) -> Path:
    """The file for a kit; ``out`` may be a folder, and None is the folder that one stands in.

    Raises:
        UsageError: a folder that is not there, or a file that is no kit.
    """
    path = Path(kit_name(site)) if out is None else out / kit_name(site) if out.is_dir() else out
    if not path.parent.is_dir():  # none is made: a name that was mistyped would hide the kit
        raise UsageError(
            "-o",
            found=f"no folder {path.parent}",
            expected="a folder that is there",
            remedy=f"correct the name, or make the folder first: mkdir -p {shlex.quote(str(path.parent))}",
        )
    if path.exists() and not _is_kit(path):
        raise UsageError(
            path, found="a file that is no kit", expected="a new file, or an earlier kit", remedy="choose another -o"
        )
    return path


def public_text(key: PublicKey) -> bytes:
    """What ``signing.pub`` holds."""
    return f"{key.text}\n".encode()


@contextmanager
def prepared(path: Path, content: bytes) -> Iterator[None]:
    """The content is on the disk while the block runs, and gets its name when the block ends well.

    Raises:
        BrainUNetError: disk full, or a folder that can't be written; before the block runs.
    """
    with writing_aside(path) as aside:
        aside.write_bytes(content)
        yield


def _address(folder: Folder, config: FederationConfig, certified: tuple[str, ...], asked: str | None) -> str:
    host, port = config.host, config.port
    if asked is not None:
        try:
            host, port = host_and_port(asked)
            host = parse_host(host)
        except (ConfigError, ValueError):
            raise UsageError("--server", found=asked[:80], expected="host:port, such as fl.example.org:8443") from None
    if host not in certified:
        where, error = ("--server", UsageError) if asked is not None else (folder.settings_file.name, ConfigError)
        raise error(
            where,
            found=f"the host {host}, which is not in the server's certificate",
            expected=f"one of {', '.join(certified)}",
            remedy=f"mend it, or renew the certificate: flower-server rotate {folder.path} server --host {host}",
        )
    return server_address(host, port)


def _is_kit(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            told: Any = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(told, dict) and str(told.get("format", "")).startswith("brainunet-kit-")
