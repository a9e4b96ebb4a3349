"""``--check`` of a site that has joined, or is about to."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from brainunet.certificates import new_site_key, write_site_key
from brainunet.labels import Modality
from brainunet_client.home import Home, open_home
from brainunet_client.preflight import Check, run_checks
from tests.support.cases import head, write_case
from tests.support.health import Federation, no_proxy

SETTINGS = 'min_cases = 1\npurpose = "segmentation"\nlegal_basis = "vote 12"\n'


@pytest.fixture(autouse=True)
def _nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names have no address, so that no check waits for a network; a test that serves uses 127.0.0.1."""
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host != "127.0.0.1":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    no_proxy(monkeypatch)


@pytest.fixture
def home(tmp_path: Path, federation: Federation) -> Home:
    """A site that has joined, but whose server's name has no address."""
    return joined(tmp_path / "home", federation, "fl.example.org:8443")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten cases that can be used, each with images of its own."""
    for number in range(10):
        images = {m.value: head(seed=10 * number + i) for i, m in enumerate(Modality)}
        write_case(tmp_path / "data", case_id(number), images=images)
    return tmp_path / "data"


def case_id(number: int) -> str:
    return f"BraTS-SSA-{number:05d}-000"


def joined(path: Path, federation: Federation, server: str, **kit: Any) -> Home:
    home, key = open_home(path), new_site_key()
    write_site_key(home.key, key)
    home.kit.write_bytes(federation.sealed(federation.kit(server, key, **kit)))
    home.settings.write_text(SETTINGS)
    return home


def look(home: Home, data: Path | None = None, **options: Any) -> dict[str, Check]:
    return {check.name: check for check in run_checks(home, data, **options)}


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.outcome == "FAIL"}
