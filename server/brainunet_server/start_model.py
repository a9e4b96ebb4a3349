"""The model that a run starts from: checked as far as that goes without torch, copied and signed.

Whether the weights are those of the network on the card is seen by the first site that loads them (its fault says
``model_does_not_fit``): only torch knows a network's arrays, and the coordinator does without it.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from brainunet.errors import ConfigError
from brainunet.modelfile import SIGNED_AS, ModelCard, read_model
from brainunet.presets import BASELINES, WIDTHS
from brainunet.settings import nearest
from brainunet.signing import PublicKey, SigningKey, sign_file, verify_file
from brainunet.weights import Weights

PURPOSE = SIGNED_AS


def read_start_model(path: Path) -> tuple[Weights, ModelCard]:
    """A model that every site of this version can load.

    Raises:
        ConfigError: not a model file, damaged, or of a preset that this version does not know or sites can't build.
    """
    weights, card = read_model(path)
    if card.model.preset in BASELINES:
        raise ConfigError(
            path,
            found=f"the preset {card.model.preset}, a baseline for comparisons, whose package hospitals don't have",
            expected=f"one of {', '.join(WIDTHS)}",
            remedy="compare on one machine (benchmarks/baselines.py), and federate a network of ours",
        )
    if card.model.preset not in WIDTHS:
        found = f"the preset {card.model.preset} is not known ({nearest(card.model.preset, WIDTHS)})"
        raise ConfigError(path, found=found, remedy="update brainunet here and at the sites, or take another model")
    return weights, card


def signed_start_model(path: Path, key: PublicKey, *, demo: bool) -> tuple[Weights, ModelCard]:
    """The model of round 0, as it was signed when it was set.

    Raises:
        ConfigError: none, not as it was signed, or one that knows no real brain, without ``demo``.
    """
    if not path.exists():
        raise ConfigError(
            str(path.parent),
            found="no start model",
            expected="the pretrained model that the run begins with",
            remedy=f"set it: flower-server init {path.parent} --name NAME --host HOST --model MODEL.safetensors",
        )
    verify_file(path, key, PURPOSE)
    weights, card = read_start_model(path)
    if card.trained_on == "phantoms" and not demo:
        raise ConfigError(
            path,
            found="a model that was trained on made-up brains",
            expected="one pretrained on real cases",
            remedy=f"set another (flower-server init {path.parent} --name NAME --host HOST --model MODEL), "
            "or say --demo: all that is made from it will say so",
        )
    return weights, card


def stage_start_model(model: Path, staged: Path, key: SigningKey) -> None:
    """Copy ``model`` to ``staged`` and sign the copy, beside it."""
    shutil.copyfile(model, staged)
    sign_file(staged, key, PURPOSE)


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
