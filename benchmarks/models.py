"""Model files to measure with."""

from __future__ import annotations

from pathlib import Path

from brainunet.config import ModelConfig
from brainunet.model import build, weights_of
from brainunet.modelfile import ModelCard, read_model, write_model
from brainunet.starter import STARTER


def random_model(path: Path, preset: str) -> int:
    """A model file of random weights; gives their bytes."""
    weights = weights_of(build(ModelConfig(preset=preset)))
    _, card = read_model(STARTER)
    made = {"model": ModelConfig(preset=preset), "trained_on": "nothing", "title": "random", "weights_sha256": ""}
    write_model(path, weights, ModelCard.model_validate(card.model_dump() | made))
    return weights.n_bytes
