"""What config.json keeps of a request: enough to resume, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainunet_sim.request import Request, save_request, saved_request
from brainunet_sim.scenario import SimulationConfig


def asked(out: Path, database: str | None) -> Request:
    return Request(run_id="run-1", out=out, config=SimulationConfig(), data=None, init="random", database=database)


@pytest.mark.parametrize(
    "database",
    [
        "postgresql://fl:s3cret@db.example/federation",
        "postgresql://fl:s3cret%2Fx@db.example/federation",
        "postgresql://fl:x/s3cret@db.example/federation",
        "postgresql://db.example/federation?user=fl&password=s3cret",
        "postgresql+psycopg://fl:s3cret[@db.example/federation",
    ],
)
def test_no_password_of_a_database_is_written_down(tmp_path: Path, database: str) -> None:
    save_request(asked(tmp_path, database))

    assert "s3cret" not in (tmp_path / "config.json").read_text()
    assert "db.example/federation" in str(saved_request(tmp_path).database)


@pytest.mark.parametrize("database", ["ours.sqlite", "sqlite:///ours.sqlite"])
def test_a_store_named_relative_to_here_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_request(asked(tmp_path, database))

    assert saved_request(tmp_path).database == f"sqlite:///{tmp_path / 'ours.sqlite'}"


def test_a_request_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    save_request(asked(tmp_path, None))

    assert saved_request(tmp_path) == asked(tmp_path, None)
