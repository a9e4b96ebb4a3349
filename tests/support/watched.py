"""Stores for the dashboard's tests: a federation in which everything happens that a page can show, and simulations."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from brainunet.records import Structure
from brainunet_server.store.rows import (
    DownloadRow,
    Kind,
    Model,
    ReaderRow,
    ReleaseRow,
    Run,
    Score,
    SiteRound,
    SiteSeen,
    SpendRow,
)
from brainunet_server.store.writer import StoreWriter

BEGAN: Final = datetime(2026, 3, 1, 8, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
MARKUP: Final = "<b>north</b> *x* :red[y] $z$"
SITES: Final = ("CRV", "Lagos", "NKDC", "tiny", MARKUP)
STRUCTURES: Final[tuple[Structure, ...]] = ("ET", "TC", "WT", "NETC", "SNFH")


def a_run(
    run_id: str = "fed-1",
    kind: Kind = "federation",
    *,
    rounds: int = 8,
    strategy: str = "fedavg",
    parent: str | None = None,
    site: str | None = None,
    began: datetime = BEGAN,
    private: bool = False,
    partition: str = "iid",
) -> Run:
    config: dict[str, object] = {"privacy": {"epsilon": 8.0, "delta": 1e-3} if private else None}
    if kind != "federation":
        config["partition"] = {"name": partition, "alpha": 0.5}
    return Run(
        id=run_id,
        kind=kind,
        parent_id=parent,
        site=site,
        strategy=strategy,
        preset="brainunet-nano",
        norm="group",
        rounds=rounds,
        seed=1,
        config=json.dumps(config),
        config_sha256="ab" * 32,
        started_at=began,
    )


def score(
    run: str, model: int, site: str, structure: Structure, mean: float | None, n: int = 10, metric: str = "dice"
) -> Score:
    return Score(run_id=run, round=model, site=site, structure=structure, metric=metric, mean=mean, median=mean, n=n, missing=0)


def answer(run: str, exchange: int, site: str, *, withheld: bool = False, n: int = 10) -> SiteRound:
    return SiteRound(
        run_id=run,
        round=exchange,
        site=site,
        outcome="answered",
        cases_train=4 * n,
        cases_validation=n,
        loss=0.3,
        seconds=60.0 + exchange,
        bytes_down=91_300_000,
        bytes_up=91_300_000,
        client_version="0.1.0",
        withheld=withheld,
        update_norm=1.0,
        update_digest="ef" * 32,
    )


def other(run: str, exchange: int, site: str, outcome: str, reason: str) -> SiteRound:
    return SiteRound(
        run_id=run,
        round=exchange,
        site=site,
        outcome=outcome,  # type: ignore[arg-type]
        reason=reason,
        bytes_down=91_300_000,
    )


def a_model(run: str, number: int, began: datetime = BEGAN, digest: str | None = None) -> Model:
    digest = digest or f"{number:02x}{abs(hash(run)) % 256:02x}" * 16
    return Model(
        run_id=run,
        round=number,
        file=f"round-{number:03d}.safetensors",
        digest=digest,
        n_bytes=91_300_000,
        made_at=began + number * HOUR,
    )


def curve(place: int, model: int, structure: Structure = "WT") -> float:
    """A Dice that rises, a little lower for each next site and structure."""
    return round(0.9 - 0.35 * math.exp(-model / 3) - 0.03 * place - 0.04 * STRUCTURES.index(structure), 4)


def exchange_of(
    writer: StoreWriter,
    run: str,
    exchange: int,
    sites: Sequence[str] = SITES[:3],
    *,
    metrics: Sequence[str] = ("dice",),
    last: int = 1000,
) -> None:
    """One exchange in which every site answers, and the model that it makes; after round ``last`` none."""
    rows = [answer(run, exchange, site) for site in sites]
    figures = [
        score(
            run,
            exchange - 1,
            site,
            structure,
            curve(place, exchange - 1, structure) * (1 if metric == "dice" else 30),
            metric=metric,
        )
        for place, site in enumerate(sites)
        for structure in STRUCTURES
        for metric in metrics
    ]
    writer.record_exchange(run, exchange, rows, figures)
    if exchange <= last:
        writer.record_model(a_model(run, exchange))


def eventful(database: str | Path, *, rounds: int = 6, private: bool = True, now: datetime | None = None) -> str:
    """A federation that runs: one site withholds, one falls, one is late, refused, faulty and absent by turns."""
    run, now = "fed-1", now or BEGAN + rounds * HOUR
    with StoreWriter(database) as writer:
        writer.start_run(a_run(run, private=private))
        writer.record_model(a_model(run, 0, digest="aa" * 32))
        for k in range(1, rounds + 1):
            rows = [answer(run, k, "CRV"), answer(run, k, "NKDC", n=7), answer(run, k, "tiny", withheld=True, n=2)]
            turns = {
                2: other(run, k, "Lagos", "fault", "out_of_memory"),
                3: other(run, k, "Lagos", "late", "it came after the end of its round and was dropped"),
                4: other(run, k, "Lagos", "absent", "no reply in time"),
                5: other(run, k, "Lagos", "refused", "the update is 40 times as long as the others"),
            }
            rows.append(turns.get(k, answer(run, k, "Lagos")))
            if k > 2:
                rows.append(answer(run, k, MARKUP))
            scored = [("CRV", 0), ("NKDC", 1)] + ([("Lagos", 2)] if k not in turns else []) + ([(MARKUP, 3)] if k > 2 else [])
            figures = [
                score(
                    run,
                    k - 1,
                    site,
                    structure,
                    (0.9 - 0.02 * k if site == MARKUP else curve(place, k - 1, structure)) * factor,
                    metric=metric,
                )
                for site, place in scored
                for structure in STRUCTURES
                for metric, factor in (("dice", 1.0), ("hd95_mm", 12.0), ("lesion_dice", 0.8))
            ]
            writer.record_exchange(run, k, rows, figures)
            writer.record_model(a_model(run, k))
            if private:
                writer.record_spends(
                    [spend(run, k, site, 0.9 * math.sqrt(k) + 0.2 * i) for i, site in enumerate(("CRV", "NKDC"))]
                )
        writer.mark_removed(run, [1, 2], BEGAN + 3 * HOUR)
        writer.record_sites(seen(now))
        writer.add_release(a_release("africa-2026.1", run, 3))
        writer.add_release(a_release("africa-2026.0", run, 2))
        writer.withdraw_release("africa-2026.0", "worse at one site <i>", BEGAN + 5 * HOUR)
        writer.add_reader(ReaderRow(name="ann", token_sha256="0" * 64, added_at=BEGAN, expires_at=now + 300 * 24 * HOUR))
        writer.add_reader(ReaderRow(name="old", token_sha256="1" * 64, added_at=BEGAN, expires_at=BEGAN + HOUR))
        for minute, (who, whole) in enumerate((("ann", False), ("ann", True), ("ann", True))):
            writer.add_download(
                DownloadRow(
                    release="africa-2026.1", who=who, kind="reader", at=BEGAN + minute * HOUR, n_bytes=91_300_000, whole=whole
                )
            )
    return run


def spend(run: str, exchange: int, site: str, epsilon: float) -> SpendRow:
    return SpendRow(
        run_id=run,
        round=exchange,
        site=site,
        epsilon=epsilon,
        delta=1e-3,
        noise_multiplier=1.1,
        sample_rate=0.1,
        steps=20,
        accountant="rdp",
        total_epsilon=epsilon + 1,
        total_delta=1e-3,
        ledger_head=f"{exchange:064x}",
        ledger_entries=exchange,
        told_at=BEGAN + exchange * HOUR,
    )


def a_release(name: str, run: str, number: int) -> ReleaseRow:
    return ReleaseRow(
        name=name,
        run_id=run,
        round=number,
        file=f"published/{name}.safetensors",
        sha256="c" * 64,
        n_bytes=91_300_000,
        weights_sha256=a_model(run, number).digest,
        notes="for 1.5 T scanners",
        published_at=BEGAN + number * HOUR,
    )


def seen(now: datetime) -> list[SiteSeen]:
    """CRV works, NKDC waits, Lagos is silent, tiny never came, one was revoked; CRV's certificate ends soon."""
    day = timedelta(days=1)
    return [
        SiteSeen(
            name="CRV",
            state="working",
            last_seen_at=now,
            certificate_expires_at=now + 12 * day,
            client_version="0.1.0",
            enrolled_at=BEGAN,
        ),
        SiteSeen(name="NKDC", state="connected", last_seen_at=now, certificate_expires_at=now + 400 * day, enrolled_at=BEGAN),
        SiteSeen(
            name="Lagos", state="silent", last_seen_at=now - day, certificate_expires_at=now + 400 * day, enrolled_at=BEGAN
        ),
        SiteSeen(name="tiny", state="never seen", certificate_expires_at=now + 400 * day, enrolled_at=BEGAN),
        SiteSeen(name="gone", state="revoked", last_seen_at=BEGAN, enrolled_at=BEGAN, revoked_at=now - day),
    ]


def simulations(database: str | Path, *, rounds: int = 3) -> None:
    """Two simulations that are complete, the first with each site trained alone."""
    with StoreWriter(database) as writer:
        for i, (run, strategy, partition) in enumerate((("sim-1", "fedavg", "iid"), ("sim-2", "fedprox", "dirichlet"))):
            began = BEGAN + i * 24 * HOUR
            writer.start_run(a_run(run, "simulation", rounds=rounds, strategy=strategy, partition=partition, began=began))
            writer.record_model(a_model(run, 0, began))
            for k in range(1, rounds + 2):
                exchange_of(writer, run, k, metrics=("dice", "hd95_mm"), last=rounds)
            writer.finish_run(run, "completed", began + 5 * HOUR)
        for place, site in enumerate(SITES[:3]):
            own = f"sim-1-{site}"
            writer.start_run(a_run(own, "local", rounds=rounds, parent="sim-1", site=site))
            for k in range(1, rounds + 2):
                found = [score(own, k - 1, site, s, curve(place, k - 1, s) - 0.05) for s in STRUCTURES]
                writer.record_exchange(own, k, [answer(own, k, site)], found)
            writer.finish_run(own, "completed", BEGAN + 6 * HOUR)
