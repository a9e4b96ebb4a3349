"""Cases to simulate hospitals with, and a simulation that is over: made once for all files of tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from brainunet.data.phantom import write_phantoms
from brainunet_sim.cli import main as simulate
from tests.support.simulation import SHAPE, TINY, Arguments, run


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six phantoms, two of each of three centres; read, never written."""
    folder = tmp_path_factory.mktemp("data") / "cases"
    write_phantoms(folder, cases=6, style="ssa", seed=3, shape=SHAPE)
    return folder


@pytest.fixture(scope="session")
def two_cases_a_site(cases: Path) -> Arguments:
    return ("--data", cases, "--partition", "centre", "--seed", "5")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, two_cases_a_site: Arguments) -> Path:
    """The folder of a simulation over three centres and two rounds; read, never written."""
    out = tmp_path_factory.mktemp("finished") / "out"
    ended = run(simulate, *TINY, "--out", out, *two_cases_a_site)
    assert ended.code == 0, ended.err
    (out.parent / "said").write_text(json.dumps([ended.out, ended.err]))
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))
