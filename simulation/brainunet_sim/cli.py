"""``brainunet-simulate``: a federation over virtual hospitals on this machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainunet.data.cases import parse_convention
from brainunet.errors import UsageError
from brainunet.folders import hold_folder, take_folder
from brainunet.settings import load
from brainunet.terminal import main_of, require_resume_alone, telling_how_to_go_on
from brainunet_sim.folder import SIMULATION
from brainunet_sim.scenario import SimulationConfig

if TYPE_CHECKING:
    from brainunet_sim.request import Request

app = typer.Typer(name="brainunet-simulate", add_completion=False, pretty_exceptions_enable=False)


@app.command()
def simulate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="folder for everything this makes")],
    data: Annotated[Path | None, typer.Option(help="folder of cases (BraTS 2021, BraTS 2023+ or BraTS-Africa names)")] = None,
    phantom: Annotated[bool, typer.Option("--phantom", help="make up cases instead")] = False,
    sites: Annotated[int | None, typer.Option(help="virtual hospitals", min=1)] = None,
    rounds: Annotated[int | None, typer.Option(help="rounds of training", min=1)] = None,
    partition: Annotated[str | None, typer.Option(help="iid, centre, size or dirichlet")] = None,
    partition_file: Annotated[Path | None, typer.Option(help="FeTS partition CSV instead of --partition")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="fedavg (default), fedprox, fedadam, fedmedian, ... (an unknown name lists all)")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="network, unless the model of --init names it")] = None,
    init: Annotated[str | None, typer.Option(help="model file to start from, 'starter' or 'random'")] = None,
    privacy: Annotated[
        str | None, typer.Option(help="train under differential privacy: eps=8, or eps=8,delta=1e-3,cases_per_step=4,clip=1.0")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="'local' also trains each site alone for the same steps")] = None,
    convention: Annotated[str | None, typer.Option(help="label numbers, where names don't tell: brats2021, brats2023")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="one setting, such as train.steps=40")] = None,
    database: Annotated[str | None, typer.Option(help="path or URL of the store (default: in --out)")] = None,
    seed: Annotated[int | None, typer.Option(help="equal seeds give equal figures on one machine's CPU", min=0)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the simulation begun in --out")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="begin anew where one was begun before")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the summary as JSON")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Federate BrainUNet over virtual hospitals, with the code of a real federation, on this machine."""
    if resume:
        require_resume_alone(context, "a simulation", beside={"database"})
        from brainunet_sim.request import saved_request

        begun = saved_request(out)
        # a password is not kept on disk, so a database may have to be named again
        with hold_folder(out, SIMULATION):
            _run(replace(begun, database=database or begun.database), as_json, quiet, debug)
        return
    if (data is None) != phantom:
        raise UsageError("--data and --phantom", found="both" if phantom else "neither", expected="one of them")
    from brainunet_sim.private_sites import privacy_options

    init = init or ("starter" if preset in (None, "brainunet-nano") else "random")
    options: dict[str, Any] = {
        "sites": sites,
        "rounds": rounds,
        "seed": seed,
        "baseline": baseline,
        "partition": partition and {"name": partition},
        "strategy": strategy and {"name": strategy},
        "model": preset and {"preset": preset},
        "phantom": {} if phantom else None,
        "privacy": privacy_options(privacy) if privacy else None,
    }
    from brainunet.training.start import settings_of_model
    from brainunet_sim.request import Request, new_run_id, save_request, start_file
    from brainunet_sim.run import require_possible

    resolved = load(
        SimulationConfig,
        config,
        settings or (),
        base=settings_of_model(start_file(init)),
        options={name: value for name, value in options.items() if value is not None},
    )
    request = Request(
        run_id=new_run_id(),
        out=out,
        config=resolved,
        data=data,
        init=init,
        database=database,
        convention=parse_convention(convention),
        partition_file=partition_file,
    )
    require_possible(request)
    with hold_folder(out, SIMULATION):
        take_folder(out, SIMULATION, overwrite, needed=[data, partition_file, request.start_file])
        save_request(request)
        _run(request, as_json, quiet, debug)


def _run(request: Request, as_json: bool, quiet: bool, debug: bool) -> None:
    from brainunet_sim.display import Display
    from brainunet_sim.run import Watch, simulate

    border = logging.getLogger("brainunet_client.flower.app")
    border.disabled = not debug  # a site's error ends a simulation, and is said once as the command's own
    try:
        with (
            telling_how_to_go_on("brainunet-simulate", request.out),
            Display(request.run_id, request.config.rounds, quiet=quiet or as_json) as display,
        ):
            summary = simulate(request, Watch(display.progress, display.sites, display.round))
    finally:
        border.disabled = False
    if as_json:
        typer.echo(json.dumps(summary))
        return
    first, last = summary["rounds"][0]["mean_dice"], summary["rounds"][-1]["mean_dice"]
    for region in ("WT", "TC", "ET"):
        typer.echo(f"mean {region} Dice over the sites' validation cases: {_figure(first, region)} -> {_figure(last, region)}")
    for site, spent in summary.get("privacy", {}).items():
        typer.echo(f"{site}: epsilon {spent['epsilon']:.2f} at delta {spent['delta']:g} (a simulation's noise protects nobody)")
    for problem in summary["skipped"]:
        typer.echo(f"skipped: {problem['reason']}")  # the reason begins with the name of the case or file
    typer.echo(f"{summary['seconds']:.0f} s, {summary['peak_memory_mb']} MB at most; see {request.out / 'dice.png'}")


def _figure(means: Mapping[str, float | None], region: str) -> str:
    value = means.get(region)
    return "none" if value is None else f"{value:.3f}"


main = main_of(app)
