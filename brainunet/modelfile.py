"""A model in one file: safetensors with the weights, and the model card in its metadata. Never pickle.

The card says what the weights are, what they eat, where they come from and what they may be used for; the digest in it is
checked on every read.
"""

from __future__ import annotations

import json
import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
import safetensors
from pydantic import AwareDatetime, Field
from safetensors.numpy import save_file

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig, ValidationConfig, Way
from brainunet.errors import ConfigError
from brainunet.files import writing_aside
from brainunet.labels import Convention
from brainunet.records import Count, Name, PrivacySpend, Record, SiteScore
from brainunet.weights import Weights

MAX_MODEL_BYTES = 2_000_000_000
SIGNED_AS: Final = "model"  # the purpose that a signature beside a model file is made for (brainunet.signing)

_METADATA = "brainunet"
_STATISTICS = ("running_mean", "running_var")
_EXPECTED = "a BrainUNet model file (.safetensors with a model card)"

TrainedOn: TypeAlias = Literal["nothing", "phantoms", "real cases", "phantoms and real cases", "unknown"]


class Ancestor(Record):
    """The model that a federation began with, as its own card told it.

    Attributes:
        parent_sha256: digest of the weights that it was itself trained from, empty if it doesn't say.
        run: the run that made it, of a model that is federated itself; round: the round within it.
        release: its name, of a model that was published.
    """

    title: str
    weights_sha256: str
    trained_on: TrainedOn
    provenance: str
    parent_sha256: str = ""
    run: str = ""
    round: Annotated[int, Field(ge=0)] = 0
    release: str = ""


class SitePart(Record):
    """What one site gave to a federated model.

    Attributes:
        rounds: how many rounds' models have its training in them.
        cases_train: cases that it trained on, as it said in the last of them; cases_validation those it kept aside. None of
            a number that is too small to be told: the site's figures of these cases were withheld.
        withheld: it told no figures of this model, for it has too few validation cases.
    """

    rounds: Count
    cases_train: Count | None
    cases_validation: Count | None
    withheld: Annotated[bool, Field(strict=True)] = False


class Publication(Record):
    """What makes a model a published one: the part of its card that the coordinator adds.

    Attributes:
        name: of the release, once and for ever in its federation.
        federation: its name, for people.
        start: what round 0 was.
        sites: name -> what it gave; only those with training in the model.
    """

    name: Name
    federation: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\P{C}+$")]  # no control characters
    published_at: AwareDatetime
    start: Ancestor
    sites: dict[Name, SitePart]


class ModelCard(Record):
    """What is known about a model.

    Attributes:
        title: one line for people.
        model: architecture, preset, norm and the order of modalities.
        preprocess: the normalisation the weights were trained with.
        accepts_missing: how many modalities may be missing (0 everywhere), since training left out as many.
        scored_in: how the network was asked for its scores: in windows or in one pass over the brain. A prediction that nobody
            decided on goes the same way.
        convention: the label numbers of its output.
        provenance: how these weights came to be, in words.
        trained_on: what kind of data; "phantoms" marks weights that know no real brain.
        intended_use: what it may be used for, and its limits.
        notes: what else the next reader should know, in words.
        run: the run that made it, empty outside a federation; round: the round within it.
        parent_sha256: digest of the weights it was trained from.
        config_sha256: digest of the training configuration.
        scores: name of a site (or "all") -> figures of these weights on its validation cases.
        release: what a coordinator adds when it publishes the model; None of any other.
        spends: name of a site -> what the run has cost of its privacy until this round; none means no differential privacy.
    """

    format: Literal["brainunet-model-1"] = "brainunet-model-1"
    title: str
    model: ModelConfig
    preprocess: PreprocessConfig
    accepts_missing: Annotated[int, Field(ge=0, le=3)] = 0
    scored_in: Way = "windows"
    convention: Literal[Convention.BRATS2023] = Convention.BRATS2023
    provenance: str
    trained_on: TrainedOn
    intended_use: str = "Research only. Not a medical device; not for diagnosis or treatment."
    notes: str = ""
    run: str = ""
    round: Annotated[int, Field(ge=0)] = 0
    parent_sha256: str = ""
    config_sha256: str = ""
    scores: dict[str, SiteScore] = Field(default_factory=dict)
    spends: dict[str, PrivacySpend] = Field(default_factory=dict)
    made_at: datetime | None = None
    weights_sha256: str = ""
    release: Publication | None = None


def learned_in(train: TrainConfig, validation: ValidationConfig) -> dict[str, Any]:
    """What a card takes over from the settings that its weights were trained and scored by.

    >>> learned_in(TrainConfig(), ValidationConfig(window=None))
    {'accepts_missing': 0, 'scored_in': 'one-pass'}
    """
    return {"accepts_missing": train.augment.most_missing, "scored_in": validation.way}


