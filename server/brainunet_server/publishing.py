"""Publishing: a round's model gets a name, a complete card and a signature, and the registry may give it to others.

A release never changes. It may be withdrawn: its file stays, and whoever asks for it is told why it is not given any more.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

from brainunet.chain import JSON, append
from brainunet.errors import BrainUNetError, ConfigError, UsageError
from brainunet.files import flush_name
from brainunet.metrics.summary import mean_region_dice
from brainunet.modelfile import SIGNED_AS, ModelCard, read_model, write_model
from brainunet.signing import PublicKey, SigningKey, read_signing_key, sign_file, verify_file
from brainunet.weights import Weights
from brainunet_server.federation import Folder, read_settings
from brainunet_server.keeping import best_rounds
from brainunet_server.release_card import completed, publication_of
from brainunet_server.roster import changing
from brainunet_server.running import database_of
from brainunet_server.start_model import sha256_of_file
from brainunet_server.store.reader import StoreReader, site_scores
from brainunet_server.store.rows import Model, ReleaseRow, Run
from brainunet_server.store.writer import StoreWriter

MAX_NOTES: Final = 2000

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Round: TypeAlias = int | Literal["best"]


@dataclass(frozen=True)
class Published:
    """A release that was made: its row, and the card in its file."""

    row: ReleaseRow
    card: ModelCard

    @property
    def has_figures(self) -> bool:
        """Whether a site told how well the model does there; of the newest model none has yet."""
        return mean_region_dice(self.card.scores.values()) is not None


def publish(
    folder: Folder, which: Round, name: str, notes: str = "", *, run: str | None = None, database: str | None = None
) -> Published:
    """Publish the model of a round as ``name``.

    A kill before the end leaves nothing that the registry would give away; the same call again ends what it began.

    Args:
        folder: of the federation.
        which: a round of the run, or the one of highest mean Dice.
        name: of the release, and of its file.
        notes: for those who use the model; on its card.
        run: None is the federation's latest.
        database: as ``flower-server run --database``.

    Raises:
        ConfigError: no such run or round, a model that is gone or damaged, the start model, or a name that is taken.
        UsageError: no name for a release, or notes that are too long or hold control characters.
        BrainUNetError: something can't be written.
    """
    _require_name(name)
    notes = _plain(notes)
    config, key = read_settings(folder), read_signing_key(folder.signing_key)
    where = database_of(folder, config, database)
    file = folder.published / f"{name}.safetensors"
    with changing(folder.published), StoreWriter(where) as store, StoreReader(where) as reader:
        _require_free(reader, folder, name)
        of = reader.run(run) if run else reader.latest_run("federation")
        model = _model(reader, folder, of, which)
        card = _named_before(file, key.public, model)
        if card is None:
            weights, card = _whole(folder.models / of.id / model.file, model)
            now = datetime.now(UTC).replace(microsecond=0)
            card = completed(card, publication_of(reader, folder, of, model, name, config.name, now), reader, model, notes)
            card = _write(folder, file, weights, card, key)
        row = _row(folder, file, card)
        store.add_release(row)
    return Published(row, card)


def _model(reader: StoreReader, folder: Folder, run: Run, which: Round) -> Model:
    """The row of the model that is meant, of those whose files are there."""
    if run.kind != "federation":
        raise ConfigError(
            f"run {run.id}", found=f"a run of kind {run.kind}", expected="a run of this federation", remedy="name another --run"
        )
    there = {model.round: model for model in reader.models(run.id) if model.removed_at is None and model.round > 0}
    if which == "best":
        by_round = site_scores(reader.scores(run.id, metric="dice"))
        best, _ = best_rounds({number: sites for number, sites in by_round.items() if number in there or number == 0})
        if best == 0:
            raise ConfigError(
                f"run {run.id}",
                found="no round whose model scores higher than the one that the run started from",
                expected="one that the hospitals made better",
                remedy=f"look at the figures (flower-server scores {folder.path}), and name a round if you know better",
            )
        if best is not None:
            return there[best]
        found = "no round with figures of the sites" if there else "no complete round"
    elif which in there:
        return there[which]
    elif which == 0:
        found = "round 0, the start model, which no hospital has trained"
    else:
        removed = any(model.round == which for model in reader.models(run.id))
        found = f"the model of round {which} was removed to make room" if removed else f"no model of round {which}"
    rounds = ", ".join(map(str, sorted(there)[-10:]))
    raise ConfigError(
        f"run {run.id}",
        found=found,
        expected=f"a round whose model is there: {rounds}" if there else "a run with at least one complete round",
        remedy="name one of these rounds (rounds.keep_every keeps more)" if there else f"flower-server status {folder.path}",
    )


def _require_free(reader: StoreReader, folder: Folder, name: str) -> None:
    # capitals make no new name: on a hospital's Windows both would be one file
    taken = next((release.name for release in reader.releases() if release.name.casefold() == name.casefold()), None)
    if taken is not None:
        raise ConfigError(
            f"release {name}",
            found="a release of this name" if taken == name else f"a release {taken}, which differs only in capitals",
            expected="a new name: a release never changes",
            remedy=f"choose another; those there are: flower-server models {folder.path}",
        )


def _named_before(file: Path, key: PublicKey, model: Model) -> ModelCard | None:
    """The card of a whole release that has no row: a kill came before it, or the store is an older copy of itself.

    Others may have the file, so it stays as it is and only its row is written again.

    Raises:
        ConfigError: it is of another round.
    """
    try:
        verify_file(file, key, SIGNED_AS)
        _, card = read_model(file)
    except ConfigError:
        return None
    named = card.release.name if card.release else ""
    if (named, card.run, card.round, card.weights_sha256) != (file.stem, model.run_id, model.round, model.digest):
        raise ConfigError(
            file,
            found=f"a signed model of this name, of round {card.round} of run {card.run}",
            expected=f"none, or one of round {model.round} of run {model.run_id}",
            remedy="choose another name, or publish that round to take the file up again: a release never changes",
        )
    return card


def _write(folder: Folder, file: Path, weights: Weights, card: ModelCard, key: SigningKey) -> ModelCard:
    """The file and its signature, with their entry in the audit trail. What has no row yet is given to nobody."""
    with _staging(folder) as staging:
        staged = staging / file.name
        card = write_model(staged, weights, card)
        signature = sign_file(staged, key, SIGNED_AS)
        facts: dict[str, JSON] = {"run": card.run, "round": card.round, "sha256": sha256_of_file(staged), "notes": card.notes}
        append(folder.audit, "model-published", {"release": file.stem, **facts})
        signature.replace(folder.published / signature.name)
        staged.replace(file)
        flush_name(file)
    return card


def _row(folder: Folder, file: Path, card: ModelCard) -> ReleaseRow:
    assert card.release is not None
    return ReleaseRow(
        name=card.release.name,
        run_id=card.run,
        round=card.round,
        file=str(file.relative_to(folder.path)),
        sha256=sha256_of_file(file),
        n_bytes=file.stat().st_size,
        weights_sha256=card.weights_sha256,
        notes=card.notes,
        published_at=card.release.published_at,
    )


def _whole(path: Path, model: Model) -> tuple[Weights, ModelCard]:
    weights, card = read_model(path)
    if weights.digest != model.digest:
        raise ConfigError(
            path,
            found="other weights than the store says that this round made",
            expected=f"weights with the digest {model.digest}",
            remedy="restore the file from your backup, or publish another round; find out who changed it",
        )
    return weights, card


@contextmanager
def _staging(folder: Folder) -> Iterator[Path]:
    """An empty folder beside the published models, on their disk; what a killed command left in it goes."""
    staging = folder.published / ".staging"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
    except OSError as error:
        raise BrainUNetError(
            folder.published,
            found=f"it can't be written: {error.strerror or error}",
            remedy="free space on the disk, and run this as the user who owns the folder",
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(
            "--name",
            found=repr(name)[:70],
            expected="1 to 64 letters, digits, dots, dashes and underscores, of which the first is a letter or a digit",
            remedy="choose a name such as africa-2026.1",
        )


def _plain(notes: str) -> str:
    notes = notes.strip()
    if len(notes) > MAX_NOTES or not notes.replace("\n", "").isprintable():
        raise UsageError(
            "--notes",
            found=f"{len(notes)} characters" if len(notes) > MAX_NOTES else "control characters",
            expected=f"at most {MAX_NOTES} characters of text",
        )
    return notes
