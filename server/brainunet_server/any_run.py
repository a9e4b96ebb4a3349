"""What every run has, of a federation or a simulated one: its settings, and what the store and the rounds make of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from brainunet.config import ModelConfig, PreprocessConfig, PrivacyConfig, StrategyConfig, TrainConfig, ValidationConfig
from brainunet.settings import Settings, sha256_of
from brainunet_server.rounds import Plan
from brainunet_server.store.rows import Kind, Run


class AnyRun(Settings):
    """The settings that decide a run's figures wherever it takes place."""

    model: ModelConfig
    preprocess: PreprocessConfig
    train: TrainConfig
    validation: ValidationConfig
    strategy: StrategyConfig
    rounds: int
    seed: int
    privacy: PrivacyConfig | None = None


def run_row(
    run_id: str, kind: Kind, settings: AnyRun, started_at: datetime, *, parent_id: str | None = None, site: str | None = None
) -> Run:
    """The run as the store knows it; ``parent_id`` and ``site`` of a site that trains alone (see ``store.rows.Run``)."""
    return Run(
        id=run_id,
        kind=kind,
        parent_id=parent_id,
        site=site,
        strategy=settings.strategy.name,
        preset=settings.model.preset,
        norm=settings.model.norm,
        rounds=settings.rounds,
        seed=settings.seed,
        config=settings.model_dump_json(),
        config_sha256=sha256_of(settings),
        started_at=started_at,
    )


def plan(run_id: str, settings: AnyRun, min_sites: int, **more: Any) -> Plan:
    """What the run is about to do; ``more`` are the fields of a Plan that no setting of every run decides."""
    privacy = settings.privacy
    if privacy is not None and privacy.rounds is None:
        privacy = privacy.model_copy(update={"rounds": settings.rounds})
    return Plan(
        run=run_id,
        rounds=settings.rounds,
        min_sites=min_sites,
        seed=settings.seed,
        model=settings.model,
        preprocess=settings.preprocess,
        train=settings.train,
        validation=settings.validation,
        max_site_share=settings.strategy.max_site_share,
        local=settings.strategy.local,
        privacy=privacy,
        **more,
    )