def trained_on(before: TrainedOn, now: TrainedOn) -> TrainedOn:
    """What a model has seen after training on something, given what it had seen before.

    >>> trained_on("nothing", "phantoms"), trained_on("phantoms", "real cases"), trained_on("unknown", "real cases")
    ('phantoms', 'phantoms and real cases', 'unknown')
    """
    if before in ("nothing", now):
        return now
    return "unknown" if before == "unknown" else "phantoms and real cases"


def write_model(path: Path, weights: Weights, card: ModelCard) -> ModelCard:
    """Write the file whole or not at all; returns the card as written, with digest and date.

    A card that has a date keeps it, so that equal inputs can give equal bytes.

    Raises:
        BrainUNetError: disk full, or a folder that can't be written.
        ConfigError: weights with NaN or infinite values.
    """
    _require_finite(path, weights)
    made_at = card.made_at or datetime.now(UTC).replace(microsecond=0)
    card = card.model_copy(update={"weights_sha256": weights.digest, "made_at": made_at})
    # one entry only: safetensors writes several in random order, and then equal inputs would give unequal bytes
    metadata = {_METADATA: json.dumps({"names": weights.names, "card": card.model_dump(mode="json")})}
    with writing_aside(path) as aside:
        aside.touch()
        rights = stat.S_IMODE(aside.stat().st_mode)  # a new file's; safetensors gives its own, which are the owner's alone
        try:
            save_file({name: np.asarray(array, order="C") for name, array in weights.as_dict().items()}, aside, metadata)
        except safetensors.SafetensorError as error:  # a full disk, in its words: "... (os error 28)"
            number = re.search(r"\(os error (\d+)\)", str(error))
            raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))) from None
        aside.chmod(rights)
    return card


def read_model(path: Path) -> tuple[Weights, ModelCard]:
    """Weights and card of a file written by :func:`write_model`.

    Raises:
        ConfigError: missing, not a model file, damaged, a card of another format, or weights with NaN or infinite values.
    """
    try:
        about = path.stat()
        if stat.S_ISFIFO(about.st_mode) or about.st_size > MAX_MODEL_BYTES:  # opening a pipe waits for ever
            raise _not_a_model(path, f"{about.st_size} bytes" if about.st_size else "a pipe")
        with safetensors.safe_open(path, framework="numpy") as file:
            told: dict[str, Any] = json.loads((file.metadata() or {})[_METADATA])
            card = _card(path, told["card"])
            if sorted(told["names"]) != sorted(file.keys()):
                raise _not_a_model(path, "other arrays than it lists")
            if any(file.get_slice(name).get_dtype() != "F32" for name in file.keys()):  # noqa: SIM118 - not a mapping
                raise _not_a_model(path, "arrays that are not float32")
            layout = tuple((str(name), tuple(file.get_slice(name).get_shape())) for name in told["names"])
            weights = Weights.gathered(layout, (file.get_tensor(name) for name, _ in layout))
    except OSError as error:
        raise ConfigError(
            path,
            found=error.strerror or "not readable",
            expected=_EXPECTED,
            remedy="check that it is there and that you may read it",
        ) from None
    except safetensors.SafetensorError:
        raise _not_a_model(path, "a file that is damaged or no safetensors") from None
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        raise _not_a_model(path, "no model card") from None
    if weights.digest != card.weights_sha256:
        raise ConfigError(
            path,
            found="weights whose digest is not the one on the card",
            expected="unchanged weights",
            remedy="fetch the model again; do not use this file",
        )
    _require_finite(path, weights)
    return weights, card


def card_text(path: Path) -> str:
    """The model card of a file as JSON, without a look at the weights: :func:`read_model` finds out whether they are its own.

    Raises:
        ConfigError: missing, not a model file, or a card that is not valid.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            told: dict[str, Any] = json.loads((file.metadata() or {})[_METADATA])
            return _card(path, told["card"]).model_dump_json()
    except OSError as error:
        raise ConfigError(path, found=error.strerror or "not readable", expected=_EXPECTED) from None
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        raise _not_a_model(path, "no model card") from None


def parameter_count(weights: Weights) -> int:
    """How many numbers training changes by gradients: all but batch norm's running statistics.

    >>> parameter_count(Weights.of({"norm.weight": [1.0, 1.0], "norm.running_mean": [0.0, 0.0]}))
    2
    """
    return sum(array.size for name, array in weights.as_dict().items() if name.rpartition(".")[2] not in _STATISTICS)


def _card(path: Path, told: dict[str, Any]) -> ModelCard:
    known = ModelCard.model_fields["format"].default
    if told["format"] != known:
        raise ConfigError(
            path,
            found=f"a model card of format {str(told['format'])[:40]}",
            expected=known,
            remedy="update brainunet, or fetch a model made for this version",
        )
    return ModelCard.model_validate(told)


def _not_a_model(path: Path, found: str) -> ConfigError:
    return ConfigError(path, found=found, expected=_EXPECTED, remedy="fetch the model again")


def _require_finite(path: Path, weights: Weights) -> None:
    if not weights.is_finite():
        raise ConfigError(
            path, found="weights that are NaN or infinite", expected="finite weights", remedy="go back to an earlier model"
        )
