"""``brainunet``: commands on one machine. Heavy libraries are imported by the command that needs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from brainunet import __version__
from brainunet.terminal import main_of, progress_bar

app = typer.Typer(
    name="brainunet",
    help="Glioma segmentation with BrainUNet. Research only: not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
model_app = typer.Typer(help="Networks and model files.", no_args_is_help=True)
app.add_typer(model_app, name="model")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    del version, debug


@app.command()
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


@model_app.command()
def info(
    preset: Annotated[str, typer.Option(help="brainunet, brainunet-fast, brainunet-lite or brainunet-nano")] = "brainunet",
    norm: Annotated[str, typer.Option(help="group, batch or instance")] = "group",
    patch: Annotated[tuple[int, int, int], typer.Option(help="voxels of the patch that is counted")] = (128, 128, 128),
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """What a network costs: parameters, bytes, multiply-adds of one forward pass."""
    from brainunet.config import ModelConfig, load
    from brainunet.errors import UsageError
    from brainunet.model import size_of

    if min(patch) < 1 or max(patch) > 512:
        raise UsageError("--patch", found=str(patch), expected="sides of 1 to 512 voxels")
    config = load(ModelConfig, base={"preset": preset, "norm": norm})
    try:
        size = size_of(config, patch)
    except ValueError as error:  # of a norm whose channel has shrunk to one voxel
        raise UsageError("--patch", found=str(error), expected="a patch that this network can halve") from None
    facts = {
        "preset": preset,
        "norm": norm,
        "modalities": list(config.modalities),
        "parameters": size.parameters,
        "bytes": size.n_bytes,
        "multiply_adds": size.multiply_adds,
        "patch": list(size.patch),
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table("what", "value", title=f"{preset}, {norm} norm", title_justify="left")
    table.add_row("input", f"{len(config.modalities)} channels: {', '.join(config.modalities)}")
    table.add_row("parameters", f"{size.parameters:,}")
    table.add_row("size in fp32", f"{size.n_bytes / 1e6:.2f} MB")
    table.add_row(f"multiply-adds at {'x'.join(map(str, patch))}", f"{size.multiply_adds / 1e9:.1f} G")
    Console().print(table)


main = main_of(app)
