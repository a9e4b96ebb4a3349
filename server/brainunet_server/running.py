"""Which run a federation is in: begun once, gone on with after every restart until it is complete or a new one is asked for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, Field, ValidationError

from brainunet.errors import ConfigError
from brainunet.files import writing_aside
from brainunet.modelfile import ModelCard
from brainunet.settings import Settings
from brainunet_server.admission import AdmissionConfig
from brainunet_server.any_run import AnyRun, plan, run_row
from brainunet_server.federation import FederationConfig, Folder, ServeOptions
from brainunet_server.rounds import Plan
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import Run


class RunSettings(AnyRun):
    """What makes a run the run it is; what concerns this server alone (address, patience, database) may change."""

    admission: AdmissionConfig


class Said(Settings):
    """What the command line said when a run was begun; a password is not kept."""

    database: str | None = None
    demo: bool = False
    overrides: tuple[str, ...] = ()


class RunFile(Settings):
    """``run.json``: the run in progress."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    began_at: AwareDatetime
    start_sha256: str
    settings: RunSettings
    said: Said = Said()


def remembered(folder: Folder, options: ServeOptions) -> ServeOptions:
    """The options, and where they say nothing those with which the run in progress was begun.

    ``flower-server run DIR`` alone goes on with a run, however it was begun.

    Raises:
        ConfigError: run.json can't be read.
    """
    before = None if options.new_run else _read(folder)
    if before is None:
        return options
    return replace(
        options,
        database=options.database or before.said.database,
        demo=options.demo or before.said.demo,
        overrides=options.overrides or before.said.overrides,
    )


def database_of(folder: Folder, config: FederationConfig, asked: str | None = None) -> str | Path:
    """The store: as it is asked for now, as it was for the run in progress, as the settings say, or the one in the folder.

    Raises:
        ConfigError: run.json can't be read.
    """
    return remembered(folder, ServeOptions(database=asked)).database or config.database or folder.store


def settings_of_run(config: FederationConfig, card: ModelCard) -> RunSettings:
    return RunSettings(
        model=card.model,
        preprocess=card.preprocess,
        train=config.train,
        validation=config.validation,
        strategy=config.strategy,
        admission=config.admission,
        rounds=config.rounds.count,
        seed=config.seed,
        privacy=config.privacy,
    )


def take_up_run(
    folder: Folder,
    config: FederationConfig,
    card: ModelCard,
    *,
    new_run: bool,
    said: Said = Said(),  # noqa: B008 - frozen
) -> RunFile:
    """The run in progress, or a new one where there is none or ``new_run`` asks for it; ``said`` is kept with a new one.

    Raises:
        ConfigError: the settings or the start model are not those with which the run in progress was begun.
    """
    wanted = settings_of_run(config, card)
    if wanted.privacy is not None and wanted.model.norm == "batch":
        raise ConfigError(
            folder.start_model,
            found='a network with norm "batch", in which the cases of a batch change each other',
            expected='norm "group", for [privacy] hides each case by itself',
            remedy="start from a model with group norm (any preset of BrainUNet can have it), or take [privacy] away",
        )
    before = _read(folder)
    if before is not None and not new_run:
        _require_unchanged(folder, before, wanted, card)
        return before
    now = datetime.now(UTC).replace(microsecond=0)
    if before is not None and before.began_at >= now:  # its name is its second
        now = before.began_at + timedelta(seconds=1)
    name = re.sub(r"[^a-z0-9]+", "-", config.name.lower()).strip("-")[:32]
    run = RunFile(id=f"{name}-{now:%Y%m%d-%H%M%S}", began_at=now, start_sha256=card.weights_sha256, settings=wanted, said=said)
    with writing_aside(folder.run_file) as aside:
        aside.write_text(run.model_dump_json(indent=1), encoding="utf-8")
    return run


def is_complete(database: str | Path, run: RunFile) -> bool:
    with StoreReader(database) as store:
        return any(known.id == run.id and known.status == "completed" for known in store.runs())


def row_of(run: RunFile) -> Run:
    """The run as the store knows it."""
    return run_row(run.id, "federation", run.settings, run.began_at)


def plan_of(run: RunFile, config: FederationConfig) -> Plan:
    return plan(
        run.id,
        run.settings,
        config.rounds.min_sites,
        deadline_s=config.rounds.deadline_s,
        admission=run.settings.admission,
        durable=True,
        demo=run.said.demo,
    )


def _read(folder: Folder) -> RunFile | None:
    try:
        return RunFile.model_validate_json(folder.run_file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise ConfigError(
            folder.run_file,
            found="it can't be read, or is of another version",
            expected="the run in progress",
            remedy="restore it from your backup, or begin a new run after removing it",
        ) from None


def _require_unchanged(folder: Folder, before: RunFile, wanted: RunSettings, card: ModelCard) -> None:
    changed = [
        f"{key} was {old}, now {new}"
        for (key, old), (_, new) in zip(_flat(before.settings), _flat(wanted), strict=True)
        if old != new
    ]
    if before.start_sha256 != card.weights_sha256:
        changed.append("the start model is another one")
    if changed:
        raise ConfigError(
            folder.settings_file,
            found=f"other settings than those the run {before.id} was begun with: {'; '.join(changed)}",
            expected="the same for all its rounds",
            remedy=f"put them back (--set is kept with a run), or begin a new one: flower-server run {folder.path} --new-run",
        )


def _flat(settings: RunSettings) -> list[tuple[str, str]]:
    def walk(prefix: str, value: Any) -> list[tuple[str, str]]:
        if isinstance(value, dict):
            return [pair for key, inner in value.items() for pair in walk(f"{prefix}.{key}" if prefix else key, inner)]
        return [(prefix, json.dumps(value))]

    return walk("", settings.model_dump(mode="json"))
