"""A PostgreSQL server that tests can stop and start."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import START_S, _programs, _unprivileged, _wait_for


class Server:
    """A PostgreSQL server in ``folder`` that can be stopped and started."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs, self._account = folder, programs, _unprivileged(folder)
        data = ["-D", str(folder / "data")]
        make = [f"{programs}/initdb", *data, "-U", "tester", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **self._account)
        self._serve = [f"{programs}/postgres", *data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        self.start()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                self._serve, stdout=log, stderr=log, cwd=self._folder, **self._account
            )
        _wait_for(self._process, self._folder)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """By SIGINT in order, by SIGQUIT as if it had crashed."""
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(START_S)

    def run(self, statement: str, *values: Any) -> None:
        import psycopg

        with psycopg.connect(host=str(self._folder), user="tester", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode(), values)

    def new_url(self) -> str:
        """Of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://tester@/{name}?host={self._folder}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs = _programs()
    if programs is None or find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL to start on this machine")
    folder = Path(tempfile.mkdtemp(prefix="brainunet-pg-"))
    try:
        server = Server(folder, programs)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
