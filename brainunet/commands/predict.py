"""``brainunet predict``: from a patient's files to a segmentation in the same space."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainunet import home_folder
from brainunet.complaints import visible
from brainunet.errors import ConfigError, DataError, UsageError
from brainunet.terminal import progress_bar, tell

if TYPE_CHECKING:
    from brainunet.data.cases import FoundCases
    from brainunet.inference.segmenter import EngineOptions
    from brainunet.labels import Modality
    from brainunet.modelfile import ModelCard
    from brainunet.prediction.run import Done
    from brainunet.records import Problem
    from brainunet.registry.pulled import PulledModel

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>[KMGT]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def predict(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="folder for a folder of each case", show_default=False)
    ],
    inputs: Annotated[
        list[Path] | None,
        typer.Option("-i", "--input", metavar="CASE|DIR|FILE", help="a case, a folder of cases, or (repeated) its files"),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="model file; the one pulled last, if not given")] = None,
    t1n: Annotated[Path | None, typer.Option(help="file of this modality, whatever its name")] = None,
    t1c: Annotated[Path | None, typer.Option(help="file of this modality")] = None,
    t2w: Annotated[Path | None, typer.Option(help="file of this modality")] = None,
    t2f: Annotated[Path | None, typer.Option(help="file of this modality")] = None,
    tta: Annotated[bool, typer.Option("--tta", help="mean of eight flips: eight times the time")] = False,
    engine: Annotated[str, typer.Option(help="auto, openvino or torch")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    way: Annotated[str, typer.Option(help="auto, one-pass or windows")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, max=256, help="of the CPU; all, if not given")] = None,
    max_memory: Annotated[str | None, typer.Option(metavar="SIZE", help="for the whole program, such as 3GB")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="also write the probability of each label")] = False,
    uncertainty: Annotated[bool, typer.Option(help="write a map of the entropy")] = True,
    keep_small: Annotated[
        bool, typer.Option("--keep-small", help="leave small separate parts in that are taken out otherwise")
    ] = False,
    pseudonym: Annotated[
        str | None, typer.Option(metavar="NAME", help="name of the case in all output; of many: NAME-001, NAME-002, ...")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="allow a model of made-up cases; all output is marked")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace output that is there")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="keep cases that are whole, made by this model in this way")] = False,
    home: Annotated[Path, typer.Option(envvar=home_folder.VARIABLE, help="the folder with pulled models")] = Path(
        home_folder.DEFAULT
    ),
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bar, and no table")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Segment gliomas. Research only: not a medical device, not for diagnosis or treatment.

    Images are skull-stripped and on one grid for each case, in any orientation and spacing. OUT/CASE gets the segmentation in
    the geometry of the input (labels as in BraTS 2023: 1 NETC, 2 SNFH, 3 ET), volumes, a picture, a map of the uncertainty and
    a record of the run. Nothing is sent or fetched.
    """
    del debug
    from brainunet.labels import Modality

    named = {m: path for m, path in zip(Modality, (t1n, t1c, t2w, t2f), strict=True) if path is not None}
    if bool(named) == bool(inputs):
        raise UsageError(
            "predict",
            found="both --input and files of modalities" if named else "nothing to segment",
            expected="either --input or a file for each modality (--t1c FILE --t2w FILE --t2f FILE)",
        )
    if overwrite and resume:
        raise UsageError("--overwrite", found="given with --resume", remedy="say one of them")
    if pseudonym is not None and not _NAME.fullmatch(pseudonym):
        raise UsageError("--pseudonym", found=pseudonym, expected="1 to 64 letters, digits, dots, dashes or underscores")
    options = _options(engine, precision, device, way, threads, max_memory, tta=tta)
    path, pulled, withdrawn = _model(model, home)

    from brainunet.folders import hold_folder
    from brainunet.inference.segmenter import open_segmenter
    from brainunet.prediction.names import named as named_cases
    from brainunet.prediction.run import OUTPUT, Wanted, predict_cases

    segmenter = open_segmenter(path, options)
    card = segmenter.card
    is_demo = _require_demo(path, card.trained_on, demo=demo)
    found = _cases(inputs or [], named, card)
    asked = {
        "engine": engine,
        "precision": precision,
        "device": device,
        "way": way,
        "tta": tta,
        "max_memory": options.max_memory_bytes,
    }
    wanted = Wanted(probabilities, uncertainty, keep_small, asked, overwrite, resume, is_demo, withdrawn)
    with hold_folder(out, OUTPUT), progress_bar(hidden=quiet or as_json) as progress:
        cases = named_cases(found.cases, pseudonym, out)  # while nobody else gives the same pseudonyms to others
        task = progress.add_task("cases", total=len(cases))
        done, more = predict_cases(cases, segmenter, out, wanted, on_case=lambda: progress.advance(task))
    problems = [*found.problems, *more]
    if as_json:
        typer.echo(json.dumps(_facts(done, problems, segmenter.describe(), pulled, hidden=pseudonym is not None)))
    elif not quiet:
        _print(done, pulled or card.title, out, demo=is_demo)
    for problem in problems:
        tell(f"left out: {problem.reason}")
    if problems:
        raise DataError(
            "predict",
            found=f"{len(problems)} of {len(problems) + len(done)} could not be segmented",
            remedy="see the reasons above; with --resume, the same command does only what is missing",
        )


