"""Every case scored once by a model that has not seen it: leave one fold, or one contributing centre, out at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from brainunet.data.cases import find_cases
from brainunet.data.splits import SplitConfig, by_centre, split_by
from brainunet.errors import ConfigError
from brainunet.folders import FolderKind
from brainunet.metrics.summary import federation_mean
from brainunet.records import SiteScore
from brainunet.settings import sha256_of
from brainunet.study.fit import Fitted
from brainunet.study.run import Study

By = Literal["fold", "centre"]
CROSSVAL: Final = FolderKind(
    what="cross-validation", marks=frozenset({"crossval"}), begun="folds", made_here=("folds", "cache", "crossval.json")
)


def fold_studies(study: Study, by: By) -> dict[str, Study]:
    """Name of what is left out -> the training without it; all share the cache of ``study``.

    Raises:
        DataError: no usable case.
        ConfigError: a fold without a case, or one that would leave none to train on.
    """
    cases = find_cases(study.data, modalities=study.config.model.modalities, convention=study.convention).cases
    ids = [case.case_id for case in cases]
    if by == "centre":
        splits = {name: SplitConfig(by="centre", centre=name) for name in by_centre(ids)}
    else:
        count = study.config.split.folds
        splits = {f"fold-{number}": SplitConfig(by="fold", folds=count, fold=number) for number in range(1, count + 1)}
    for split in splits.values():
        split_by(split, ids)
    return {
        name: replace(
            study,
            out=study.out / "folds" / name,
            config=study.config.model_copy(update={"split": split}),
            cache=study.prepared.folder,
        )
        for name, split in splits.items()
    }


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
    structures: Sequence[str] = ("ET", "TC", "WT", "NETC", "SNFH")
    pooled = federation_mean(last.values())
    return {
        "folds": {
            name: {
                "train_cases": cases[name][0],
                "left_out_cases": cases[name][1],
                "dice": {row.structure: row.mean for row in score.rows if row.metric == "dice"},
            }
            for name, score in last.items()
        },
        "dice_over_all_cases": {structure: pooled.get(structure) for structure in structures},  # type: ignore[call-overload]
        "config_sha256": sha256_of(study.config),
    }
