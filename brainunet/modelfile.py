"""A model in one file: safetensors with the weights, and the model card in its metadata. Never pickle.

The card says what the weights are, what they eat, where they come from and what they may be used for; the digest in it is
checked on every read.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import safetensors
from pydantic import Field, ValidationError
from safetensors.numpy import save

from brainunet.config import ModelConfig, PreprocessConfig
from brainunet.errors import ConfigError
from brainunet.files import writing_aside
from brainunet.labels import Convention
from brainunet.records import Record, SiteScore
from brainunet.weights import Weights

MAX_MODEL_BYTES = 2_000_000_000


class ModelCard(Record):
    """What is known about a model.

    Attributes:
        title: one line for people.
        model: architecture, preset, norm and the order of modalities.
        preprocess: the normalisation the weights were trained with.
        convention: the label numbers of its output.
        provenance: how these weights came to be, in words.
        trained_on: what kind of data; "phantoms" marks weights that know no real brain.
        intended_use: what it may be used for, and its limits.
        run: the run that made it, empty outside a federation; round: the round within it.
        parent_sha256: digest of the weights it was trained from.
        config_sha256: digest of the training configuration.
        scores: name of a site (or "all") -> figures of these weights on its validation cases.
    """

    format: Literal["brainunet-model-1"] = "brainunet-model-1"
    title: str
    model: ModelConfig
    preprocess: PreprocessConfig
    convention: Literal[Convention.BRATS2023] = Convention.BRATS2023
    provenance: str
    trained_on: Literal["nothing", "phantoms", "real cases", "phantoms and real cases", "unknown"]
    intended_use: str = "Research only. Not a medical device; not for diagnosis or treatment."
    run: str = ""
    round: Annotated[int, Field(ge=0)] = 0
    parent_sha256: str = ""
    config_sha256: str = ""
    scores: dict[str, SiteScore] = Field(default_factory=dict)
    made_at: datetime | None = None
    weights_sha256: str = ""


def write_model(path: Path, weights: Weights, card: ModelCard) -> ModelCard:
    """Write the file whole or not at all; returns the card as written, with digest and date.

    A card that has a date keeps it, so that equal inputs can give equal bytes.

    Raises:
        BrainUNetError: disk full, or a folder that can't be written.
        ConfigError: weights with NaN or infinite values.
    """
    if not weights.is_finite():
        raise ConfigError(path, found="weights that are NaN or infinite", expected="finite weights")
    made_at = card.made_at or datetime.now(UTC).replace(microsecond=0)
    card = card.model_copy(update={"weights_sha256": weights.digest, "made_at": made_at})
    metadata = {"card": card.model_dump_json(), "names": json.dumps(weights.names)}
    with writing_aside(path) as aside:
        aside.write_bytes(save({k: np.ascontiguousarray(v) for k, v in weights.as_dict().items()}, metadata))
    return card


def read_model(path: Path) -> tuple[Weights, ModelCard]:
    """Weights and card of a file written by :func:`write_model`.

    Raises:
        ConfigError: missing, not a model file, damaged, or a card of another format.
    """
    expected = "a BrainUNet model file (.safetensors with a model card)"
    try:
        if path.stat().st_size > MAX_MODEL_BYTES:
            raise ConfigError(path, found=f"{path.stat().st_size} bytes", expected=f"at most {MAX_MODEL_BYTES}")
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            names = json.loads(metadata["names"])
            card = ModelCard.model_validate_json(metadata["card"])
            if sorted(names) != sorted(file.keys()):
                raise ConfigError(path, found="other arrays than it lists", expected=expected)
            weights = Weights.of({name: file.get_tensor(name) for name in names})
    except OSError as error:
        raise ConfigError(path, found=error.strerror or "not readable", expected=expected) from None
    except (safetensors.SafetensorError, KeyError, TypeError, ValidationError, json.JSONDecodeError) as error:
        reason = "a damaged file" if isinstance(error, safetensors.SafetensorError) else "no model card of this format"
        raise ConfigError(path, found=reason, expected=expected, remedy="fetch the model again") from None
    if weights.digest != card.weights_sha256:
        raise ConfigError(
            path,
            found="weights whose digest is not the one on the card",
            expected="unchanged weights",
            remedy="fetch the model again; do not use this file",
        )
    return weights, card
