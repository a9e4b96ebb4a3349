"""``brainunet train``: one training on this machine's cases, from random weights or from a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainunet.commands import study_options as options
from brainunet.errors import UsageError
from brainunet.terminal import progress_bar, require_resume_alone, telling_how_to_go_on

if TYPE_CHECKING:
    from brainunet.study.fit import Fitted, Scored
    from brainunet.study.run import Study

PERMILLE = 1000  # of a training, for the progress bar


def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="folder for models, curves and everything else this makes")],
    data: options.Data = None,
    init: Annotated[str, typer.Option(help="model file to start from, 'starter' or 'random'")] = "random",
    stage: options.Stage = None,
    preset: options.Preset = None,
    minutes: Annotated[float | None, typer.Option(help="train for so long, instead of for train.steps")] = None,
    validation: Annotated[str | None, typer.Option(help="ids of the cases to keep aside, with commas; 'none' for none")] = None,
    folds: Annotated[int | None, typer.Option(help="keep one of so many folds aside (see --fold)")] = None,
    fold: Annotated[int | None, typer.Option(help="which of --folds to keep aside, from 1 (default: 1)")] = None,
    leave_out: Annotated[str | None, typer.Option(help="keep a whole BraTS-Africa centre aside: CRV, NKDC, ...")] = None,
    patients: options.Patients = None,
    phantoms: options.Phantoms = False,
    convention: options.LabelNumbers = None,
    config: options.SettingsFile = None,
    settings: options.OneSetting = None,
    seed: options.Seed = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the training begun in --out")] = False,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Train a network on the cases of a folder; leaves the last and the best model, curves (PNG, CSV) and a summary.

    Killed at any moment, it goes on by --resume to the same result.
    """
    from brainunet.folders import hold_folder, take_folder
    from brainunet.study.run import STUDY, keep_study, saved_study
    from brainunet.study.told import words_of

    if resume:
        require_resume_alone(context, "a training")
        study = saved_study(out, "training")
    else:
        split = with_patients(_split(validation, folds, fold, leave_out), patients)
        given = {"seed": seed, "minutes": minutes, "model": network_named(preset), "split": split}
        study = new_study(out, data, init, stage, given, phantoms, convention, config, settings or [])
    with hold_folder(out, STUDY) as alone:
        if not resume:
            take_folder(out, STUDY, overwrite, needed=[data, config, patients, study.init])
            keep_study(study, "training")
        if alone and study.cache is None:
            study.prepared.clear_unfinished()
        with telling_how_to_go_on("brainunet train", out):
            summary, _ = follow(study)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for name in ("last", "best"):
        if told := summary[name]:
            figures = words_of(told["dice"], summary["validation_cases"], summary["empty_truths"])
            typer.echo(f"{name} model (step {told['step']}): {figures}")
    for problem in summary["skipped"]:
        typer.echo(f"skipped: {problem['reason']}")
    typer.echo(f"{summary['steps']} steps in {summary['seconds']:.0f} s; see {out / 'curves.png'}")


def new_study(
    out: Path,
    data: Path | None,
    init: str,
    stage: str | None,
    asked: Mapping[str, Any],
    phantoms: bool,
    convention: str | None,
    config: Path | None,
    settings: list[str],
) -> Study:
    """A study as its options ask for it; nothing is written yet.

    Raises:
        BrainUNetError: settings or a model that can't be.
    """
    from brainunet.data.cases import parse_convention
    from brainunet.settings import load
    from brainunet.starter import STARTER
    from brainunet.study.run import Study
    from brainunet.study.settings import FitConfig, stage_settings
    from brainunet.training.start import settings_of_model, starting_model

    if data is None:
        raise UsageError("--data", found="nothing", expected="a folder of cases")
    start = None if init == "random" else STARTER if init == "starter" else Path(init)
    given = {name: value for name, value in asked.items() if value is not None}
    base = {**(stage_settings(stage) if stage else {}), **settings_of_model(start)}
    if any(setting.partition("=")[0].strip() == "train.steps" for setting in settings):
        if "minutes" in given:
            raise UsageError(
                "--minutes", found="it came with --set train.steps", expected="one of them, to end the training by"
            )
        base.pop("minutes", None)  # of the stage: asked for later, steps win
    resolved = load(FitConfig, config, settings, base=base, options=given)
    starting_model(start, resolved.model, resolved.preprocess, resolved.seed)  # refused now and not after reading cases
    return Study(out, data, resolved, start, parse_convention(convention), phantoms)


def with_patients(split: Mapping[str, Any] | None, patients: Path | None) -> Mapping[str, Any] | None:
    """Settings of a split, with a hospital's list of patients where there is one.

    Raises:
        ConfigError: a file that is no such list.
    """
    if patients is None:
        return split
    from brainunet.data.patients import read_patients

    return {**(split or {}), "patients": read_patients(patients)}


def network_named(preset: str | None) -> dict[str, str] | None:
    """Settings of a network asked for by name: with its own norm; None leaves those that there are."""
    from brainunet.presets import default_norm

    return None if preset is None else {"preset": preset, "norm": default_norm(preset)}


def follow(study: Study, what: str = "training") -> tuple[dict[str, Any], Fitted]:
    """Run a study with a progress bar, and draw its curves; summary and figures."""
    from brainunet.pictures.curves import draw_curves
    from brainunet.study.run import run_study
    from brainunet.study.told import dice_of, words_of

    with progress_bar() as progress:
        reading = progress.add_task("reading cases", total=None)
        task = progress.add_task(what, total=PERMILLE, visible=False)

        def on_scored(scored: Scored) -> None:
            figures = words_of(dice_of(scored), scored.score.cases, scored.empty)
            progress.console.print(f"step {scored.step}, {scored.seconds:.0f} s: {figures}")

        def on_step(step: int, loss: float, share: float) -> None:
            told = f"{what}, step {step}, loss {loss:.3f}"
            progress.update(task, completed=round(PERMILLE * min(1.0, share)), description=told, visible=True)

        summary, fitted = run_study(
            study,
            on_progress=lambda words, done, of: progress.update(reading, completed=done, total=of),
            on_step=on_step,
            on_scored=on_scored,
        )
    scores = [(scored.step, dice_of(scored)) for scored in fitted.scores]
    title = (
        f"{study.config.model.preset}, {summary['train_cases']} cases to train on; the model has seen {summary['trained_on']}"
    )
    empty, cases = summary["empty_truths"], summary["validation_cases"]
    draw_curves(study.out / "curves.png", title, fitted.losses, scores, cases, empty)
    return summary, fitted


def _split(validation: str | None, folds: int | None, fold: int | None, leave_out: str | None) -> dict[str, Any] | None:
    chosen = [
        name
        for name, given in (("--validation", validation), ("--folds", folds), ("--leave-out", leave_out))
        if given is not None
    ]
    if fold is not None and folds is None:
        raise UsageError("--fold", found="no --folds", expected="of how many", remedy="say --folds 5 beside it")
    if len(chosen) > 1:
        raise UsageError(" and ".join(chosen), found="several ways to keep cases aside", expected="one of them")
    if validation == "none":
        return {"by": "none"}
    if validation is not None:
        cases = [case.strip() for case in validation.split(",") if case.strip()]
        if not cases:
            raise UsageError("--validation", found="no name", expected="ids with commas between them, or none")
        return {"by": "ids", "cases": cases}
    if folds is not None:
        return {"by": "fold", "folds": folds, "fold": 1 if fold is None else fold}
    if leave_out is not None:
        return {"by": "centre", "centre": leave_out}
    return None
