"""A throw-away PostgreSQL server for tests: made in a temporary folder, reached by a socket there, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

START_S = 30.0


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Path]:
    """The folder of a running server's socket; skips where there is no PostgreSQL to start."""
    if find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    programs = _programs()
    if programs is None:
        pytest.skip("no initdb on this machine")
    # Not tmp_path: its parents are closed to other users, and PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="brainunet-pg-"))
    account = _unprivileged(folder)
    try:
        data = str(folder / "data")
        make = [f"{programs}/initdb", "-D", data, "-U", "tester", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **account)
        serve = [f"{programs}/postgres", "-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        with (folder / "log").open("wb") as log:
            server: subprocess.Popen[bytes] = subprocess.Popen(serve, stdout=log, stderr=log, cwd=folder, **account)
        try:
            _wait_for(server, folder)
            yield folder
        finally:
            server.send_signal(signal.SIGQUIT)  # "immediate": nothing of it is needed again, so nothing is put in order
            server.wait(START_S)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: Path) -> str:
    """The URL of a new, empty database."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(host=str(postgres_server), user="tester", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql+psycopg://tester@/{name}?host={postgres_server}"


def _programs() -> Path | None:
    """The folder of initdb and postgres; Debian keeps them off the PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in debian), key=lambda path: float(path.parent.name), default=None)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """How to run a program as somebody else than root, with the folder made theirs; as we are, if we're not root."""
    if os.geteuid() != 0:
        return {}
    shutil.chown(folder, "nobody")
    return {"user": "nobody", "extra_groups": []}


def _wait_for(server: subprocess.Popen[bytes], folder: Path) -> None:
    import psycopg

    until = time.monotonic() + START_S
    while True:
        try:
            psycopg.connect(host=str(folder), user="tester", dbname="postgres").close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > until:
                pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()}")
            time.sleep(0.1)
        else:
            return
