"""``brainunet-client`` as it is typed at a hospital: a desk to stand at, a home, and a kit that came back.

Tests import the fixtures that they need.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from brainunet_client.cli import main as brainunet_client
from brainunet_client.home import Home
from tests.support.coordinator import SERVER, coordinator
from tests.support.simulation import Ended, run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """The home named by the environment; the current folder is the desk of whoever types."""
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("BRAINUNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    before = os.umask(0o022)  # a site closes what it writes to others, which must not last for the tests that come after it
    os.umask(before)
    yield Home(tmp_path / "home")
    os.umask(before)


@pytest.fixture
def kit(home: Home) -> Path:
    """The kit that came back for an enrolled site."""
    assert run(brainunet_client, "--enrol", "lagos", "--server", SERVER).code == 0
    path = Path("lagos.kit")
    path.write_bytes(coordinator().kit(Path("lagos.request").read_bytes()))
    return path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def install(kit: Path, typed: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> Ended:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    return run(brainunet_client, "--kit", kit, *more)
