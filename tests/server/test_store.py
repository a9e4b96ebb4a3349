"""What is particular to the store's rows, to SQLite, and to errors; ``tests/contracts`` holds what every database promises."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sqlalchemy import text

import brainunet
import brainunet_server.store
from brainunet.errors import BrainUNetError, ConfigError
from brainunet_server.store.problems import explained
from brainunet_server.store.reader import StoreReader
from brainunet_server.store.rows import Model, Run, Score, SiteRound, SiteSeen
from brainunet_server.store.writer import StoreWriter

RUN = Run(
    id="glioma-1",
    kind="simulation",
    strategy="fedavg",
    preset="brainunet",
    norm="group",
    rounds=3,
    seed=7,
    config="{}",
    config_sha256="ab" * 32,
    started_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
)
ABSENT = SiteRound(run_id=RUN.id, round=1, site="lagos", outcome="absent")
SCORE = Score(run_id=RUN.id, round=0, site="lagos", structure="ET", metric="dice", mean=0.5, median=0.5, n=1, missing=0)
SEEN = SiteSeen(name="lagos", state="never seen")
MODEL = Model(run_id=RUN.id, round=0, file="m", digest="d", n_bytes=1, made_at=RUN.started_at)

WRITES_ANYWHERE = os.geteuid() == 0


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_never_becomes_a_row(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        replace(ABSENT, loss=value)
    with pytest.raises(ValidationError, match="finite"):
        replace(SCORE, mean=value)


def test_no_numpy_scalar_stays_in_a_row_because_sqlite_would_store_its_bytes() -> None:
    half: Any = np.float32(0.5)
    one: Any = np.int64(1)

    assert type(replace(SCORE, mean=half).mean) is float
    with pytest.raises(ValidationError, match="valid integer"):
        replace(SCORE, n=one)


def test_a_row_refuses_words_that_mean_nothing_and_numbers_out_of_range() -> None:
    with pytest.raises(ValidationError, match="outcome"):
        replace(ABSENT, outcome="asleep")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        replace(ABSENT, round=0)
    with pytest.raises(ValidationError, match="bytes_up"):
        replace(ABSENT, bytes_up=-1)
    with pytest.raises(ValidationError, match="timezone"):
        replace(RUN, started_at=datetime(2026, 3, 1))
    with pytest.raises(ValidationError, match="client_version"):
        replace(ABSENT, client_version="0.1\x00")
    with pytest.raises(ValidationError, match="update_norm"):
        replace(ABSENT, update_norm=-1.0)
    with pytest.raises(ValidationError, match="withheld"):
        replace(ABSENT, withheld=1)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="state"):
        replace(SEEN, state="asleep")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="timezone"):
        replace(SEEN, last_seen_at=datetime(2026, 3, 1))


# --- SQLite -----------------------------------------------------------------------------------------------------------


def test_a_committed_round_outlives_a_power_cut_and_never_blocks_readers(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store.sqlite") as writer, writer.engine.connect() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@pytest.mark.parametrize("name", ["a b.sqlite", "100%#1?mode=rw.sqlite", "tumörs&uri=false.db"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    with StoreWriter(tmp_path / name) as writer:
        writer.start_run(RUN)
    with StoreReader(tmp_path / name) as reader:
        assert reader.runs() == [RUN]
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(("-wal", "-shm"))] == [name]


def test_a_path_a_string_and_a_url_name_the_same_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with StoreWriter(tmp_path / "store.sqlite") as writer:
        writer.start_run(RUN)
    for where in ("store.sqlite", "sqlite:///store.sqlite", f"sqlite:///{tmp_path}/store.sqlite"):
        with StoreReader(where) as reader:
            assert reader.runs() == [RUN]


def test_a_reader_finds_a_store_that_was_made_anew_under_it(tmp_path: Path) -> None:
    where = tmp_path / "store.sqlite"
    StoreWriter(where).close()
    with StoreReader(where) as reader:
        assert reader.runs() == []
        for path in tmp_path.iterdir():
            path.unlink()
        with StoreWriter(where) as writer:
            writer.start_run(RUN)
        assert reader.runs() == [RUN]


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"store.sqlite: no such file, but expected the store of a run\. Start a run"):
        StoreReader(tmp_path / "store.sqlite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("side", [StoreWriter, StoreReader])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    tmp_path: Path, side: type[StoreWriter] | type[StoreReader]
) -> None:
    where = tmp_path / "scan.nii.gz"
    where.write_bytes(b"not a database, but long enough to look at" * 100)
    before = where.read_bytes()

    with pytest.raises(ConfigError, match=r"scan\.nii\.gz: not a SQLite database\. Give the store a path of its own\."):
        side(where)

    assert where.read_bytes() == before


def test_another_programs_database_gets_no_tables_of_ours(tmp_path: Path) -> None:
    where = tmp_path / "state.db"
    with closing(sqlite3.connect(where)) as other:
        other.execute("CREATE TABLE node (id INTEGER)")

    with pytest.raises(ConfigError, match=r"tables of another program \(node\)"):
        StoreWriter(where)
    with pytest.raises(ConfigError, match="a database that is no store"):
        StoreReader(where)

    with closing(sqlite3.connect(where)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("node",)]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/store\.sqlite: cannot be opened\. Make its folder"):
        StoreWriter(tmp_path / "nowhere" / "store.sqlite")


def test_a_full_disk_says_that_finished_rounds_are_safe(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store.sqlite") as writer:
        writer.start_run(RUN)
        with writer.engine.connect() as connection:  # the pool hands this one connection on to the next call
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(BrainUNetError, match=r"no space left on the disk\. Make room and resume the run"):
            writer.record_exchange(RUN.id, 1, [replace(ABSENT, reason="x" * 100_000)], [])


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Without root's right to write everywhere, which would make every folder look writable."""
    folder.chmod(0o555)
    if WRITES_ANYWHERE:
        os.seteuid(65534)
    try:
        yield
    finally:
        if WRITES_ANYWHERE:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="brainunet-store-"))
    yield folder
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_is_an_error_that_says_who_must_write_there(open_folder: Path) -> None:
    with as_nobody(open_folder), pytest.raises(ConfigError, match="let this user write there, readers too"):
        StoreWriter(open_folder / "store.sqlite")

    StoreWriter(open_folder / "store.sqlite").close()
    (open_folder / "store.sqlite").chmod(0o444)
    for side in (StoreWriter, StoreReader):
        with as_nobody(open_folder), pytest.raises(ConfigError, match=r"[Ll]et this user write"):
            side(open_folder / "store.sqlite")


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def test_a_writer_outlives_a_restart_of_the_postgresql_server(postgres_url: str) -> None:
    with StoreWriter(postgres_url) as writer, StoreWriter(postgres_url) as other:
        writer.start_run(RUN)
        with other.engine.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))

        writer.record_model(MODEL)


