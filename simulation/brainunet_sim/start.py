"""The model that a simulation starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainunet.errors import ConfigError
from brainunet.model import build, weights_of
from brainunet.modelfile import ModelCard, read_model
from brainunet.starter import STARTER
from brainunet.training.seeds import derive
from brainunet.weights import Weights
from brainunet_sim.request import RANDOM, STARTER_NAME
from brainunet_sim.scenario import SimulationConfig


def settings_of_model(init: str) -> dict[str, Any]:
    """The network and normalisation that the card of ``init`` names; nothing for random weights.

    Raises:
        ConfigError: not a model file.
    """
    if init == RANDOM:
        return {}
    _, card = read_model(_file_of(init))
    return {"model": card.model.model_dump(mode="json"), "preprocess": card.preprocess.model_dump(mode="json")}


def starting_model(init: str, config: SimulationConfig) -> tuple[Weights, ModelCard]:
    """The model of round 0: from a file, the shipped starter, or random weights of the run's seed.

    Raises:
        ConfigError: not a model file, or one whose card names another network or normalisation than the settings.
    """
    if init == RANDOM:
        card = ModelCard(
            title=f"{config.model.preset}, random weights",
            model=config.model,
            preprocess=config.preprocess,
            provenance=f"random weights of seed {config.seed}",
            trained_on="nothing",
        )
        weights = weights_of(build(config.model, seed=derive(config.seed, "weights")))
        return weights, card.model_copy(update={"weights_sha256": weights.digest})
    path = _file_of(init)
    weights, card = read_model(path)
    for field in ("model", "preprocess"):
        if getattr(card, field) != getattr(config, field):
            raise ConfigError(
                path,
                found=f"{field} {getattr(card, field).model_dump(mode='json')}",
                expected=f"{getattr(config, field).model_dump(mode='json')}, as the settings say",
                remedy="drop the setting (the model's own is used), or start from --init random",
            )
    return weights, card


def _file_of(init: str) -> Path:
    return STARTER if init == STARTER_NAME else Path(init)
