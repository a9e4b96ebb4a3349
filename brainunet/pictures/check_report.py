"""The report of a check as one HTML file that asks nothing of any network: pictures and style are inside, and no script is."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from brainunet import __version__
from brainunet.data.checks import CaseReport, Severity
from brainunet.data.checks.summary import tally
from brainunet.files import writing_aside
from brainunet.labels import Modality
from brainunet.pictures.palette import ON_GREY


def write_check_report(
    path: Path,
    reports: Sequence[CaseReport],
    picture_of: Callable[[int], bytes | None],
    *,
    folder: Path,
    modalities: Sequence[Modality],
    now: datetime,
) -> None:
    """Write the report, only for its owner to read; cases are written one after the other, so memory holds one picture.

    Args:
        path: the HTML file; it appears when it is whole.
        reports: of all cases.
        picture_of: the JPEG of the case with that place in ``reports``, or None.
        folder: what was examined, for the title.
        modalities: which images were examined.
        now: the time that is shown.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    places = sorted(range(len(reports)), key=lambda place: (_rank(reports[place]), place))
    rows = tally(reports)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template("check_report.html.j2")
    usable = sum(report.usable for report in reports)
    stream = template.stream(
        total=len(reports),
        folder=folder,
        modalities=", ".join(modalities),
        made=now.strftime("%d %B %Y, %H:%M"),
        version=__version__,
        tally={
            "usable": usable,
            "error": len(reports) - usable,
            "warning": sum(report.worst is Severity.WARNING for report in reports),
        },
        checks=[row for row in rows if row.counts],
        silent=[row.name for row in rows if not row.counts],
        order=[_shown(reports[place]) for place in places],
        cases=_with_pictures(reports, places, picture_of),
        contours=[(label.name, colour) for label, colour in ON_GREY.items()],
    )
    with writing_aside(path) as aside:
        aside.touch(0o600)
        with aside.open("wb") as file:
            stream.dump(file, encoding="utf-8", errors="replace")  # a file's name may hold bytes that are no text


def _with_pictures(
    reports: Sequence[CaseReport], places: Sequence[int], picture_of: Callable[[int], bytes | None]
) -> Iterator[dict[str, Any]]:
    for place in places:
        picture = picture_of(place)
        yield {**_shown(reports[place]), "picture": base64.b64encode(picture).decode() if picture else None}


def _shown(report: CaseReport) -> dict[str, Any]:
    return {"case_id": report.case_id, "worst": report.worst or "clean", "findings": report.findings}


def _rank(report: CaseReport) -> int:
    return list(Severity).index(report.worst) if report.worst else len(Severity)
