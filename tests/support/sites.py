"""A hospital with a few made-up cases, and the tasks that it gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainunet.config import ModelConfig, PreprocessConfig, TrainConfig
from brainunet.data.cache import CaseCache
from brainunet.data.cases import find_cases
from brainunet.data.phantom import write_phantoms
from brainunet.records import EvaluateTask, TrainTask
from brainunet.weights import Weights
from brainunet_client.site import Site

NANO = ModelConfig(preset="brainunet-nano")


def made_up_site(folder: Path, *, train: int = 2, validation: int = 1, seed: int = 0) -> Site:
    """A site "CRV" whose last cases are for validation; everything it writes is below ``folder``."""
    write_phantoms(folder / "cases", cases=train + validation, style="gli", seed=seed, shape=(32, 36, 32), centres=("CRV",))
    cases = find_cases(folder / "cases").cases
    return Site.of(
        "CRV",
        cases,
        {case.case_id: "train" if i < train else "validation" for i, case in enumerate(cases)},
        CaseCache(folder / "cache"),
        folder / "work",
    )


def train_task(weights: Weights, **changes: Any) -> TrainTask:
    """Two steps on small patches; ``changes`` are the task's fields, and ``steps`` or others of its training."""
    train = {"steps": 2, "patch": (16, 16, 16), "precision": "fp32"} | {
        name: changes.pop(name) for name in TrainConfig.model_fields if name in changes
    }
    fields: dict[str, Any] = {
        "run": "glioma-1",
        "round": 3,
        "model": NANO,
        "preprocess": PreprocessConfig(),
        "demo": True,  # its cases are made up
        "train": TrainConfig(**train),
        "seed": 7,
        "weights": weights,
    }
    return TrainTask(**fields | changes)


def evaluate_task(weights: Weights, **changes: Any) -> EvaluateTask:
    fields: dict[str, Any] = {
        "run": "glioma-1",
        "round": 4,
        "model": NANO,
        "preprocess": PreprocessConfig(),
        "demo": True,  # its cases are made up
        "weights": weights,
    }
    return EvaluateTask(**fields | changes)
