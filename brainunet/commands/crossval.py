"""``brainunet crossval``: one training for each fold or centre that is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from brainunet.commands import study_options as options
from brainunet.commands.train import follow, network_named, new_study, with_patients
from brainunet.errors import ConfigError, UsageError
from brainunet.files import writing_aside
from brainunet.study.told import REGIONS, figure_of
from brainunet.terminal import progress_bar, require_resume_alone, telling_how_to_go_on

if TYPE_CHECKING:
    from brainunet.study.run import Study


def crossval(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="folder for everything this makes")],
    data: options.Data = None,
    by: Annotated[str, typer.Option(help="fold, or centre: leave one hospital of BraTS-Africa out at a time")] = "fold",
    folds: Annotated[int | None, typer.Option(help="how many, with --by fold (default: 5)", min=2)] = None,
    init: Annotated[
        str, typer.Option(help="model file to start from, which has not seen these cases either; 'starter' or 'random'")
    ] = "random",
    stage: options.Stage = None,
    preset: options.Preset = None,
    minutes: Annotated[float | None, typer.Option(help="train each for so long, instead of for train.steps")] = None,
    patients: options.Patients = None,
    phantoms: options.Phantoms = False,
    convention: options.LabelNumbers = None,
    config: options.SettingsFile = None,
    settings: options.OneSetting = None,
    seed: options.Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the one begun in --out")] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Score every case by a model that has not seen it: train once for each fold or centre that is left out.

    Each training is left in OUT/folds/NAME, as `brainunet train` leaves it; finished ones are not done again by --resume.
    All go to their last step: to end one by its score (patience) would choose the model by the cases that it is tried on.
    """
    from brainunet.folders import hold_folder, take_folder
    from brainunet.study.crossval import CROSSVAL, begin_folds, crossval_summary, require_folds
    from brainunet.study.run import STUDY, keep_study, saved_study, split_of

    if resume:
        require_resume_alone(context, "a cross-validation")
        study = saved_study(out, "crossval")
    else:
        if by not in ("fold", "centre"):
            raise UsageError("--by", found=by, expected="fold or centre")
        if by == "centre" and folds is not None:
            raise UsageError(
                "--folds", found="--by centre", expected="--by fold", remedy="there is one training for each centre"
            )
        given = {
            "seed": seed,
            "minutes": minutes,
            "model": network_named(preset),
            "split": with_patients({"by": by} if folds is None else {"by": by, "folds": folds}, patients),
        }
        study = new_study(out, data, init, stage, given, phantoms, convention, config, settings or [])
    how = study.config.split.by
    if how not in ("fold", "centre"):  # by --set, which wins over --by
        raise ConfigError("split.by", found=how, expected="fold or centre", remedy="say --by instead")
    if not resume and study.config.patience is not None:
        typer.echo(
            f"patience = {study.config.patience} is left out: it would end each training by the cases it must not see", err=True
        )
        study = replace(study, config=study.config.model_copy(update={"patience": None}))
    if not resume:
        require_folds(study, how)
    fitted, cases = {}, {}
    with hold_folder(out, CROSSVAL) as alone:
        if not resume:
            take_folder(out, CROSSVAL, overwrite, needed=[data, config, patients, study.init])
            keep_study(study, "crossval")
        if alone:
            study.prepared.clear_unfinished()
        with telling_how_to_go_on("brainunet crossval", out):
            with progress_bar() as progress:
                reading = progress.add_task("reading cases", total=None)
                parts = begin_folds(study, how, lambda words, done, of: progress.update(reading, completed=done, total=of))
            for number, (name, part) in enumerate(parts.items(), start=1):
                with hold_folder(part.out, STUDY):  # somebody may be going on with it as a training of its own
                    _, fitted[name] = follow(part, f"{name} left out ({number} of {len(parts)})")
                sides = split_of(part)
                cases[name] = (len(sides.train), len(sides.validation))
        summary = crossval_summary(study, fitted, cases)
        with writing_aside(out / "crossval.json") as aside:
            aside.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        Console().print(_table(study, summary))


def _table(study: Study, summary: dict[str, Any]) -> Table:
    table = Table(title=f"{study.config.model.preset}: Dice of cases that were left out", title_justify="left")
    for heading in ("left out", "cases", "trained on", *REGIONS):
        table.add_column(heading, justify="left" if heading == "left out" else "right")
    for name, fold in summary["folds"].items():
        cases = fold["left_out_cases"]
        figures = (figure_of(fold["dice"].get(region), cases, fold["empty_truths"][region]) for region in REGIONS)
        table.add_row(name, str(cases), str(fold["train_cases"]), *figures)
    table.add_section()
    pooled, empty = summary["dice_over_all_cases"], summary["empty_truths"]
    total = sum(fold["left_out_cases"] for fold in summary["folds"].values())
    table.add_row("all cases", str(total), "", *(figure_of(pooled[region], total, empty[region]) for region in REGIONS))
    return table
