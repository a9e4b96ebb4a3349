"""Small networks with random weights for the engines, and what they are asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from brainunet.config import ModelConfig, PreprocessConfig
from brainunet.inference.segmenter import EngineOptions
from brainunet.inference.window import FloatArray
from brainunet.labels import DEFAULT_MODALITIES, Modality
from brainunet.model import build, weights_of
from brainunet.modelfile import ModelCard, write_model


def options(engine: Any, **more: Any) -> EngineOptions:
    return replace(EngineOptions(engine=engine), **more)


def random_model(folder: Path, modalities: tuple[Modality, ...] = DEFAULT_MODALITIES, norm: Any = "group") -> Path:
    config = ModelConfig(preset="brainunet-nano", norm=norm, modalities=modalities)
    card = ModelCard(title="random", model=config, preprocess=PreprocessConfig(), provenance="made up", trained_on="nothing")
    write_model(folder / "random.safetensors", weights_of(build(config, seed=5)), card)
    return folder / "random.safetensors"


def noise(*shape: int) -> FloatArray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)
