"""One simulation from its settings to its summary: the same server and client code as a real federation, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.data.usable import Progress, usable_cases
from brainunet.errors import BrainUNetError, ConfigError, FederationError
from brainunet.losses import loss_from
from brainunet.modelfile import ModelCard, TrainedOn, learned_in, read_model, trained_on
from brainunet.records import AnyTask, Reply
from brainunet.training.start import starting_model
from brainunet.weights import Weights
from brainunet_client.flower.app import client_app
from brainunet_client.site import Site
from brainunet_client.tasks import do
from brainunet_server.any_run import plan, run_row
from brainunet_server.conduct import conduct
from brainunet_server.flower.app import server_app
from brainunet_server.flower.strategies import strategy_from
from brainunet_server.keeping import Keeping
from brainunet_server.round_results import LastingFaults, RoundResult
from brainunet_server.store.opening import without_password
from brainunet_sim.local_grid import SITE, run_locally
from brainunet_sim.partition import partition_named
from brainunet_sim.prepare import deal_sites, make_phantoms
from brainunet_sim.private_sites import privately
from brainunet_sim.report import plot_dice, summarise, write_summary
from brainunet_sim.request import Request


@dataclass(frozen=True)
class Watch:
    """Who is told how it goes."""

    on_progress: Progress
    on_sites: Callable[[Sequence[Site]], None]
    on_round: Callable[[str, RoundResult], None]


def simulate(request: Request, watch: Watch) -> dict[str, Any]:
    """Run or resume a simulation and leave summary.json and dice.png in its folder; returns the summary.

    Raises:
        BrainUNetError: see the parts; complete rounds are kept.
    """
    started = time.monotonic()
    config, out = request.config, request.out
    start = _first_model(request)
    data = request.data or out / "phantoms"
    if request.data is None:
        assert config.phantom is not None
        make_phantoms(data, config.phantom, watch.on_progress)
    cache = CaseCache(out / "cache")
    usable = usable_cases(data, cache, config.model.modalities, config.preprocess, request.convention, watch.on_progress)
    sites = deal_sites(usable, config, cache, out / "sites.json", out / "work", request.partition_file)
    watch.on_sites(sites)
    seen = usable.kind_of(usable.cases)
    federate(request, request.run_id, sites, start, seen, watch)
    if config.baseline == "local":
        for site in sites:
            federate(request, f"{request.run_id}-{site.name}", [site], start, seen, watch)
    summary = summarise(request.store, request.run_id, skipped=usable.skipped, seconds=time.monotonic() - started)
    write_summary(out / "summary.json", summary)
    plot_dice(out / "dice.png", summary)
    return summary


def _first_model(request: Request) -> tuple[Weights, ModelCard]:
    """The model of round 0 as it was kept, so that a resume needs no other file; at first, the one that was asked for."""
    config = request.config
    try:
        return read_model(Keeping(request.store, request.out / "models", request.out / "replies").model_file(0))
    except ConfigError:
        return starting_model(request.start_file, config.model, config.preprocess, config.seed)


def federate(
    request: Request, run_id: str, sites: Sequence[Site], start: tuple[Weights, ModelCard], seen: TrainedOn, watch: Watch
) -> None:
    """One run over ``sites``. A site alone is the same thing over one site: its mean is its own model."""
    config = request.config
    alone = run_id != request.run_id
    run = run_row(
        run_id,
        "local" if alone else "simulation",
        config,
        datetime.now(UTC),
        parent_id=request.run_id if alone else None,
        site=sites[0].name if alone else None,
    )
    before = start[1]
    how = "trained on one virtual site" if alone else f"federated over {len(sites)} virtual sites"
    card = before.model_copy(
        update={
            "trained_on": trained_on(before.trained_on, seen),
            **learned_in(config.train, config.validation),
            "provenance": f"{how}, from: {before.provenance}",
            "config_sha256": run.config_sha256,
        }
    )
    keeping = Keeping(request.store, request.out / "models" / (sites[0].name if alone else "."), request.out / "replies")
    if config.privacy is not None:
        sites = privately(sites, config.privacy, config.seed, request.store, run_id)
    by_name = {site.name: site for site in sites}

    failures: list[BrainUNetError] = []

    def work(task: AnyTask, site: Site) -> Reply:
        label = f"{site.name} alone" if alone else site.name
        try:
            return do(task, site, on_step=lambda n, _: watch.on_progress(f"round {task.round}, {label}", n, config.train.steps))
        except BrainUNetError as error:
            failures.append(error)
            raise

    server = server_app(
        lambda exchange: conduct(
            run,
            plan(run_id, config, min_sites=len(sites), demo=True),
            lambda: start,
            card,
            keeping,
            exchange,
            strategy_from(config.strategy, sites=len(sites)),
            on_round=lambda result: watch.on_round(run_id, result),
        )
    )
    client = client_app(lambda context: by_name[str(context.node_config[SITE])], work)
    try:
        run_locally(server, client, list(by_name))
    except (FederationError, LastingFaults):
        if failures:  # a federation is told a code only; here the person who can mend it is the one who reads
            raise failures[0] from None
        raise


def require_possible(request: Request) -> None:
    """Meet now what else would only be met after minutes of reading cases.

    Raises:
        BrainUNetError: an unknown partition, strategy or loss, an unusable model, an address that is no
            store's, or a folder without cases.
    """
    config = request.config
    partition_named(config.partition.name)
    strategy_from(config.strategy, sites=config.sites)
    loss_from(config.train.loss)
    starting_model(request.start_file, config.model, config.preprocess, config.seed)
    without_password(request.store)
    if request.data is not None:
        find_cases(request.data, modalities=config.model.modalities, convention=request.convention)
