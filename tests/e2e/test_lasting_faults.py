"""A federation whose settings no site can follow ends at once, and says what to change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.running import Federation

pytestmark = pytest.mark.slow


def test_a_loss_that_no_site_knows_ends_the_run_as_a_mistake_of_the_settings(
    phantoms: Callable[[int], Path], new_federation: Callable[..., Federation]
) -> None:
    federation = new_federation(rounds__min_sites="1", train__loss__name="tverski")
    federation.enrol("CRV")
    server = federation.serve()
    federation.join("CRV", phantoms(1))

    assert server.process.wait(120) == 4, federation.logs()

    assert "round 1: every site that answered has a fault that no waiting mends" in server.said
    assert "(model_does_not_fit: CRV)" in server.said
    assert "Correct train.loss.name" in server.said
    assert federation.status()["status"]["state"] == "failed"
    assert [entry.data["reason"] for entry in federation.audit("reply-refused")] == ["model_does_not_fit"]
