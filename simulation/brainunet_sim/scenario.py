"""What a simulation is: the settings that decide its figures, and nothing about where its files lie."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from brainunet.config import ModelConfig, PreprocessConfig, StrategyConfig, TrainConfig, ValidationConfig
from brainunet.settings import Settings
from brainunet_server.any_run import AnyRun

Side = Annotated[int, Field(ge=32, le=256)]


class PhantomConfig(Settings):
    """Cases to make up when there is no data folder."""

    cases: Annotated[int, Field(ge=2, le=150)] = 24
    style: Literal["gli", "ssa"] = "ssa"
    shape: tuple[Side, Side, Side] = (80, 80, 80)
    seed: Annotated[int, Field(ge=0)] = 11


class PartitionConfig(Settings):
    """A line of PARTITIONS; ``alpha`` is Dirichlet's alone: small means sites that differ much."""

    name: str = "iid"
    alpha: Annotated[float, Field(gt=0, le=1000)] = 0.5


class SimulationConfig(AnyRun):
    """The settings of ``brainunet-simulate``; ``model`` and ``preprocess`` follow the card of the model it starts from."""

    sites: Annotated[int, Field(ge=1, le=1000)] | None = None
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 5
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    baseline: Literal["none", "local"] = "none"
    partition: PartitionConfig = PartitionConfig()
    strategy: StrategyConfig = StrategyConfig()
    model: ModelConfig = ModelConfig(preset="brainunet-nano")
    preprocess: PreprocessConfig = PreprocessConfig()
    train: TrainConfig = TrainConfig(patch=(48, 48, 48))
    validation: ValidationConfig = ValidationConfig()
    phantom: PhantomConfig | None = None

    @model_validator(mode="after")
    def _cases_are_hidden_one_by_one(self) -> SimulationConfig:
        if self.privacy is not None and self.model.norm == "batch":
            raise ValueError('privacy needs model.norm = "group": in batch norm the cases of a batch change each other')
        return self
