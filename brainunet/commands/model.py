"""``brainunet model``: what a network costs."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from brainunet.commands.model_file import show, verify

app = typer.Typer(help="Networks and model files.", no_args_is_help=True)
app.command()(show)
app.command()(verify)


@app.command()
def info(
    preset: Annotated[
        str, typer.Option(help="brainunet, brainunet-fast, -lite, -nano, or a baseline: nnunet-plain, mednext-s ...")
    ] = "brainunet",
    norm: Annotated[str, typer.Option(help="group, batch or instance; the preset's own if not given")] = "",
    patch: Annotated[tuple[int, int, int], typer.Option(help="voxels of the patch that is counted")] = (128, 128, 128),
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """What a network costs: parameters, bytes, multiply-adds of one forward pass."""
    from brainunet.config import ModelConfig
    from brainunet.errors import UsageError
    from brainunet.model import size_of
    from brainunet.presets import default_norm
    from brainunet.settings import load

    if min(patch) < 1 or max(patch) > 512:
        raise UsageError("--patch", found=str(patch), expected="sides of 1 to 512 voxels")
    norm = norm or default_norm(preset)
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
