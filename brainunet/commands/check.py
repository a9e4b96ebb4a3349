"""``brainunet check``: the doctor for a folder of cases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from brainunet.terminal import progress_bar

if TYPE_CHECKING:
    from brainunet.data.checks import CaseReport
    from brainunet.labels import Modality

COLOURS: Final = {"error": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}
REPORT: Final = "report.html"


def check(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="folder of cases")],
    modalities: Annotated[str, typer.Option(help="which images to examine, and which every case must have")] = "t1c,t2w,t2f",
    convention: Annotated[
        str | None, typer.Option(help="brats2021 or brats2023, where the files' names don't tell what label numbers mean")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for report.html, with a picture of each case: it stays at the site")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="no progress, and a line only for cases with errors or warnings")
    ] = False,
) -> None:
    """Examine every case of a folder: files, grids, skulls, contrast, blur, labels, duplicates.

    Ends with 0, or with 3 if no case can be used.
    """
    from brainunet.data.cases import find_cases, parse_convention
    from brainunet.data.checks import examine_across
    from brainunet.data.checks.folder import examine_cases
    from brainunet.errors import DataError

    chosen = _modalities(modalities)
    found = find_cases(data, modalities=chosen, convention=parse_convention(convention), need_label=False)
    with _spool(out) as spool, progress_bar(hidden=quiet or as_json) as progress:
        task = progress.add_task("examining cases", total=len(found.cases) + len(found.problems))
        reports: list[CaseReport] = []
        for place, examined in enumerate(examine_cases(found, chosen, _draw() if spool else None)):
            reports.append(examined.report)
            if spool and examined.picture:
                (spool / str(place)).write_bytes(examined.picture)
            progress.advance(task)
        reports = examine_across(reports)
        if out is not None and spool is not None:
            _write_report(out / REPORT, reports, spool, data, chosen)
    if as_json:
        typer.echo(json.dumps(_as_json(data, chosen, reports)))
    else:
        _show(reports, only_bad=quiet)
        if out is not None:
            typer.echo(f"report: {out / REPORT} (holds images of patients: does not leave this hospital)")
    if not any(report.usable for report in reports):
        raise typer.Exit(DataError.exit_code)


def _modalities(text: str) -> tuple[Modality, ...]:
    from brainunet.errors import UsageError
    from brainunet.labels import MODALITY_ALIASES, Modality
    from brainunet.settings import nearest

    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in MODALITY_ALIASES:
            raise UsageError("--modalities", found=f"{name!r} ({nearest(name, list(Modality))})", expected=", ".join(Modality))
    if not names:
        raise UsageError("--modalities", found="none", expected=f"one or more of {', '.join(Modality)}")
    return tuple(dict.fromkeys(MODALITY_ALIASES[name] for name in names))


@contextmanager
def _spool(out: Path | None) -> Iterator[Path | None]:
    """A folder for the pictures of the cases until the report is written; it is the user's alone and goes in any case."""
    import tempfile

    from brainunet.errors import BrainUNetError

    if out is None:
        yield None
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pictures-", dir=out) as folder:
            yield Path(folder)
    except OSError as error:
        raise BrainUNetError(
            out,
            found=f"it can't be written: {error.strerror or error}",
            expected="a folder for the report",
            remedy="free space on the disk, or choose a folder you may write to",
        ) from None


def _draw() -> Any:
    from brainunet.pictures.qc import qc_picture

    return qc_picture


def _write_report(path: Path, reports: Sequence[CaseReport], spool: Path, data: Path, chosen: Sequence[Modality]) -> None:
    from datetime import datetime

    from brainunet.pictures.check_report import write_check_report

    def picture_of(place: int) -> bytes | None:
        picture = spool / str(place)
        return picture.read_bytes() if picture.exists() else None

    now = datetime.now().astimezone()
    write_check_report(path, reports, picture_of, folder=data.resolve(), modalities=chosen, now=now)


def _as_json(data: Path, chosen: Sequence[Modality], reports: Sequence[CaseReport]) -> dict[str, Any]:
    return {
        "folder": str(data),
        "modalities": list(chosen),
        "usable": sum(report.usable for report in reports),
        "cases": [
            {"case": r.case_id, "usable": r.usable, "findings": [asdict(finding) for finding in r.findings]} for r in reports
        ],
    }


def _show(reports: Sequence[CaseReport], *, only_bad: bool) -> None:
    from brainunet.data.checks import Severity
    from brainunet.data.checks.summary import tally

    console = Console(highlight=False, markup=False, emoji=False)
    width = max(len(_printable(report.case_id)) for report in reports)
    for report in reports:
        worst = report.worst or "ok"
        if only_bad and worst not in (Severity.ERROR, Severity.WARNING):
            continue
        line = Text(f"{worst:<7}", style=COLOURS[worst]).append(
            f"  {_printable(report.case_id):<{width}}", style="not bold default"
        )
        said = "; ".join(_printable(finding.said) for finding in report.findings)
        # one line a case, whatever is in a file's name; the terminal breaks it
        console.print(line.append(f"  {said}" if said else "", style="not bold default"), soft_wrap=True)
    table = Table("check", "errors", "warnings", "notes", "what to do", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in tally(reports):
        if row.counts:
            numbers = (str(row.counts[severity] or "") for severity in Severity)
            table.add_row(row.name, *numbers, Text(_printable(row.remedy[:1].upper() + row.remedy[1:])))
    if table.rows:
        console.print()
        console.print(table)
    usable, warned = sum(report.usable for report in reports), sum(report.worst is Severity.WARNING for report in reports)
    verdict = f"{len(reports)} {'case' if len(reports) == 1 else 'cases'}: {usable} usable"
    verdict += f" ({warned} of them to be looked at)" if warned else ""
    verdict += f", {len(reports) - usable} refused" if usable < len(reports) else ""
    console.print(Text(f"\n{verdict}."), soft_wrap=True)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