def _options(
    engine: str, precision: str, device: str, way: str, threads: int | None, max_memory: str | None, *, tta: bool
) -> EngineOptions:
    from brainunet.inference.segmenter import EngineOptions

    choices = {
        "--engine": (engine, ("auto", "openvino", "torch")),
        "--precision": (precision, ("auto", "fp32", "bf16")),
        "--device": (device, ("auto", "cpu", "cuda")),
        "--way": (way, ("auto", "one-pass", "windows")),
    }
    for option, (given, known) in choices.items():
        if given not in known:
            raise UsageError(option, found=repr(given), expected=" or ".join(known))
    limit = None if max_memory is None else _bytes(max_memory)
    chosen: dict[str, Any] = {"engine": engine, "precision": precision, "device": device, "way": way}
    return EngineOptions(**chosen, threads=threads, max_memory_bytes=limit, tta=tta)


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if not match or not 0 < float(match["number"]) < 1e12:
        raise UsageError("--max-memory", found=repr(text), expected="a size such as 3GB or 800MB")
    return int(float(match["number"]) * _UNITS[match["unit"].upper()])


def _model(model: Path | None, home: Path) -> tuple[Path, str | None, str | None]:
    """The model file; of one that was pulled what to call it, and why it was withdrawn if it was."""
    from brainunet.registry.pulled import last_pulled

    if model is not None:
        return model, None, _withdrawal(model, home)
    pulled = last_pulled(home_folder.home_of(home))
    if pulled is None:
        raise ConfigError(
            "--model",
            found="not given, and no model was pulled to this machine yet",
            expected="a model",
            remedy="fetch one with brainunet pull, or name a file with --model",
        )
    _note_withdrawn(pulled)
    return pulled.verified(), f"{pulled.name} of {pulled.federation}, round {pulled.round}", pulled.withdrawn


def _withdrawal(model: Path, home: Path) -> str | None:
    """Why a file was withdrawn, as far as pulls to this machine told; a list that can't be read keeps nobody from working."""
    from brainunet.registry.pulled import withdrawn_file

    try:
        known = withdrawn_file(home_folder.home_of(home), model)
    except UsageError:  # no home, so nothing was pulled to it
        return None
    except ConfigError as error:
        tell(f"note: whether the model was withdrawn can't be told: {error}")
        return None
    if known is None:
        return None
    _note_withdrawn(known)
    return known.withdrawn


def _note_withdrawn(pulled: PulledModel) -> None:
    if pulled.withdrawn is not None:
        tell(f"note: the federation has withdrawn {pulled.name}: {pulled.withdrawn}")


def _require_demo(path: Path, trained_on: str, *, demo: bool) -> bool:
    """Whether the model was trained on made-up cases (also beside real ones) or on none: only a demonstration may use it."""
    is_demo = "phantoms" in trained_on or trained_on == "nothing"
    if is_demo and not demo:
        raise ConfigError(
            path,
            found=f"a model trained on {trained_on}",
            expected="a model trained on real cases",
            remedy="choose another model, or say --demo: then all output is marked as a demonstration",
        )
    return is_demo


def _cases(inputs: Sequence[Path], named: dict[Modality, Path], card: ModelCard) -> FoundCases:
    from brainunet.prediction.inputs import case_of_files, cases_to_segment

    modalities, most = card.model.modalities, card.accepts_missing
    return case_of_files(named, modalities, most) if named else cases_to_segment(inputs, modalities, most)


def _facts(
    done: Sequence[Done], problems: Sequence[Problem], described: dict[str, Any], pulled: str | None, *, hidden: bool
) -> dict[str, Any]:
    """For programs. ``hidden``: a reason may name a file, and so a patient; it is told on the terminal alone."""
    return {
        "model": {**described, "pulled": pulled},
        "cases": [
            {
                "name": case.name,
                "folder": str(case.folder),
                "structures": case.statistics,
                "review": case.review,
                "seconds": round(case.seconds, 3),
                "kept": case.kept,
            }
            for case in done
        ],
        "problems": [
            {"case_id": None, "reason": "told on stderr"} if hidden else {"case_id": problem.case_id, "reason": problem.reason}
            for problem in problems
        ],
    }


def _print(done: Sequence[Done], model: str, out: Path, *, demo: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    typer.echo(visible(f"model: {model}"))
    if demo:
        typer.echo("DEMONSTRATION: this model was trained on made-up cases, or on none")
    if not done:
        return
    table = Table("case", "ET ml", "TC ml", "WT ml", "seconds", "please review")
    for case in done:
        volumes = (f"{case.statistics[name]['volume_ml']:.1f}" for name in ("ET", "TC", "WT"))
        seconds = "kept" if case.kept else f"{case.seconds:.1f}"
        table.add_row(Text(visible(case.name)), *volumes, seconds, "; ".join(case.review.values()) or "no")
    Console().print(table)
    typer.echo(visible(f"in {out}") + ". Research only: not a medical device, not for diagnosis or treatment.")
