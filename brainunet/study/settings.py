"""The settings of a training on one machine (``brainunet train``, ``crossval``), and the committed stages of the recipe."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from brainunet.config import ModelConfig, Positive, PreprocessConfig, TrainConfig, ValidationConfig
from brainunet.data.splits import SplitConfig
from brainunet.errors import UsageError
from brainunet.settings import Settings, nearest

_STAGES: Final = Path(__file__).with_name("stages")


class FitConfig(Settings):
    """One training from its start to its last model.

    Attributes:
        minutes: train for so long instead of for ``train.steps``; the schedule follows the clock, and only steps count, not the
            scoring in between. A training by the clock does not repeat to the bit.
        score_every: steps between two scorings of the validation cases; the last step is always followed by one.
        patience: end after so many scorings in a row without a better mean Dice; None goes on to the end. It may come before
            the whole cases that ``train.whole_share`` ends a training on.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    minutes: Positive | None = None
    score_every: Annotated[int, Field(ge=1)] = 200
    patience: Annotated[int, Field(ge=1)] | None = None
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig(preset="brainunet-lite")
    preprocess: PreprocessConfig = PreprocessConfig()
    train: TrainConfig = TrainConfig(steps=1000, schedule="cosine", warmup_steps=20, average_decay=0.99)
    validation: ValidationConfig = ValidationConfig()


def stage_names() -> list[str]:
    return sorted(path.stem for path in _STAGES.glob("*.toml"))


def stage_settings(name: str) -> dict[str, Any]:
    """The committed settings of a stage.

    Raises:
        UsageError: there is no such stage.
    """
    if name not in stage_names():
        raise UsageError("--stage", found=f"{name} ({nearest(name, stage_names())})", expected=" or ".join(stage_names()))
    return tomllib.loads((_STAGES / f"{name}.toml").read_text(encoding="utf-8"))
