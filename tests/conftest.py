"""What every test runs under, so that a busy machine changes only how long it takes."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.postgres import postgres_server, postgres_url
from tests.support.zones import machine_in

# Fixtures of a whole session are named in a conftest: one that test files import is a fixture of its own in each of them.
__all__ = ["postgres_server", "postgres_url"]

# One thread: on networks and images this small more threads wait for each other, far longer when the machine is busy. Before
# torch is imported, and passed on to the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("no deadline", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)  # for a gate: one commit, one answer
settings.register_profile("quick", deadline=None, max_examples=25)  # for `make check`; `make test` takes all
settings.load_profile("no deadline")


def pytest_collection_finish() -> None:
    """What importing all tests has made stays to the end: the collector need not go over it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def _at_greenwich() -> Iterator[None]:
    """Hours that a test spells out are those of UTC, wherever the tests run."""
    with machine_in("UTC"):
        yield
