"""The model that a run starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from brainunet.errors import ConfigError
from brainunet.model import ARCHITECTURES
from brainunet.modelfile import read_model, write_model
from brainunet.presets import BASELINES, WIDTHS
from brainunet.signing import SigningKey, new_signing_key
from brainunet.starter import STARTER
from brainunet_server.start_model import read_start_model, signed_start_model, stage_start_model


@pytest.fixture
def key() -> SigningKey:
    return new_signing_key()


@pytest.fixture
def staged(tmp_path: Path, key: SigningKey) -> Path:
    stage_start_model(STARTER, tmp_path / "start.safetensors", key)
    return tmp_path / "start.safetensors"


def test_every_network_that_can_be_built_is_known_without_torch() -> None:
    assert {*WIDTHS, *BASELINES} == set(ARCHITECTURES)


def test_a_baseline_is_no_model_for_hospitals(tmp_path: Path) -> None:
    weights, card = read_model(STARTER)
    model = card.model.model_copy(update={"preset": "nnunet-plain", "norm": "instance"})
    write_model(tmp_path / "baseline.safetensors", weights, card.model_copy(update={"model": model}))

    with pytest.raises(ConfigError, match=r"a baseline for comparisons.*one of brainunet, .*federate a network of ours"):
        read_start_model(tmp_path / "baseline.safetensors")


def test_the_starter_is_a_start_model() -> None:
    assert read_start_model(STARTER)[1].model.preset == "brainunet-nano"


def test_a_preset_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    weights, card = read_model(STARTER)
    model = card.model.model_copy(update={"preset": "brainunet-nan"})
    write_model(tmp_path / "odd.safetensors", weights, card.model_copy(update={"model": model}))

    with pytest.raises(ConfigError, match=r"the preset brainunet-nan is not known \(did you mean brainunet-nano\?\)"):
        read_start_model(tmp_path / "odd.safetensors")


def test_a_model_that_was_signed_here_is_taken(staged: Path, key: SigningKey) -> None:
    assert signed_start_model(staged, key.public, demo=True)[1].trained_on == "phantoms"


def test_a_model_that_knows_only_phantoms_needs_to_be_called_a_demonstration(staged: Path, key: SigningKey) -> None:
    with pytest.raises(ConfigError, match=r"made-up brains.*--demo"):
        signed_start_model(staged, key.public, demo=False)


def test_without_a_model_nothing_starts(tmp_path: Path, key: SigningKey) -> None:
    with pytest.raises(ConfigError, match=r"no start model.*flower-server init"):
        signed_start_model(tmp_path / "start.safetensors", key.public, demo=True)


def test_a_model_that_was_exchanged_after_signing_is_refused(staged: Path, key: SigningKey) -> None:
    weights, card = read_model(staged)
    write_model(staged, weights.plus(weights), card)

    with pytest.raises(ConfigError):
        signed_start_model(staged, key.public, demo=True)


def test_a_model_that_someone_else_signed_is_refused(staged: Path) -> None:
    with pytest.raises(ConfigError):
        signed_start_model(staged, new_signing_key().public, demo=True)
