"""From a folder of cases to model files: the split, the training, its curves, and the cards of what it made."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from brainunet import __version__
from brainunet.data.cache import CaseCache
from brainunet.data.preprocess import PreparedCase
from brainunet.data.splits import Split, split_by
from brainunet.data.usable import Progress, UsableCases, usable_cases
from brainunet.errors import ConfigError, DataError
from brainunet.files import writing_aside
from brainunet.folders import FolderKind
from brainunet.labels import Convention
from brainunet.model import build, set_weights, weights_of
from brainunet.modelfile import ModelCard, learned_in, trained_on, write_model
from brainunet.settings import sha256_of
from brainunet.study.fit import Fitted, Moment, Scored, fit
from brainunet.study.settings import FitConfig
from brainunet.study.told import dice_of
from brainunet.training.checkpoint import Checkpoint
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
What: TypeAlias = Literal["training", "crossval"]


@dataclass(frozen=True)
class Study:
    """One training to do, kept in its folder so that it can be resumed.

    Attributes:
        init: model file to start from; None starts from random weights of the seed.
        convention: label numbers, where the names of the cases don't tell.
        on_phantoms: the cases are made up, though their files don't say so; the card must.
        cache: folder of prepared cases; None keeps them in ``out``.
    """

    out: Path
    data: Path
    config: FitConfig
    init: Path | None = None
    convention: Convention | None = None
    on_phantoms: bool = False
    cache: Path | None = None

    @property
    def prepared(self) -> CaseCache:
        return CaseCache(self.cache or self.out / "cache")


def keep_study(study: Study, what: What) -> None:
    """Keep what was asked in the study's folder, so that a resume needs to be told the folder alone.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    kept = {
        what: {
            "data": str(study.data.resolve()),
            "init": None if study.init is None else str(study.init.resolve()),
            "convention": study.convention,
            "on_phantoms": study.on_phantoms,
            "cache": None if study.cache is None else str(study.cache.resolve()),
        },
        "config": study.config.model_dump(mode="json"),
        "config_sha256": sha256_of(study.config),
    }
    _write_json(study.out / "config.json", kept)


