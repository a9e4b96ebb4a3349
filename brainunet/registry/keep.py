"""From a part that is complete to a model that has its name: after its digest, its signature and itself were found good."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from brainunet.errors import BrainUNetError, ConfigError, FederationError
from brainunet.files import flush_name, writing_aside
from brainunet.modelfile import SIGNED_AS, ModelCard, read_model
from brainunet.moments import day
from brainunet.registry.fetch import Part, settle
from brainunet.registry.records import Described, Release
from brainunet.signing import PublicKey, verify_file


@dataclass(frozen=True)
class Kept:
    """A model under its name; ``aside`` is where an earlier one of that name went, if there was another."""

    file: Path
    card: ModelCard
    aside: Path | None = None


def keep(part: Part, described: Described, key: PublicKey) -> Kept:
    """Check a complete part, and give it and its signature their names.

    Another file that has the name is kept as ``NAME.<first 8 digits of its SHA-256>.safetensors``, with its signature.

    Raises:
        FederationError: its digest, its signature or the model itself is not good; then nothing of it is left.
        BrainUNetError: the disk is full, or the folder can't be written; the part is left.
    """
    settle(part)
    with writing_aside(part.signature) as beside:
        beside.write_text(described.signature, encoding="utf-8")
    try:
        card = _checked(part.file, described.release, key)
    except FederationError:
        part.remove()
        raise
    target = part.target
    try:
        aside = _set_aside(target)
        part.signature.replace(signature_of(target))
        part.file.replace(target)
    except OSError as error:
        raise BrainUNetError(
            target,
            found=f"it can't be given its name: {error.strerror or error}",
            remedy="name another file by -o FILE; what has come is kept",
        ) from None
    flush_name(target)
    part.remove()
    return Kept(target, card, aside)


def there_already(target: Path, release: Release, key: PublicKey) -> ModelCard | None:
    """The card of ``target`` if it is this very release with a good signature beside it; None if there is anything to fetch."""
    try:
        if target.stat().st_size != release.size_bytes:
            return None
        return _checked(target, release, key)
    except (OSError, FederationError):
        return None


def signature_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sig")


def digest_of(file: Path) -> str:
    """SHA-256 of a file in hexadecimal digits.

    Raises:
        OSError: it can't be read.
    """
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _checked(file: Path, release: Release, key: PublicKey) -> ModelCard:
    try:
        sha256 = digest_of(file)
    except OSError as error:
        raise _not_good(release, error.strerror or "it can't be read") from None
    if sha256 != release.sha256:
        raise _not_good(release, "what came has another digest than was announced: it was changed on the way or on the disk")
    try:
        verify_file(file, key, SIGNED_AS)
        _, card = read_model(file)
    except ConfigError as error:
        raise _not_good(release, error.found + (f", but expected {error.expected}" if error.expected else "")) from None
    named = card.release.name if card.release else "no release"
    if card.release is None or named != release.name or card.weights_sha256 != release.weights_sha256:  # older, or of a run
        raise _not_good(release, f"a model of the federation, but not this release: it is {named}")
    signed = (card.run, card.round, card.release.published_at)
    if signed != (release.run, release.round, release.published_at):  # by which people take it for a newer one
        found = f"another run, round or day in the list than on its signed card: round {card.round} of run {card.run}"
        raise _not_good(release, f"{found}, published on {day(card.release.published_at)}")
    return card


def _not_good(release: Release, found: str) -> FederationError:
    return FederationError(
        release.name,
        found=found,
        remedy="nothing of it was kept; fetch it again, and if that ends alike tell the coordinator",
    )


def _set_aside(target: Path) -> Path | None:
    """Give what has the name another one too; the name itself changes hands in one step."""
    if not target.exists():
        return None
    aside = target.with_name(f"{target.stem}.{digest_of(target)[:8]}{target.suffix}")
    for old, new in ((target, aside), (signature_of(target), signature_of(aside))):
        if old.exists() and not new.exists():
            try:
                os.link(old, new)
            except OSError:  # a disk that knows no links
                shutil.copyfile(old, new)
    return aside
