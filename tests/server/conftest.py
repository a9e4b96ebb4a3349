"""A federation that has begun, and hospitals that ask to join it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from brainunet.certificates import make_request, new_site_key
from brainunet.starter import STARTER
from tests.support.federation import init
from tests.support.published import complete_run


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation with a start model and no site; read, never written."""
    folder = tmp_path_factory.mktemp("founded") / "fed"
    init(folder, "--host", "10.0.0.5", "--model", STARTER)
    return folder


@pytest.fixture
def fed(founded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(founded, tmp_path / "fed"))


@pytest.fixture(scope="session")
def keys() -> dict[str, ec.EllipticCurvePrivateKey]:
    return {name: new_site_key() for name in ("north", "south", "north again")}


@pytest.fixture
def requests(tmp_path: Path, keys: dict[str, ec.EllipticCurvePrivateKey]) -> dict[str, Path]:
    paths = {}
    for name, key in keys.items():
        paths[name] = tmp_path / f"{name.replace(' ', '-')}.csr"
        paths[name].write_bytes(make_request(key, name.partition(" ")[0]))
    return paths


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    return tmp_path / "kit.json"


@pytest.fixture(scope="session")
def ran(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The federation after a run of a few rounds; read, never written."""
    folder = Path(shutil.copytree(founded, tmp_path_factory.mktemp("ran") / "fed"))
    complete_run(folder)
    return folder


@pytest.fixture
def trained(ran: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "fed"))