def saved_study(out: Path, what: What) -> Study:
    """The training or cross-validation that was begun in a folder.

    Raises:
        ConfigError: there is none.
    """
    try:
        kept = json.loads((out / "config.json").read_text(encoding="utf-8"))
        told = kept[what]
        return Study(
            out=out,
            data=Path(told["data"]),
            config=FitConfig.model_validate(kept["config"]),
            init=None if told["init"] is None else Path(told["init"]),
            convention=None if told["convention"] is None else Convention(told["convention"]),
            on_phantoms=bool(told["on_phantoms"]),
            cache=None if told["cache"] is None else Path(told["cache"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(
            out, found=f"no config.json of a {what}", expected="a folder in which one was begun", remedy="start it first"
        ) from None


def run_study(
    study: Study,
    on_progress: Progress = lambda what, done, of: None,
    on_step: Callable[[int, float, float], None] = lambda step, loss, share: None,
    on_scored: Callable[[Scored], None] = lambda scored: None,
) -> tuple[dict[str, Any], Fitted]:
    """Train (or go on) and leave models, split, figures and summary in the study's folder; returns the summary and the figures.

    Args:
        on_progress: told what is being read, how far, of how many.
        on_step: told steps done, the last loss, and the share that is done.

    Raises:
        DataError: no usable case, or one that it was begun with is gone.
        ConfigError: an unusable model, split or settings; see :func:`~brainunet.study.fit.fit`.
    """
    config, out, cache = study.config, study.out, study.prepared
    weights, before = starting_model(study.init, config.model, config.preprocess, config.seed)
    modalities, preprocess = config.model.modalities, config.preprocess
    usable = usable_cases(study.data, cache, modalities, preprocess, study.convention, on_progress)
    split = _split_kept(study, usable) or split_by(config.split, usable.cases)
    keep_split(study, split)
    network = build(config.model)
    set_weights(network, weights)
    card = _card(study, split, usable, before)

    def prepared(case_ids: Sequence[str]) -> list[PreparedCase]:
        return [cache.get(usable.cases[case], modalities, preprocess) for case in case_ids]

    def keep(moment: Moment) -> None:
        _keep_model(out / "last.safetensors", moment, card)
        if moment.is_best:
            _keep_model(out / "best.safetensors", moment, card)
        on_scored(moment.scored)

    purpose = f"{__version__} {sha256_of(config)} {before.weights_sha256} {' '.join(split.train)} {' '.join(split.validation)}"
    fitted = fit(
        network,
        prepared(split.train),
        prepared(split.validation),
        config,
        checkpoint=Checkpoint(out / "training.ckpt", purpose, every_steps=50, alone=True),
        on_step=lambda training, share: on_step(training.done, training.losses[-1], share),
        on_scored=keep,
    )
    summary = _summary(study, split, fitted, card, before, usable)
    _write_figures(out, fitted)
    _write_json(out / "summary.json", summary)
    return summary, fitted


def split_of(study: Study) -> Split:
    """Who was trained on and who was scored in a study that has been run."""
    kept = json.loads(_split_file(study).read_text(encoding="utf-8"))
    return Split(tuple(map(str, kept["train"])), tuple(map(str, kept["validation"])))


def keep_split(study: Study, split: Split) -> None:
    """Keep who is trained on and who is scored, before a study is run or as it is: a resume keeps to it.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    _write_json(_split_file(study), {"train": split.train, "validation": split.validation})


def _split_kept(study: Study, usable: UsableCases) -> Split | None:
    """The split that a study was begun with, whatever cases came since; None if it has none yet.

    Raises:
        DataError: a case of it can't be used any more. To go on without it would be another training.
        ConfigError: it can't be read.
    """
    if not _split_file(study).exists():
        return None
    try:
        split = split_of(study)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise ConfigError(
            _split_file(study),
            found="no split of cases",
            expected="the one it was begun with",
            remedy="begin anew by --overwrite",
        ) from None
    if gone := [case for case in (*split.train, *split.validation) if case not in usable.cases]:
        reasons = [problem.reason for problem in usable.skipped if problem.case_id == gone[0]]
        raise DataError(
            study.out,
            found=f"it was begun with {gone[0]}, which is not there any more" + "".join(f" ({reason})" for reason in reasons),
            expected="the cases it was begun with",
            remedy="put the case back, or begin anew by --overwrite",
        )
    return split


def _split_file(study: Study) -> Path:
    return study.out / "split.json"


def _card(study: Study, split: Split, usable: UsableCases, before: ModelCard) -> ModelCard:
    config, cases = study.config, len(split.train)
    data = "phantoms" if study.on_phantoms else usable.kind_of(split.train)
    return ModelCard(
        title=f"{config.model.preset}, trained on {cases} {data}",
        model=config.model,
        preprocess=config.preprocess,
        **learned_in(config.train, config.validation),
        provenance=f"trained on {cases} {data}, from: {before.provenance}",
        trained_on=trained_on(before.trained_on, data),
        parent_sha256=before.weights_sha256,
        config_sha256=sha256_of(config),
    )


def _keep_model(path: Path, moment: Moment, card: ModelCard) -> None:
    told = {
        "scores": {"validation": moment.scored.score} if moment.scored.score.cases else {},
        "title": f"{card.title}, step {moment.scored.step}",
    }
    write_model(path, weights_of(moment.network), card.model_copy(update=told))


def _write_figures(out: Path, fitted: Fitted) -> None:
    with writing_aside(out / "loss.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss", "learning_rate"])
        rows.writerows(zip(range(1, len(fitted.losses) + 1), fitted.losses, fitted.rates, strict=True))
    with writing_aside(out / "scores.csv") as aside, aside.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "seconds", "region", "metric", "mean", "median", "n", "missing", "empty"])
        for scored in fitted.scores:
            for row in scored.score.rows:
                figures = [row.structure, row.metric, row.mean, row.median, row.n, row.missing, scored.empty[row.structure]]
                rows.writerow([scored.step, round(scored.seconds, 1), *figures])


def _summary(
    study: Study, split: Split, fitted: Fitted, card: ModelCard, before: ModelCard, usable: UsableCases
) -> dict[str, Any]:
    def told(scored: Scored) -> dict[str, Any]:
        return {"step": scored.step, "seconds": round(scored.seconds, 1), "dice": dice_of(scored)}

    best = max(fitted.scores, key=lambda scored: scored.rank)
    return {
        "steps": len(fitted.losses),
        "seconds": round(fitted.scores[-1].seconds, 1),
        "ended_by": fitted.ended_by,
        "train_cases": len(split.train),
        "validation_cases": len(split.validation),
        "empty_truths": fitted.scores[-1].empty,  # the same of every scoring
        "start": before.title,
        "trained_on": card.trained_on,
        "last": told(fitted.scores[-1]),
        "best": told(best) if best.mean_dice is not None else None,
        "loss": sum(fitted.losses[-50:]) / len(fitted.losses[-50:]),
        "skipped": [{"case": problem.case_id, "reason": problem.reason} for problem in usable.skipped],
        "config_sha256": sha256_of(study.config),
        "brainunet": __version__,
    }


def _write_json(path: Path, content: object) -> None:
    with writing_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
