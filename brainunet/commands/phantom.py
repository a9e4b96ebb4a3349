"""``brainunet phantom``: made-up cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from brainunet.terminal import progress_bar


def phantom(
    out: Annotated[Path, typer.Argument(help="folder to write the cases to")],
    cases: Annotated[int, typer.Option(help="how many", min=1)] = 6,
    style: Annotated[str, typer.Option(help="gli (clean) or ssa (thick slices, motion, noise, a scanner per centre)")] = "ssa",
    seed: Annotated[int, typer.Option(help="equal seeds give equal files", min=0)] = 0,
    shape: Annotated[tuple[int, int, int], typer.Option(help="voxels of 1 mm on each axis")] = (96, 96, 96),
    as_json: Annotated[bool, typer.Option("--json", help="print the case ids as JSON")] = False,
) -> None:
    """Make up cases: skull-stripped brains with a tumour, four modalities and a segmentation each, as NIfTI."""
    from brainunet.data.phantom import write_phantoms

    with progress_bar() as progress:
        task = progress.add_task("phantoms", total=cases)
        ids = write_phantoms(out, cases=cases, style=style, seed=seed, shape=shape, on_case=lambda _: progress.advance(task))
    if as_json:
        typer.echo(json.dumps({"out": str(out), "cases": ids}))
    else:
        typer.echo(f"{len(ids)} {style}-style cases in {out}: {ids[0]}{' ... ' + ids[-1] if len(ids) > 1 else ''}")
