"""Every case scored once by a model that has not seen it: leave one fold, or one contributing centre, out at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from brainunet.data.cases import find_cases
from brainunet.data.splits import SplitConfig, by_centre, split_by
from brainunet.data.usable import Progress, no_usable_case, usable_cases
from brainunet.errors import ConfigError
from brainunet.files import writing_aside
from brainunet.folders import FolderKind
from brainunet.metrics.report import STRUCTURES
from brainunet.metrics.summary import federation_mean
from brainunet.records import SiteScore
from brainunet.settings import sha256_of
from brainunet.study.fit import Fitted
from brainunet.study.run import Study, keep_split, keep_study

By = Literal["fold", "centre"]
CASES: Final = "cases.json"
CROSSVAL: Final = FolderKind(
    what="cross-validation",
    marks=frozenset({"crossval"}),
    begun="folds",
    made_here=("folds", "cache", CASES, "crossval.json"),
)


def require_folds(study: Study, by: By) -> None:
    """Meet now, by the names of the cases alone, what would be met after reading them all.

    Raises:
        DataError: no case, or none that can be used.
        ConfigError: a fold without a case, or one that would leave none to train on.
    """
    found = find_cases(study.data, modalities=study.config.model.modalities, convention=study.convention)
    if not found.cases:
        raise no_usable_case(study.data, found.problems)
    _splits(study, by, [case.case_id for case in found.cases])


def begin_folds(study: Study, by: By, on_progress: Progress) -> dict[str, Study]:
    """Name of what is left out -> the training without it, whose split is kept before any begins; all share one cache.

    Dealt once: a case that can't be used half-way must not move others into folds whose models have seen them. On a resume the
    folds stay as they were dealt.

    Raises:
        DataError: no usable case.
        ConfigError: a fold without a case, one that would leave none to train on, or cases dealt before that can't be read.
    """
    ids = _cases_dealt(study) or _usable_ids(study, on_progress)
    parts: dict[str, Study] = {}
    for name, split in _splits(study, by, ids).items():
        config = study.config.model_copy(update={"split": split})
        parts[name] = replace(study, out=study.out / "folds" / name, config=config, cache=study.prepared.folder)
        keep_study(parts[name], "training")
        keep_split(parts[name], split_by(split, ids))
    with writing_aside(study.out / CASES) as aside:  # last: from here on it is dealt
        aside.write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")
    return parts


def _cases_dealt(study: Study) -> list[str] | None:
    path = study.out / CASES
    try:
        return [str(case) for case in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError):
        raise ConfigError(
            path, found="no list of cases", expected="those that were dealt to folds", remedy="begin anew by --overwrite"
        ) from None


def _usable_ids(study: Study, on_progress: Progress) -> list[str]:
    model, preprocess = study.config.model, study.config.preprocess
    return sorted(usable_cases(study.data, study.prepared, model.modalities, preprocess, study.convention, on_progress).cases)


def _splits(study: Study, by: By, ids: Sequence[str]) -> dict[str, SplitConfig]:
    patients = study.config.split.patients
    if by == "centre":
        splits = {name: SplitConfig(by="centre", centre=name, patients=patients) for name in by_centre(ids)}
    else:
        count = study.config.split.folds
        splits = {
            f"fold-{number}": SplitConfig(by="fold", folds=count, fold=number, patients=patients)
            for number in range(1, count + 1)
        }
    for split in splits.values():
        split_by(split, ids)
    return splits


def crossval_summary(study: Study, fitted: Mapping[str, Fitted], cases: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The last model's figures of each fold, and their mean over all cases.

    Args:
        cases: name of a fold -> cases trained on, cases left out.

    Raises:
        ConfigError: no fold.
    """
    if not fitted:
        raise ConfigError("crossval", found="no fold", expected="at least two")
    last: dict[str, SiteScore] = {name: result.scores[-1].score for name, result in fitted.items()}
    empty = {name: result.scores[-1].empty for name, result in fitted.items()}
    pooled = federation_mean(last.values())
    return {
        "folds": {
            name: {
                "train_cases": cases[name][0],
                "left_out_cases": cases[name][1],
                "dice": {row.structure: row.mean for row in score.rows if row.metric == "dice"},
                "empty_truths": empty[name],
            }
            for name, score in last.items()
        },
        "dice_over_all_cases": {structure: pooled.get(structure) for structure in STRUCTURES},
        "empty_truths": {structure: sum(of[structure] for of in empty.values()) for structure in STRUCTURES},
        "config_sha256": sha256_of(study.config),
    }
