"""A run from its first round to its last: keeps the rounds' models and rows, and goes on where an earlier process stopped.

A round is complete when its model's row is in the store; model file and site rows come before it, so a kill at any moment
leaves at most an incomplete round, which is run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from brainunet.errors import BrainUNetError, ConfigError, FederationError
from brainunet.modelfile import ModelCard, read_model, write_model
from brainunet.records import PrivacySpend
from brainunet.spool import read_packed, write_packed
from brainunet.weights import Weights
from brainunet.wire import Packed
from brainunet_server.answers import Exchange
from brainunet_server.keeping import LAST_KEPT, Keeping, best_rounds, remove_old
from brainunet_server.round_results import LastingFaults, RoundResult, TooFewReplies
from brainunet_server.rounds import Plan, Strategy, rounds
from brainunet_server.store.reader import StoreReader, site_scores
from brainunet_server.store.rows import Model, Run, Score, SiteRound, SpendRow
from brainunet_server.store.writer import StoreWriter


def conduct(
    run: Run,
    plan: Plan,
    start: Callable[[], tuple[Weights, ModelCard]],
    card: ModelCard,
    keeping: Keeping,
    exchange: Exchange,
    strategy: Strategy,
    on_round: Callable[[RoundResult], None] = lambda result: None,
    before_keeping: Callable[[RoundResult], None] = lambda result: None,
) -> None:
    """Run or resume ``run`` and keep it; afterwards the best rounds are marked by copies (see :func:`_keep_best`).

    Args:
        start: gives the model of round 0 with its own card, if the run has none yet.
        card: what the models made here say of themselves; run, round, parent and scores are filled in.
        on_round: told each exchange as soon as it is kept.
        before_keeping: told it before: a kill in between makes the exchange be told twice, never not at all.

    Raises:
        ConfigError: another run has this id, a kept model was damaged, or no site can do what the run asks.
        FederationError: too few usable replies.
        BrainUNetError: disk or database.
    """
    with StoreWriter(keeping.database) as store:
        store.start_run(run)
        try:
            for left in keeping.models.glob(".*.part"):  # by a process that was killed while it wrote
                left.unlink()
            done = _last_complete(run.id, keeping)
            if done is None:
                done = 0
                _keep_model(store, run.id, 0, *start(), keeping)
            card = card.model_copy(update={"parent_sha256": _first_digest(run.id, keeping)})
            store.rewind(run.id, done)
            weights, _ = read_model(keeping.model_file(done))
            keeping.sign(keeping.model_file(done))  # a kill between writing and signing leaves it unsigned
            _restore(strategy, done, keeping)
            for result in rounds(plan, weights, done, exchange, strategy, keeping.replies):
                before_keeping(result)
                _keep(store, run.id, result, strategy, card, keeping)
                on_round(result)
            _keep_best(run.id, keeping)
        except BaseException as error:
            with suppress(BrainUNetError):  # a full disk fails here too, and the first error is the one to tell
                if isinstance(error, TooFewReplies | LastingFaults):  # why each site gave none is what a person asks next
                    store.record_spends(_spends(run.id, error.result))
                    store.record_exchange(run.id, error.result.exchange, _site_rounds(run.id, error.result), ())
                store.finish_run(run.id, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        store.finish_run(run.id, "completed")


def _last_complete(run_id: str, keeping: Keeping) -> int | None:
    """The newest round whose model can be read; None of a run that has no round yet, or none that can be read.

    Raises:
        ConfigError: a federation would go back more than one round: that is a folder to put back, not rounds to do again.
    """
    with StoreReader(keeping.database) as reader:
        kept = [model for model in reader.models(run_id) if model.removed_at is None]
    found = next((model.round for model in reversed(kept) if _is_whole(model, keeping)), None)
    if kept and keeping.keep_every is not None and kept[-1].round - (found or 0) >= LAST_KEPT:
        raise ConfigError(
            keeping.models,
            found=f"of {kept[-1].round} complete rounds "
            + (f"round {found} is the last whose model can be read" if found else "none whose model can be read"),
            expected=f"the model of round {kept[-1].round}, or of the one before",
            remedy="put the folder back (is its disk there? is there a copy?), or begin anew with --new-run",
        )
    return found


def _is_whole(model: Model, keeping: Keeping) -> bool:
    try:
        return read_model(keeping.model_file(model.round))[0].digest == model.digest
    except ConfigError:
        return False


def _first_digest(run_id: str, keeping: Keeping) -> str:
    with StoreReader(keeping.database) as reader:
        return next(model.digest for model in reader.models(run_id) if model.round == 0)


def _restore(strategy: Strategy, done: int, keeping: Keeping) -> None:
    """Go on from what the strategy remembered after round ``done``.

    Raises:
        ConfigError: it remembered something, and that is gone or damaged.
    """
    if strategy.state() is None or done == 0:
        return
    kept = read_packed(keeping.strategy_file(done))
    try:
        if kept is None or kept.values is None:
            raise ValueError("no file, or half of one")
        layout = tuple((name, tuple(shape)) for name, shape in json.loads(kept.header))
        strategy.restore(Weights.from_flat(layout, kept.values))
    except (ValueError, TypeError, FederationError):
        raise ConfigError(
            keeping.strategy_file(done),
            found="it is gone, damaged, or of another strategy",
            expected="what the strategy remembers after this round",
            remedy="begin a new run from the last model",
        ) from None


def _keep(store: StoreWriter, run_id: str, result: RoundResult, strategy: Strategy, card: ModelCard, keeping: Keeping) -> None:
    figures = [
        Score(run_id=run_id, round=result.exchange - 1, site=site.site, **row.model_dump())
        for site in result.sites
        if site.score is not None
        for row in site.score.rows
    ]
    store.record_spends(_spends(run_id, result))
    store.record_exchange(run_id, result.exchange, _site_rounds(run_id, result), figures)
    _put_scores_on_card(keeping.model_file(result.exchange - 1), result, keeping)
    if result.weights is not None:
        state = strategy.state()
        if state is not None:
            write_packed(keeping.strategy_file(result.exchange), Packed(json.dumps(state.layout), state.flat()))
        title = f"{card.model.preset} after round {result.exchange} of run {run_id}"
        made = {"title": title, "run": run_id, "round": result.exchange, "scores": {}, "made_at": None}
        made["spends"] = _spends_until(run_id, result.exchange, keeping)
        _keep_model(store, run_id, result.exchange, result.weights, card.model_copy(update=made), keeping)
        # the one before stays, for should this model be found damaged the run goes back one round
        keeping.strategy_file(result.exchange - 2).unlink(missing_ok=True)
    remove_old(store, run_id, result.exchange if result.weights is not None else result.exchange - 1, keeping)


def _put_scores_on_card(path: Path, result: RoundResult, keeping: Keeping) -> None:
    weights, card = read_model(path)
    scores = {site.site: site.score for site in result.sites if site.score is not None}
    write_model(path, weights, card.model_copy(update={"scores": scores}))
    keeping.sign(path)


def _keep_model(store: StoreWriter, run_id: str, number: int, weights: Weights, card: ModelCard, keeping: Keeping) -> None:
    path = keeping.model_file(number)
    card = write_model(path, weights, card)
    keeping.sign(path)
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
    """Two marks, of those rounds whose models are there and whole (see ``keeping.best_rounds``)."""
    with StoreReader(keeping.database) as reader:
        there = {model.round for model in reader.models(run_id) if model.removed_at is None and _is_whole(model, keeping)}
        by_round = {number: sites for number, sites in site_scores(reader.scores(run_id)).items() if number in there}
    for best, file in zip(best_rounds(by_round), (keeping.best_file, keeping.best_for_all_file), strict=True):
        if best is not None:
            write_model(file, *read_model(keeping.model_file(best)))  # its card has its scores
            keeping.sign(file)


def _spends(run_id: str, result: RoundResult) -> list[SpendRow]:
    return [
        SpendRow(run_id=run_id, round=result.exchange, site=site.site, told_at=datetime.now(UTC), **site.spend.model_dump())
        for site in result.sites
        if site.spend is not None
    ]


def _spends_until(run_id: str, number: int, keeping: Keeping) -> dict[str, PrivacySpend]:
    """Site -> its last spend of this run until a round, for the card; the head of its ledger is nobody else's business."""
    with StoreReader(keeping.database) as reader:
        rows = [row for row in reader.spends(run_id) if row.round <= number]
    fields = PrivacySpend.model_fields.keys() - {"ledger_head", "ledger_entries", "total_epsilon", "total_delta"}
    last = {row.site: row for row in sorted(rows, key=lambda row: row.round)}
    return {site: PrivacySpend(**{name: getattr(row, name) for name in fields}) for site, row in sorted(last.items())}


def _site_rounds(run_id: str, result: RoundResult) -> list[SiteRound]:
    return [
        SiteRound(
            run_id=run_id,
            round=result.exchange,
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
            withheld=site.score is not None and site.score.withheld,
            update_norm=site.update_norm,
            update_digest=site.update_digest,
        )
        for site in result.sites
    ]
