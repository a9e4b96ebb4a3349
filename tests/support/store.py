"""A store on each database that it works with, and the rows of a run of two sites."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import Model, Run, Score, SiteRound
from brainunet_server.store.writer import StoreWriter
from tests.support.pace import first_fast

NOON = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
RUN = Run(
    id="glioma-1",
    kind="federation",
    strategy="fedavg",
    preset="brainunet",
    norm="group",
    rounds=3,
    seed=2**63 - 1,
    config='{"name": "Ünïcode"}',
    config_sha256="ab" * 32,
    started_at=NOON,
)


def answered(exchange: int, site: str, loss: float = 0.5) -> SiteRound:
    return SiteRound(
        run_id=RUN.id,
        round=exchange,
        site=site,
        outcome="answered",
        cases_train=48,
        cases_validation=12,
        loss=loss,
        seconds=61.5,
        bytes_down=5_000_000_000,  # more than 32 bits hold
        bytes_up=20_000_000,
        client_version="0.1.0",
        update_norm=0.1 + 0.2,
        update_digest="ef" * 32,
    )


def dice(model: int, site: str, mean: float | None = 0.8) -> Score:
    return Score(run_id=RUN.id, round=model, site=site, structure="ET", metric="dice", mean=mean, median=mean, n=12, missing=0)


def saved(model: int, digest: str = "cd") -> Model:
    return Model(run_id=RUN.id, round=model, file=f"round-{model}.safetensors", digest=digest, n_bytes=9, made_at=NOON)


def run_rounds(writer: StoreWriter, last: int) -> None:
    """A run of two sites up to model ``last``."""
    writer.start_run(RUN)
    writer.record_model(saved(0))
    for number in range(1, last + 1):
        sites = ["lagos", "boston"]
        writer.record_exchange(
            RUN.id, number, [answered(number, site) for site in sites], [dice(number - 1, site) for site in sites]
        )
        writer.record_model(saved(number))


def newest_model(reader: StoreReader, run_id: str) -> int | None:
    return max((model.round for model in reader.models(run_id)), default=None)


@pytest.fixture(params=first_fast("sqlite", "postgresql"))
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def writer(where: str) -> Iterator[StoreWriter]:
    with StoreWriter(where, wait_s=0.3) as store:
        yield store


@pytest.fixture
def reader(where: str, writer: StoreWriter) -> Iterator[StoreReader]:
    with StoreReader(where) as store:
        yield store
