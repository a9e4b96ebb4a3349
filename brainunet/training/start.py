"""The model that a training or a simulation starts from: a model file, or random weights of a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainunet.config import ModelConfig, PreprocessConfig
from brainunet.errors import ConfigError
from brainunet.model import build, weights_of
from brainunet.modelfile import ModelCard, read_model
from brainunet.training.seeds import derive
from brainunet.weights import Weights


def settings_of_model(path: Path | None) -> dict[str, Any]:
    """The network and normalisation that the card of a model file names; nothing for random weights.

    Raises:
        ConfigError: not a model file.
    """
    if path is None:
        return {}
    _, card = read_model(path)
    return {"model": card.model.model_dump(mode="json"), "preprocess": card.preprocess.model_dump(mode="json")}


def starting_model(path: Path | None, model: ModelConfig, preprocess: PreprocessConfig, seed: int) -> tuple[Weights, ModelCard]:
    """Weights and card of a model file, or random weights of ``seed`` where there is none.

    Raises:
        ConfigError: not a model file, or one whose card names another network or normalisation than the settings.
    """
    if path is None:
        card = ModelCard(
            title=f"{model.preset}, random weights",
            model=model,
            preprocess=preprocess,
            provenance=f"random weights of seed {seed}",
            trained_on="nothing",
        )
        weights = weights_of(build(model, seed=derive(seed, "weights")))
        return weights, card.model_copy(update={"weights_sha256": weights.digest})
    weights, card = read_model(path)
    for group, asked in (("model", model), ("preprocess", preprocess)):
        told = getattr(card, group)
        for field in type(asked).model_fields:
            if getattr(told, field) != getattr(asked, field):
                raise ConfigError(
                    path,
                    found=f"{group}.{field} = {_words(getattr(told, field))}",
                    expected=f"{_words(getattr(asked, field))}, as the settings say",
                    remedy="drop the setting (the model's own is used), or start from --init random",
                )
    return weights, card


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
