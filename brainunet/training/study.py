"""From a folder of cases to model files: the split, the training, its curves, and the cards of what it made."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn

from brainunet import __version__
from brainunet.config import sha256_of
from brainunet.data.cache import CaseCache
from brainunet.data.preprocess import PreparedCase
from brainunet.data.usable import UsableCases
from brainunet.errors import ConfigError
from brainunet.files import writing_aside
from brainunet.folders import FolderKind
from brainunet.model import build, set_weights, weights_of
from brainunet.modelfile import ModelCard, trained_on, write_model
from brainunet.training.checkpoint import Checkpoint
from brainunet.training.fit import Fitted, Moment, Scored, fit
from brainunet.training.loop import learning_rate_at
from brainunet.training.settings import FitConfig
from brainunet.training.start import starting_model

STUDY: Final = FolderKind(
    what="training",
    marks=frozenset({"training", "config_sha256"}),
    begun="training.ckpt",
    made_here=(
        *("training.ckpt", "split.json", "summary.json", "loss.csv", "scores.csv", "curves.png", "cache"),
        *("best.safetensors", "last.safetensors"),
    ),
)
_REGIONS: Final = ("ET", "TC", "WT")


@dataclass(frozen=True)
class Split:
    """Case ids on two sides; no patient on both."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """One training to do: everything that decides its result, and where it goes.

    Attributes:
        init: model file to start from; None starts from random weights of the seed.
        on_phantoms: whether the cases are made up, which the card must say.
    """

    out: Path
    config: FitConfig
    split: Split
    init: Path | None = None
    on_phantoms: bool = False


def run_study(
    study: Study,
    usable: UsableCases,
    cache: CaseCache,
    on_step: Callable[[int, float, float], None] = lambda step, loss, share: None,
    on_scored: Callable[[Scored], None] = lambda scored: None,
) -> dict[str, Any]:
    """Train (or go on) and leave models, curves and summary in the study's folder; returns the summary.

    Args:
        on_step: told steps done, the last loss, and the share that is done.

    Raises:
        ConfigError: an unusable model or settings; see :func:`~brainunet.training.fit.fit`.
    """
    config, out = study.config, study.out
    gone = sorted({*study.split.train, *study.split.validation} - set(usable.cases))
    if gone:
        raise ConfigError(out, found=f"case {gone[0]} of the split, which the data does not have", expected="all its cases")
    weights, before = starting_model(study.init, config.model, config.preprocess, config.seed)
    network = build(config.model)
    set_weights(network, weights)
    card = _card(study, before)

    def prepared(case_ids: Sequence[str]) -> list[PreparedCase]:
        return [cache.get(usable.cases[case], config.model.modalities, config.preprocess) for case in case_ids]

    def keep(moment: Moment) -> None:
        _keep_model(out / "last.safetensors", moment, card)
        if moment.is_best:
            _keep_model(out / "best.safetensors", moment, card)
        on_scored(moment.scored)

    purpose = f"{__version__} {sha256_of(config)} {before.weights_sha256} {' '.join(study.split.train)}"
    fitted = fit(
        network,
        prepared(study.split.train),
        prepared(study.split.validation),
        config,
        checkpoint=Checkpoint(out / "training.ckpt", purpose, every_steps=50),
        on_step=lambda training, share: on_step(training.done, training.losses[-1], share),
        on_scored=keep,
    )
    _write_curves(out, fitted, config)
    summary = _summary(study, fitted, before, usable)
    with writing_aside(out / "summary.json") as aside:
        aside.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _card(study: Study, before: ModelCard) -> ModelCard:
    config = study.config
    data = "phantoms" if study.on_phantoms else "real cases"
    return ModelCard(
        title=f"{config.model.preset}, trained on {len(study.split.train)} {data}",
        model=config.model,
        preprocess=config.preprocess,
        provenance=f"trained on {len(study.split.train)} {data}, from: {before.provenance}",
        trained_on=trained_on(before.trained_on, study.on_phantoms),
        parent_sha256=before.weights_sha256,
        config_sha256=sha256_of(config),
    )


def _keep_model(path: Path, moment: Moment, card: ModelCard) -> None:
    told = {
        "scores": {"validation": moment.scored.score} if moment.scored.score.cases else {},
        "title": f"{card.title}, step {moment.scored.step}",
    }
    write_model(path, weights_of(moment.network), card.model_copy(update=told))


def _write_curves(out: Path, fitted: Fitted, config: FitConfig) -> None:
    by_clock = config.minutes is not None
    with writing_aside(out / "loss.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss", "learning_rate"])
        for step, loss in enumerate(fitted.losses):
            share = step / len(fitted.losses) if by_clock else None
            rows.writerow([step + 1, loss, learning_rate_at(step, config.train, share)])
    with writing_aside(out / "scores.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "seconds", "region", "metric", "mean", "median", "n", "missing"])
        for scored in fitted.scores:
            for row in scored.score.rows:
                figures = [row.structure, row.metric, row.mean, row.median, row.n, row.missing]
                rows.writerow([scored.step, round(scored.seconds, 1), *figures])


def _summary(study: Study, fitted: Fitted, before: ModelCard, usable: UsableCases) -> dict[str, Any]:
    def told(scored: Scored) -> dict[str, Any]:
        return {"step": scored.step, "seconds": round(scored.seconds, 1), "dice": dice_of(scored)}

    best = max(fitted.scores, key=lambda scored: scored.mean_dice or -1.0)
    return {
        "steps": len(fitted.losses),
        "seconds": round(fitted.scores[-1].seconds, 1),
        "ended_by": fitted.ended_by,
        "train_cases": len(study.split.train),
        "validation_cases": len(study.split.validation),
        "start": before.title,
        "last": told(fitted.scores[-1]),
        "best": told(best) if best.mean_dice is not None else None,
        "loss": sum(fitted.losses[-50:]) / len(fitted.losses[-50:]),
        "skipped": [{"case": problem.case_id, "reason": problem.reason} for problem in usable.skipped],
        "config_sha256": sha256_of(study.config),
        "brainunet": __version__,
    }


def dice_of(scored: Scored) -> Mapping[str, float | None]:
    """Mean Dice of each region; None without a validation case that has it."""
    means = {row.structure: row.mean for row in scored.score.rows if row.metric == "dice"}
    return {region: means.get(region) for region in _REGIONS}


def network_of(config: FitConfig) -> nn.Module:
    return build(config.model)
