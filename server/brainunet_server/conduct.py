"""A run from its first round to its last: keeps every round's model and rows, and goes on where an earlier process stopped.

A round is complete when its model's row is in the store; model file and site rows come before it, so a kill at any moment
leaves at most an incomplete round, which is run again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from brainunet.errors import BrainUNetError, ConfigError
from brainunet.metrics.summary import best_round, mean_region_dice
from brainunet.modelfile import ModelCard, read_model, write_model
from brainunet.weights import Weights
from brainunet_server.rounds import Exchange, Plan, RoundResult, SiteResult, Strategy, rounds
from brainunet_server.store.reader import StoreReader, site_scores
from brainunet_server.store.rows import Model, Run, Score, SiteRound
from brainunet_server.store.writer import StoreWriter


@dataclass(frozen=True)
class Keeping:
    """Where a run keeps what it makes: a store and a folder of models."""

    database: str | Path
    models: Path

    def model_file(self, round_number: int) -> Path:
        return self.models / f"round-{round_number:03d}.safetensors"

    @property
    def best_file(self) -> Path:
        return self.models / "best.safetensors"


def conduct(
    run: Run,
    plan: Plan,
    start: tuple[Weights, ModelCard],
    card: ModelCard,
    keeping: Keeping,
    exchange: Exchange,
    strategy: Strategy,
    on_round: Callable[[RoundResult], None] = lambda result: None,
) -> None:
    """Run or resume ``run`` and keep it; afterwards ``best.safetensors`` is the round with the highest mean Dice.

    Args:
        start: the model of round 0 with its own card.
        card: what the models made here say of themselves; run, round, parent and scores are filled in.
        on_round: told each exchange as soon as it is kept.

    Raises:
        ConfigError: another run has this id, or a kept model was damaged.
        FederationError: too few usable replies.
        BrainUNetError: disk or database.
    """
    card = card.model_copy(update={"parent_sha256": start[0].digest})
    with StoreWriter(keeping.database) as store:
        store.start_run(run)
        try:
            for left in keeping.models.glob(".*.part"):  # by a process that was killed while it wrote
                left.unlink()
            done = _last_complete(run.id, keeping)
            if done is None:
                done = 0
                _keep_model(store, run.id, 0, *start, keeping)
            store.rewind(run.id, done)
            weights, _ = read_model(keeping.model_file(done))
            for result in rounds(plan, weights, done, exchange, strategy):
                _keep(store, run.id, result, card, keeping)
                on_round(result)
            _keep_best(run.id, keeping)
        except BaseException as error:
            with suppress(BrainUNetError):  # a full disk fails here too, and the first error is the one to tell
                store.finish_run(run.id, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        store.finish_run(run.id, "completed")


def _last_complete(run_id: str, keeping: Keeping) -> int | None:
    with StoreReader(keeping.database) as reader:
        kept = reader.models(run_id)
    for model in reversed(kept):
        try:
            if read_model(keeping.model_file(model.round))[0].digest == model.digest:
                return model.round
        except ConfigError:
            continue
    return None


def _keep(store: StoreWriter, run_id: str, result: RoundResult, card: ModelCard, keeping: Keeping) -> None:
    answers = [_site_round(run_id, result.exchange, site) for site in result.sites]
    figures = [
        Score(run_id=run_id, round=result.exchange - 1, site=site.site, **row.model_dump())
        for site in result.sites
        if site.score is not None
        for row in site.score.rows
    ]
    store.record_exchange(run_id, result.exchange, answers, figures)
    if result.weights is not None:
        title = f"{card.model.preset} after round {result.exchange} of run {run_id}"
        made = {"title": title, "run": run_id, "round": result.exchange, "scores": {}, "made_at": None}
        _keep_model(store, run_id, result.exchange, result.weights, card.model_copy(update=made), keeping)


def _keep_model(store: StoreWriter, run_id: str, number: int, weights: Weights, card: ModelCard, keeping: Keeping) -> None:
    path = keeping.model_file(number)
    card = write_model(path, weights, card)
    store.record_model(
        Model(
            run_id=run_id,
            round=number,
            file=path.name,
            digest=card.weights_sha256,
            n_bytes=path.stat().st_size,
            made_at=datetime.now(UTC),
        )
    )


def _keep_best(run_id: str, keeping: Keeping) -> None:
    """The round of highest mean Dice over ET, TC and WT (the earliest of equals), with its scores on its card."""
    with StoreReader(keeping.database) as reader:
        by_round = site_scores(reader.scores(run_id))
    means = {number: mean_region_dice(sites.values()) for number, sites in by_round.items()}
    best = best_round(means)
    if best is not None:
        weights, card = read_model(keeping.model_file(best))
        write_model(keeping.best_file, weights, card.model_copy(update={"scores": by_round[best]}))


def _site_round(run_id: str, exchange: int, site: SiteResult) -> SiteRound:
    return SiteRound(
        run_id=run_id,
        round=exchange,
        site=site.site,
        outcome=site.outcome,
        reason=site.reason,
        cases_train=site.cases.train if site.cases else None,
        cases_validation=site.cases.validation if site.cases else None,
        loss=site.loss,
        seconds=site.seconds,
        bytes_down=site.bytes_down,
        bytes_up=site.bytes_up,
        client_version=site.client_version,
    )