def test_a_postgresql_session_that_is_cut_in_mid_transaction_is_explained(postgres_url: str) -> None:
    with StoreWriter(postgres_url) as writer, pytest.raises(BrainUNetError, match="ended the session"):  # noqa: SIM117
        with explained(writer.engine.url), writer.engine.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def test_opening_a_store_leaves_logging_alone(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers), logging.getLogger("alembic").level

    StoreWriter(tmp_path / "store.sqlite").close()

    assert (root.level, list(root.handlers), logging.getLogger("alembic").level) == before


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("mysql://fl:hush@db/x", r"starts with mysql://"),
        ("postgres://fl:hush@db/x", r"starts with postgres://"),
        ("postgresql+psycopg2://fl:hush@db/x", r"starts with postgresql\+psycopg2://"),
        ("postgresql://fl:hu@sh:hush@db:port/x", "does not parse"),
        ("://hush", "does not parse"),
        ("sqlite://", "without a file, or with options"),
        ("sqlite:///:memory:", "without a file, or with options"),
        ("sqlite:///store.sqlite?mode=ro&secret=hush", "without a file, or with options"),
        ("postgresql://fl:hush@127.0.0.1:1/x?sslpassword=hush", "no connection .*refused"),
    ],
)
def test_an_address_that_does_not_work_is_explained_without_its_password(where: str, found: str) -> None:
    for side in (StoreWriter, StoreReader):
        with pytest.raises(BrainUNetError, match=found) as caught:
            side(where)
        assert "hush" not in str(caught.value)
        assert "psycopg://" in str(caught.value)


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(
        ConfigError, match=r"fl@db/x: psycopg is not installed.*Install it: pip install 'brainunet-fl\[postgres\]'"
    ):
        StoreWriter("postgresql://fl:hush@db/x")


def test_the_store_needs_neither_torch_nor_flower() -> None:
    code = (
        "import sys, brainunet_server.store.reader, brainunet_server.store.writer\n"
        "print({'torch', 'flwr', 'grpc'} & set(sys.modules))"
    )
    homes = [Path(module.__file__ or "").parents[up] for module, up in ((brainunet, 1), (brainunet_server.store, 2))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, homes))}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout == "set()\n"


def test_every_row_type_is_frozen() -> None:
    for row in (RUN, ABSENT, SCORE, MODEL, SEEN):
        with pytest.raises(AttributeError):
            row.run_id = "other"  # type: ignore[union-attr, misc]
