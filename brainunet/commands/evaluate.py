"""``brainunet evaluate``: the challenge's metrics for a folder of cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainunet.errors import DataError, UsageError
from brainunet.records import Problem
from brainunet.terminal import progress_bar, tell

if TYPE_CHECKING:
    from rich.table import Table

    from brainunet.config import ValidationConfig
    from brainunet.records import CaseScore

MOST_PROBLEMS = 20  # lines of them; all are in the summary

Works = Sequence[tuple[str, Callable[[], "CaseScore"]]]


@dataclass(frozen=True)
class _Asked:
    """What is to be scored: the work of each case, what can't be, the settings, and the files that a case's mark may be in."""

    works: Works
    problems: Sequence[Problem]
    settings: dict[str, Any]
    files: Mapping[str, Sequence[Path]]


def evaluate(
    out: Annotated[Path, typer.Option(help="folder for cases.csv, summary.json and scores.png", show_default=False)],
    pred: Annotated[Path | None, typer.Option(help="folder of predictions, to be scored against --truth")] = None,
    truth: Annotated[Path | None, typer.Option(help="folder of true segmentations; the cases' own folder will do")] = None,
    model: Annotated[Path | None, typer.Option(help="model file, whose predictions for --data are scored")] = None,
    data: Annotated[Path | None, typer.Option(help="folder of cases with images and true segmentations")] = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="with --model: side of the windows in voxels, or 'none' for one pass (default: as the model was scored)"
        ),
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="names with commas between them (default: all)")] = None,
    pred_convention: Annotated[
        str | None,
        typer.Option(help="numbers of the predictions: brats2023 (enhancing tumour 3) or brats2021 (4) (default: brats2023)"),
    ] = None,
    truth_convention: Annotated[
        str | None, typer.Option(help="numbers of the truths: brats2023 or brats2021 (default: told by the file names)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the summary as JSON")] = False,
) -> None:
    """Score segmentations by the challenge's metrics: whole case and lesion by lesion, overlap and distance.

    Either predictions that are there (--pred and --truth, no network needed) or those of a model (--model and --data).
    Files are matched by case: CASE-seg.nii.gz, CASE_seg.nii.gz or CASE.nii.gz, in folders of any depth.
    """
    from brainunet.data.cases import parse_convention
    from brainunet.evaluation.results import summarise, write_cases, write_summary

    names = _metrics(metrics)
    of_truth = parse_convention(truth_convention, "--truth-convention")
    of_pred = parse_convention(pred_convention, "--pred-convention")
    if window is not None and pred:
        raise UsageError("--window", found="given with --pred", remedy="it is for --model; leave it out")
    if pred and truth and not (model or data):
        asked = _of_files(pred, truth, of_pred, of_truth, names)
        source = pred
    elif model and data and not (pred or truth):
        if of_pred:
            raise UsageError("--pred-convention", found="given with --model", remedy="it is for --pred; leave it out")
        asked = _of_model(model, data, of_truth, names, window)
        source = data
    else:
        options = {"--pred": pred, "--truth": truth, "--model": model, "--data": data}
        given = " ".join(name for name, path in options.items() if path is not None) or "none of them"
        raise UsageError("evaluate", found=given, expected="--pred with --truth, or --model with --data")
    _take_folder(out)

    from brainunet.evaluation.scoring import score_all

    with progress_bar() as progress:
        task = progress.add_task("cases", total=len(asked.works))
        scores, more = score_all(asked.works, on_case=lambda: progress.advance(task))
    problems = sorted([*asked.problems, *more], key=lambda problem: problem.case_id)
    made_up = sum(_is_made_up(asked.files[score.case_id]) for score in scores)
    summary = summarise(scores, problems, names, asked.settings, made_up)
    write_cases(out / "cases.csv", scores)
    write_summary(out / "summary.json", summary)
    _draw(out / "scores.png", scores, names, source, made_up)
    if as_json:
        typer.echo(json.dumps(summary))
    _say_problems(problems, out)
    _say_made_up(summary)
    if not scores:
        raise DataError(
            source,
            found=f"none of {len({problem.case_id for problem in problems})} cases could be scored",
            expected="at least one with a prediction and a truth" if pred else "at least one that is whole",
            remedy=f"see the reasons above, or in {out / 'summary.json'}",
        )
    if not as_json:
        _print(summary, out)


def _metrics(asked: str | None) -> tuple[str, ...]:
    from brainunet.metrics import METRICS
    from brainunet.settings import nearest

    names = tuple(dict.fromkeys(name.strip() for name in asked.split(","))) if asked is not None else tuple(METRICS)
    for name in names:
        if name not in METRICS:
            raise UsageError("--metrics", found=f"{name!r} ({nearest(name, METRICS)})", remedy="put commas between names")
    return names


def _of_files(pred: Path, truth: Path, of_pred: Any, of_truth: Any, names: Sequence[str]) -> _Asked:
    from brainunet.evaluation.matching import match_files
    from brainunet.evaluation.scoring import Conventions, score_files

    conventions = Conventions(truth=of_truth) if of_pred is None else Conventions(of_pred, of_truth)
    pairs, problems = match_files(pred, truth)
    works = [(pair.case_id, lambda pair=pair: score_files(pair, conventions, names)) for pair in pairs]
    settings = {
        "pred": str(pred),
        "truth": str(truth),
        "pred_convention": conventions.predicted.value,
        "truth_convention": of_truth.value if of_truth else "told by the file names",
    }
    return _Asked(works, problems, settings, {pair.case_id: [pair.truth] for pair in pairs})


def _of_model(model: Path, data: Path, of_truth: Any, names: Sequence[str], window: str | None) -> _Asked:
    from brainunet.evaluation.of_model import evaluate_model

    evaluation = evaluate_model(model, data, of_truth, names, None if window is None else _asked(window))
    card = evaluation.card
    settings = {
        "model": str(model),
        "model_title": card.title,
        "model_trained_on": card.trained_on,
        "weights_sha256": card.weights_sha256,
        "modalities": [modality.value for modality in card.model.modalities],
        "window": evaluation.window,  # None: in one pass
        "data": str(data),
        "truth_convention": of_truth.value if of_truth else "told by the file names",
    }
    files = {case.case_id: [case.label, *case.images.values()] for case in evaluation.found.cases if case.label}
    return _Asked(list(evaluation.works), evaluation.found.problems, settings, files)


def _asked(window: str) -> ValidationConfig:
    from brainunet.config import ValidationConfig
    from brainunet.errors import ConfigError
    from brainunet.settings import load

    cube = window if window == "none" else f"[{window}, {window}, {window}]"
    try:
        return load(ValidationConfig, overrides=[f"window={cube}"])
    except ConfigError:
        raise UsageError(
            "--window", found=window or "nothing", expected="a side of 16 to 256 voxels, a multiple of 8, or none"
        ) from None


def _take_folder(out: Path) -> None:
    """Before the work and not after hours of it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        ours = _is_ours(out / "summary.json")
    except OSError as error:
        raise UsageError(
            "--out", found=f"{out}: {error.strerror or 'not a folder'}", expected="a folder that you may write to"
        ) from None
    if not ours:
        raise UsageError(
            "--out",
            found=f"{out}: the summary.json of something else, which would be overwritten",
            expected="a new folder, or one of an earlier evaluation",
            remedy="choose another folder, such as one below it",
        )


