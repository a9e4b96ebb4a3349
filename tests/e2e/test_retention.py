"""A served federation's folder does not grow with its rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from brainunet.modelfile import read_model
from brainunet.signing import verify_file
from brainunet_server.start_model import PURPOSE
from tests.support.running import Federation

pytestmark = pytest.mark.slow


def test_after_its_rounds_a_run_has_its_last_and_best_models_signed_and_a_row_of_every_one(
    phantoms: Callable[[int], Path], new_federation: Callable[..., Federation]
) -> None:
    federation = new_federation(rounds__min_sites="1", rounds__count="4", rounds__keep_every="0")
    federation.enrol("CRV")
    server = federation.serve()
    federation.join("CRV", phantoms(1))
    federation.wait_completed(server, 240)

    with federation.store() as store:
        rows = store.models(federation.run_id)
    there = {model.round for model in rows if model.removed_at is None}
    assert [model.round for model in rows] == [0, 1, 2, 3, 4]
    assert {3, 4} <= there
    assert len(there) <= 4
    folder = federation.folder.models / federation.run_id
    files = {path.name for path in folder.glob("*.safetensors")}
    assert {federation.model_file(number).name for number in there} | {
        "best.safetensors",
        "best-worst-site.safetensors",
    } == files
    assert {path.name.removesuffix(".sig") for path in folder.glob("*.sig")} == files
    for name in files:
        verify_file(folder / name, federation.signing_key.public, PURPOSE)
    assert read_model(folder / "best.safetensors")[1].round in there
