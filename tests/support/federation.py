"""A federation in a folder, and ``flower-server`` as a coordinator types it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from brainunet import chain
from brainunet_server.cli import main as flower_server
from brainunet_server.status import SiteState, Status
from tests.support.simulation import Ended, run

NAME, HOST = "Glioma Africa", "fl.example.org"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATUS = Status(
    pid=4242,
    state="running",
    message="1 of 2 sites has replied.",
    run="20260301-aaaa",
    round=3,
    rounds=30,
    round_started_at=NOW - timedelta(hours=1),
    deadline_at=NOW + timedelta(hours=11),
    min_sites=2,
    sites=(
        SiteState(name="north", state="working", last_seen=NOW, last_outcome="answered", client_version="0.1.0"),
        SiteState(name="south", state="never seen"),
    ),
    address="fl.example.org:8443",
    updated_at=NOW - timedelta(seconds=5),
)


def serve(*arguments: str | Path) -> Ended:
    return run(flower_server, *arguments)


def done(*arguments: str | Path) -> str:
    """What a command that went well said."""
    ended = serve(*arguments)
    assert ended.code == 0, ended.err
    return ended.out


def told(*arguments: str | Path) -> Any:
    return json.loads(done(*arguments, "--json"))


def refused(code: int, *arguments: str | Path) -> str:
    """The one line that a command which did nothing said."""
    ended = serve(*arguments)
    assert (ended.code, ended.out) == (code, ""), ended
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    return ended.err


def init(folder: Path, *arguments: str | Path) -> str:
    return done("init", folder, "--name", NAME, "--host", HOST, *arguments)


def kinds(folder: Path) -> list[str]:
    return [entry.kind for entry in chain.entries(folder / "audit.jsonl")]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the empty locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".roster.json.lock", "lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