def _is_ours(summary: Path) -> bool:
    """Whether it may be overwritten: it is not there yet, or an evaluation's. A training has one of that name too."""
    from brainunet.evaluation.results import FORMAT

    try:
        told = json.loads(summary.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    except (ValueError, RecursionError):
        return False
    return isinstance(told, dict) and told.get("format") == FORMAT


def _is_made_up(paths: Sequence[Path]) -> bool:
    from brainunet.data.made_up import carries_mark

    try:
        return carries_mark(paths)
    except DataError:  # it went away since it was scored
        return False


def _draw(path: Path, scores: Sequence[CaseScore], names: Sequence[str], source: Path, made_up: int) -> None:
    from brainunet.pictures.score_boxes import plot_scores

    if scores:
        plot_scores(path, scores, names, f"{source.resolve().name}: {_cases(len(scores))}{_made_up(made_up)}")
    else:
        path.unlink(missing_ok=True)  # of an earlier evaluation: it would seem to be this one's


def _say_problems(problems: Sequence[Problem], out: Path) -> None:
    for problem in problems[:MOST_PROBLEMS]:
        tell(f"left out: {problem.reason}")
    if len(problems) > MOST_PROBLEMS:
        tell(f"... and {len(problems) - MOST_PROBLEMS} more, all in {out / 'summary.json'}")


def _say_made_up(summary: dict[str, Any]) -> None:
    """On stderr: a figure of phantoms must not pass for one of patients, in a script either."""
    if summary["made_up_cases"]:
        said = f"{summary['made_up_cases']} of {_cases(summary['cases'])} made up, as the files say: no figure of patients"
        tell(f"note: {said}")
    seen = summary["settings"].get("model_trained_on", "")
    if "phantoms" in seen:
        tell(f"note: the model was trained on {seen}, which are made-up cases")


def _made_up(n: int) -> str:
    return f" ({n} made up)" if n else ""


def _print(summary: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    Console().print(_table(summary))
    left_out = len({problem["case_id"] for problem in summary["problems"]})
    typer.echo(f"{_cases(summary['cases'])} scored, {left_out} left out; in {out}: cases.csv, summary.json, scores.png")


def _table(summary: dict[str, Any]) -> Table:
    from rich.table import Table

    scores = summary["scores"]
    made_up = _made_up(summary["made_up_cases"])
    table = Table(title=f"Mean over {_cases(summary['cases'])}{made_up}", title_justify="left")
    table.add_column("metric", no_wrap=True)
    for structure in scores:
        table.add_column(structure, justify="right", no_wrap=True)
    for metric in summary["settings"]["metrics"]:
        table.add_row(metric, *(_cell(row[metric]) for row in scores.values()))
    if any(figures["missing"] for row in scores.values() for figures in row.values()):
        table.caption = "* over fewer: the others have no value, cases.csv says why"
        table.caption_justify = "left"
    return table


def _cell(figures: dict[str, Any]) -> str:
    mean = "none" if figures["mean"] is None else f"{figures['mean']:.3f}"
    return mean + ("*" if figures["missing"] else " ")


def _cases(n: int) -> str:
    return "1 case" if n == 1 else f"{n} cases"
