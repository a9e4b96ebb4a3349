"""A segmentation on one HTML page that asks nothing of any network: picture and style are inside, and no script is."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from brainunet.files import writing_aside
from brainunet.pictures.preview import PURPOSE


def write_prediction_report(
    path: Path,
    name: str,
    preview: Path,
    statistics: Mapping[str, Mapping[str, Any]],
    review: Mapping[str, str],
    facts: Mapping[str, str],
    *,
    demo: str = "",
) -> None:
    """Write the page.

    Args:
        preview: the PNG that is put into it.
        statistics: name of a structure -> its figures.
        review: rule -> why it asks for a look.
        facts: what -> value, on how it was made.
        demo: what to say of a model of made-up cases; empty for any other.

    Raises:
        BrainUNetError: the disk is full or the folder can't be written.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("prediction_report.html.j2").render(
        name=name,
        purpose=PURPOSE,
        demo=demo,
        picture=base64.b64encode(preview.read_bytes()).decode(),
        rows=[{"name": structure, **figures} for structure, figures in statistics.items()],
        review=list(review.values()),
        facts=facts,
    )
    with writing_aside(path, durable=False) as aside:
        aside.write_bytes(page.encode("utf-8", errors="replace"))  # a file's name may hold bytes that are no text
