"""A hospital with made-up cases, made once for all files of tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from brainunet_client.site import Site
from tests.support.sites import made_up_site


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return made_up_site(tmp_path_factory.mktemp("hospital"))


@pytest.fixture
def site(hospital: Site, tmp_path: Path) -> Site:
    """The hospital's cases with a work folder of the test's own."""
    return replace(hospital, work=tmp_path / "work")
