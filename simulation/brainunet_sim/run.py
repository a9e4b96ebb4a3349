"""One simulation from its settings to its summary: the same server and client code as a real federation, in one process."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from brainunet.config import sha256_of
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.errors import ConfigError
from brainunet.files import writing_aside
from brainunet.labels import Convention
from brainunet.losses import loss_from
from brainunet.model import build, weights_of
from brainunet.modelfile import ModelCard, TrainedOn, read_model
from brainunet.starter import STARTER
from brainunet.training.seeds import derive
from brainunet.weights import Weights
from brainunet_client.flower.app import client_app
from brainunet_client.site import Site
from brainunet_client.tasks import do
from brainunet_server.conduct import Keeping, conduct
from brainunet_server.flower.app import server_app
from brainunet_server.flower.strategies import strategy_from
from brainunet_server.rounds import Plan, RoundResult
from brainunet_server.store.rows import Run
from brainunet_sim.local_grid import SITE, run_locally
from brainunet_sim.partition import partition_named
from brainunet_sim.prepare import Progress, deal_sites, make_phantoms, usable_cases
from brainunet_sim.report import plot_dice, summarise, write_summary
from brainunet_sim.scenario import SimulationConfig

RANDOM, STARTER_NAME = "random", "starter"


@dataclass(frozen=True)
class Request:
    """A simulation to run: its settings, and where its files lie. Kept in the output folder, so that it can be resumed.

    Attributes:
        data: folder of cases; None makes phantoms below ``out``.
        init: a model file, "starter" or "random".
        database: path or URL of the store; None keeps it in ``out``.
    """

    run_id: str
    out: Path
    config: SimulationConfig
    data: Path | None
    init: str
    database: str | None = None
    convention: Convention | None = None
    partition_file: Path | None = None

    @property
    def store(self) -> str | Path:
        return self.database or self.out / "store.sqlite"


@dataclass(frozen=True)
class Watch:
    """Who is told how it goes."""

    on_progress: Progress
    on_sites: Callable[[Sequence[Site]], None]
    on_round: Callable[[str, RoundResult], None]


def new_run_id() -> str:
    """A name that sorts by time and is not met twice in one store."""
    return f"sim-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def simulate(request: Request, watch: Watch) -> dict[str, Any]:
    """Run or resume a simulation and leave summary.json and dice.png in its folder; returns the summary.

    Raises:
        BrainUNetError: see the parts; complete rounds are kept.
    """
    started = time.monotonic()
    config, out = request.config, request.out
    start = starting_model(request.init, config)
    data = request.data or out / "phantoms"
    if request.data is None:
        assert config.phantom is not None
        make_phantoms(data, config.phantom, watch.on_progress)
    cache = CaseCache(out / "cache")
    usable = usable_cases(data, cache, config.model.modalities, config.preprocess, request.convention, watch.on_progress)
    sites = deal_sites(usable, config, cache, out / "sites.json", out / "work", request.partition_file)
    watch.on_sites(sites)
    on_phantoms = request.data is None
    federate(request, request.run_id, sites, start, on_phantoms, watch)
    if config.baseline == "local":
        for site in sites:
            federate(request, f"{request.run_id}-{site.name}", [site], start, on_phantoms, watch)
    summary = summarise(request.store, request.run_id, skipped=usable.skipped, seconds=time.monotonic() - started)
    write_summary(out / "summary.json", summary)
    plot_dice(out / "dice.png", summary)
    return summary


def federate(
    request: Request, run_id: str, sites: Sequence[Site], start: tuple[Weights, ModelCard], on_phantoms: bool, watch: Watch
) -> None:
    """One run over ``sites``. A site alone is the same thing over one site: its mean is its own model."""
    config = request.config
    alone = run_id != request.run_id
    run = Run(
        id=run_id,
        kind="local" if alone else "simulation",
        parent_id=request.run_id if alone else None,
        site=sites[0].name if alone else None,
        strategy=config.strategy.name,
        preset=config.model.preset,
        norm=config.model.norm,
        rounds=config.rounds,
        seed=config.seed,
        config=config.model_dump_json(),
        config_sha256=sha256_of(config),
        started_at=datetime.now(UTC),
    )
    plan = Plan(
        run=run_id,
        rounds=config.rounds,
        min_sites=len(sites),
        seed=config.seed,
        model=config.model,
        preprocess=config.preprocess,
        train=config.train,
    )
    before = start[1]
    how = "trained on one virtual site" if alone else f"federated over {len(sites)} virtual sites"
    card = before.model_copy(
        update={
            "trained_on": _trained_on(before.trained_on, on_phantoms),
            "provenance": f"{how}, from: {before.provenance}",
            "config_sha256": run.config_sha256,
        }
    )
    keeping = Keeping(request.store, request.out / "models" / (sites[0].name if alone else "."))
    by_name = {site.name: site for site in sites}

    def work(task: Any, site: Site) -> Any:
        label = f"{site.name} alone" if alone else site.name
        return do(task, site, on_step=lambda n, _: watch.on_progress(f"round {task.round}, {label}", n, config.train.steps))

    server = server_app(
        lambda exchange: conduct(
            run,
            plan,
            start,
            card,
            keeping,
            exchange,
            strategy_from(config.strategy),
            on_round=lambda result: watch.on_round(run_id, result),
        )
    )
    client = client_app(lambda context: by_name[str(context.node_config[SITE])], work)
    run_locally(server, client, list(by_name))


def require_possible(request: Request) -> None:
    """Meet now what else would only be met after minutes of reading cases.

    Raises:
        BrainUNetError: an unknown partition, strategy or loss, an unusable model, or a folder without cases.
    """
    config = request.config
    partition_named(config.partition.name)
    strategy_from(config.strategy)
    loss_from(config.train.loss)
    starting_model(request.init, config)
    if request.data is not None:
        find_cases(request.data, modalities=config.model.modalities, convention=request.convention)


def settings_of_model(init: str) -> dict[str, Any]:
    """The network and normalisation that the card of ``init`` names; nothing for random weights.

    Raises:
        ConfigError: not a model file.
    """
    if init == RANDOM:
        return {}
    _, card = read_model(_file_of(init))
    return {"model": card.model.model_dump(mode="json"), "preprocess": card.preprocess.model_dump(mode="json")}


def starting_model(init: str, config: SimulationConfig) -> tuple[Weights, ModelCard]:
    """The model of round 0: from a file, the shipped starter, or random weights of the run's seed.

    Raises:
        ConfigError: not a model file, or one whose card names another network or normalisation than the settings.
    """
    if init == RANDOM:
        card = ModelCard(
            title=f"{config.model.preset}, random weights",
            model=config.model,
            preprocess=config.preprocess,
            provenance=f"random weights of seed {config.seed}",
            trained_on="nothing",
        )
        weights = weights_of(build(config.model, seed=derive(config.seed, "weights")))
        return weights, card.model_copy(update={"weights_sha256": weights.digest})
    path = _file_of(init)
    weights, card = read_model(path)
    for field in ("model", "preprocess"):
        if getattr(card, field) != getattr(config, field):
            raise ConfigError(
                path,
                found=f"{field} {getattr(card, field).model_dump(mode='json')}",
                expected=f"{getattr(config, field).model_dump(mode='json')}, as the settings say",
                remedy="drop the setting (the model's own is used), or start from --init random",
            )
    return weights, card


def save_request(request: Request) -> None:
    """Keep what was asked, so that ``--resume`` needs nothing but the folder."""
    kept = {
        "run": request.run_id,
        "data": None if request.data is None else str(request.data.resolve()),
        "init": request.init if request.init in (RANDOM, STARTER_NAME) else str(Path(request.init).resolve()),
        "database": _absolute(request.database),
        "convention": request.convention,
        "partition_file": None if request.partition_file is None else str(request.partition_file.resolve()),
        "config": request.config.model_dump(mode="json"),
        "config_sha256": sha256_of(request.config),
    }
    with writing_aside(request.out / "config.json") as aside:
        aside.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def saved_request(out: Path) -> Request:
    """The simulation that was begun in a folder.

    Raises:
        ConfigError: there is none.
    """
    try:
        kept = json.loads((out / "config.json").read_text(encoding="utf-8"))
        return Request(
            run_id=kept["run"],
            out=out,
            config=SimulationConfig.model_validate(kept["config"]),
            data=None if kept["data"] is None else Path(kept["data"]),
            init=kept["init"],
            database=kept["database"],
            convention=None if kept["convention"] is None else Convention(kept["convention"]),
            partition_file=None if kept["partition_file"] is None else Path(kept["partition_file"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            out, found="no config.json of a simulation", expected="a folder in which one was begun", remedy="start it first"
        ) from None


def _trained_on(before: TrainedOn, on_phantoms: bool) -> TrainedOn:
    now: TrainedOn = "phantoms" if on_phantoms else "real cases"
    if before in ("nothing", now):
        return now
    return "unknown" if before == "unknown" else "phantoms and real cases"


def _absolute(database: str | None) -> str | None:
    return database if database is None or "://" in database else str(Path(database).resolve())


def _file_of(init: str) -> Path:
    return STARTER if init == STARTER_NAME else Path(init)
