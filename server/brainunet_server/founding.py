"""``flower-server init``: everything that a federation begins with. What exists already stays as it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from brainunet.certificates import common_name
from brainunet.chain import JSON, append, head
from brainunet.errors import BrainUNetError, ConfigError, UsageError
from brainunet.files import flush
from brainunet.modelfile import ModelCard
from brainunet.sealed import federation_fingerprint
from brainunet.signing import new_signing_key, read_signing_key, verify_file, write_signing_key
from brainunet_server.addresses import parse_host, parse_title
from brainunet_server.authority import (
    certify_server,
    hosts_of,
    make_authority,
    new_key,
    pem_of,
    read_certificate_file,
    write_key,
)
from brainunet_server.federation import Folder, read_settings
from brainunet_server.kits import public_text
from brainunet_server.roster import Roster, changing, read_roster
from brainunet_server.start_model import PURPOSE, read_start_model, sha256_of_file, stage_start_model
from brainunet_server.template import settings_text

_STAGED: Final = ".flower-server-init-"


@dataclass(frozen=True)
class Founded:
    """What init found and made.

    Attributes:
        fingerprint: of the federation, as kits show it.
        host: in the settings, with ``port``; ``certified`` are all hosts in the server's certificate.
    """

    name: str
    fingerprint: str
    made: tuple[str, ...]
    kept: tuple[str, ...]
    host: str
    port: int
    certified: tuple[str, ...]
    has_start_model: bool


def init(folder: Folder, name: str, hosts: Sequence[str], port: int, model: Path | None = None) -> Founded:
    """Make what a federation begins with, or what of it is still missing; ``model`` becomes the start model.

    Everything is made in a folder aside and then moved to its place, ``federation.toml`` last: an interrupted init leaves no
    federation, and can be repeated.

    Args:
        folder: of the federation; made if it is not there.
        name: of the federation, see ``federation.parse_title``.
        hosts: DNS names and IP addresses of the server; the first goes into the kits.
        port: by which the sites reach it.
        model: a model file.

    Raises:
        UsageError: a name or host that is none, another federation in the folder, or a file in its place.
        ConfigError: a model that the sites could not load, or an earlier folder with parts missing.
        BrainUNetError: something can't be written.
    """
    name = _parsed("--name", name, parse_title)
    hosts = parsed_hosts(hosts)
    card = read_start_model(model)[1] if model is not None else None
    with _staging(folder) as staged:
        _require_same(folder, name)
        keys, roster = _stage_keys(folder, staged, name, hosts), _stage_roster(folder, staged)
        start = _stage_model(folder, staged, model) if model is not None else ()
        settings = _stage_settings(folder, staged, name, hosts[0], port)
        _name(staged, keys)
        fingerprint = _fingerprint(folder)
        if settings and head(folder.audit) is None:
            append(folder.audit, "federation-created", {"name": name, "hosts": hosts, "fingerprint": fingerprint})
        if card is not None and start:
            append(folder.audit, "start-model-set", _facts(staged / folder.start_model.name, card))
        _name(staged, (*roster, *start, *settings))
    config = read_settings(folder)
    made = tuple(path.name for path in (*keys, *roster, *start, *settings))
    everything = (folder.keys, folder.roster, folder.start_model, folder.settings_file)
    kept = tuple(path.name for path in everything if path.exists() and path.name not in made)
    certified = hosts_of(read_certificate_file(folder.server_certificate))
    return Founded(config.name, fingerprint, made, kept, config.host, config.port, certified, folder.start_model.exists())


def parsed_hosts(hosts: Iterable[str]) -> list[str]:
    """What ``--host`` says, see ``federation.parse_host``.

    Raises:
        UsageError: neither a DNS name nor an IP address.
    """
    return [_parsed("--host", host, parse_host) for host in hosts]


def _require_same(folder: Folder, name: str) -> None:
    """Pass if the folder holds no federation yet, or the one of this name."""
    there = None
    if folder.settings_file.exists():
        there = read_settings(folder).name
    elif folder.ca_certificate.exists():  # of an init that was interrupted
        there = common_name(read_certificate_file(folder.ca_certificate).subject).removesuffix(" CA")
    if there is not None and there != name:
        raise UsageError(
            str(folder.path),
            found=f"the federation {there}",
            expected=f"a new folder, or the federation {name}",
            remedy=f"choose another folder, or say --name {there!r}",
        )


def _stage_keys(folder: Folder, staged: Path, name: str, hosts: Sequence[str]) -> tuple[Path, ...]:
    ours = Folder(staged)
    if folder.keys.exists():
        needed = ("ca_key", "ca_certificate", "server_key", "server_certificate", "signing_key", "signing_public")
        missing = [path.name for path in (getattr(folder, one) for one in needed) if not path.exists()]
        if missing:
            raise _gone(folder.keys, f"{', '.join(missing)} missing")
        return ()
    if folder.settings_file.exists():
        raise _gone(folder.keys, "it is missing")
    ours.keys.mkdir(mode=0o700)
    authority, server, signing = make_authority(name), new_key(), new_signing_key()
    write_key(ours.ca_key, authority.key)
    write_key(ours.server_key, server)
    write_signing_key(ours.signing_key, signing)
    _write(ours.ca_certificate, pem_of(authority.certificate).encode())
    _write(ours.server_certificate, pem_of(certify_server(authority, server.public_key(), name, hosts)).encode())
    _write(ours.signing_public, public_text(signing.public))
    return (folder.keys,)


def _stage_roster(folder: Folder, staged: Path) -> tuple[Path, ...]:
    if folder.roster.exists() or folder.settings_file.exists():
        read_roster(folder.roster)
        return ()
    _write(staged / folder.roster.name, Roster().content())
    return (folder.roster,)


def _stage_model(folder: Folder, staged: Path, model: Path) -> tuple[Path, ...]:
    key_file = folder.signing_key if folder.keys.exists() else Folder(staged).signing_key
    key, target = read_signing_key(key_file), staged / folder.start_model.name
    if folder.start_model.exists() and sha256_of_file(folder.start_model) == sha256_of_file(model):
        with suppress(ConfigError):
            verify_file(folder.start_model, key.public, PURPOSE)
            return ()
    stage_start_model(model, target, key)
    flush(target)
    return (folder.start_model, folder.start_model.with_name(f"{folder.start_model.name}.sig"))


def _stage_settings(folder: Folder, staged: Path, name: str, host: str, port: int) -> tuple[Path, ...]:
    if folder.settings_file.exists():
        return ()
    _write(staged / folder.settings_file.name, settings_text(name, host, port).encode())
    return (folder.settings_file,)


@contextmanager
def _staging(folder: Folder) -> Iterator[Path]:
    """A folder inside the federation's, for its user alone; removed with what is still in it when the block ends."""
    try:
        if folder.path.exists() and not folder.path.is_dir():
            raise UsageError(str(folder.path), found="a file", expected="a folder", remedy="choose another DIR")
        folder.path.mkdir(parents=True, exist_ok=True)
        with changing(folder.roster):
            for left in folder.path.glob(f"{_STAGED}*"):  # by an init that was killed
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(prefix=_STAGED, dir=folder.path) as staged:
                yield Path(staged)
    except OSError as error:
        raise BrainUNetError(
            str(folder.path),
            found=f"it can't be written: {error.strerror or error}",
            remedy="free space on the disk, or choose a folder that you may write to",
        ) from None


def _name(staged: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        (staged / path.name).replace(path)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    flush(path)


def _fingerprint(folder: Folder) -> str:
    return federation_fingerprint(read_certificate_file(folder.ca_certificate), read_signing_key(folder.signing_key).public)


def _facts(model: Path, card: ModelCard) -> dict[str, JSON]:
    told = {"title": card.title[:200], "preset": card.model.preset, "norm": card.model.norm}
    return {"sha256": sha256_of_file(model), "weights_sha256": card.weights_sha256, **told}


def _gone(where: Path, found: str) -> ConfigError:
    return ConfigError(
        where,
        found=found,
        expected="every key of the federation",
        remedy="restore the folder keys from your backup, or begin a new federation in another folder",
    )


def _parsed(option: str, text: str, parse: Callable[[str], str]) -> str:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(option, found=repr(text[:80]), remedy=str(error)) from None
