"""Trainings of four steps, and a power cut in the middle of one."""

from __future__ import annotations

from typing import Any

from brainunet.config import TrainConfig
from brainunet.model import weights_of
from brainunet.training.loop import train
from brainunet.weights import Weights
from tests.support.nets import network
from tests.support.prepared import prepared_case

CASES = [prepared_case(seed=seed, tumour_at=(4 + seed, 8, 10)) for seed in range(2)]


def config(**numbers: Any) -> TrainConfig:
    return TrainConfig(**{"steps": 4, "patch": (16, 16, 16), "precision": "fp32", **numbers})


def trained(settings: TrainConfig, *, seed: int = 1, **options: Any) -> Weights:
    made = network()
    train(made, CASES, settings, seed=seed, **options)
    return weights_of(made)


class PowerCutError(Exception):
    """What a test raises in the middle of a training."""


def cut_after(step: int) -> Any:
    def on_step(done: int, loss: float) -> None:
        del loss
        if done == step:
            raise PowerCutError

    return on_step
