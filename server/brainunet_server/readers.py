"""Readers: people who are no site and may fetch the published models, each with a pass of their own."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from brainunet.chain import append
from brainunet.errors import BrainUNetError, ConfigError, UsageError
from brainunet.files import write_new_private
from brainunet.reader_pass import ReaderPass, new_token, seal_reader_pass, token_sha256
from brainunet.records import Name
from brainunet_server.authority import pem_of
from brainunet_server.federation import Folder
from brainunet_server.kits import Desk
from brainunet_server.roster import changing
from brainunet_server.running import database_of
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import ReaderRow
from brainunet_server.store.writer import StoreWriter

DAYS: Final = 365

_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)


@dataclass(frozen=True)
class PassGiven:
    """A pass that was written; ``fingerprint`` is the federation's, to be compared by telephone."""

    reader: str
    file: Path
    server: str
    expires_at: datetime
    fingerprint: str


def add_reader(folder: Folder, name: str, out: Path, days: int = DAYS, *, database: str | None = None) -> PassGiven:
    """Let somebody fetch the published models, and write their pass; it holds a secret that is nowhere else.

    Raises:
        ConfigError: no federation, a reader of this name whose pass can still be used, or a file of this name.
        UsageError: no name, or a folder that is not there.
        BrainUNetError: something can't be written.
    """
    _require_name(name)
    desk = Desk.open(folder)
    path = out / f"{name}.pass.json" if out.is_dir() else out
    if not path.parent.is_dir():
        raise UsageError(
            "-o",
            found=f"no folder {path.parent}",
            expected="a folder that is there",
            remedy=f"correct the name, or make the folder first: mkdir -p {shlex.quote(str(path.parent))}",
        )
    now, token = datetime.now(UTC).replace(microsecond=0), new_token()
    row = ReaderRow(name=name, token_sha256=token_sha256(token), added_at=now, expires_at=now + timedelta(days=days))
    where = database_of(folder, desk.config, database)
    with changing(folder.published), StoreWriter(where) as store, StoreReader(where) as reader:
        _require_free(reader, folder, name, now)
        made = ReaderPass(
            federation=desk.config.name,
            reader=name,
            server=desk.registry(desk.config.registry.readers_port),
            ca_certificate=pem_of(desk.ca),
            signing_key=desk.signing.public.text,
            token=token,
            issued_at=now,
            expires_at=row.expires_at,
        )
        write_new_private(path, seal_reader_pass(made, desk.signing))
        try:
            append(folder.audit, "reader-added", {"reader": name, "valid_until": f"{row.expires_at:%Y-%m-%d}"})
            store.add_reader(row)
        except BrainUNetError:
            with suppress(OSError):  # a pass that nobody knows would only confuse
                path.unlink()
            raise
    return PassGiven(name, path, made.server, row.expires_at, desk.fingerprint)


def revoke_reader(folder: Folder, name: str, *, database: str | None = None) -> None:
    """Refuse a reader's pass from now on.

    Raises:
        ConfigError: no federation, no such reader, or one that was revoked before.
        BrainUNetError: something can't be written.
    """
    where = database_of(folder, Desk.open(folder).config, database)
    with changing(folder.published), StoreWriter(where) as store, StoreReader(where) as reader:
        known = next((row for row in reader.readers() if row.name == name), None)
        if known is None or known.revoked_at is not None:
            raise ConfigError(
                f"reader {name[:64]!r}",
                found="no reader of this name" if known is None else f"revoked on {known.revoked_at:%Y-%m-%d}",
                expected="one that may fetch models",
                remedy=f"see them: flower-server reader list {folder.path}",
            )
        append(folder.audit, "reader-revoked", {"reader": name})
        store.revoke_reader(name)


def _require_free(reader: StoreReader, folder: Folder, name: str, now: datetime) -> None:
    known = next((row for row in reader.readers() if row.name == name), None)
    if known is not None and known.revoked_at is None and known.expires_at > now:
        raise ConfigError(
            f"reader {name}",
            found=f"a reader of this name, whose pass can be used until {known.expires_at:%Y-%m-%d}",
            expected="a new name",
            remedy=f"if the pass was lost, revoke it first: flower-server reader revoke {folder.path} {name}",
        )


def _require_name(name: str) -> None:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise UsageError(
            "NAME",
            found=repr(name)[:70],
            expected="1 to 64 letters, digits, dots, dashes and underscores, of which the first is a letter or a digit",
        ) from None
