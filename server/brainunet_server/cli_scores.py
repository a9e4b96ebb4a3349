"""``flower-server scores``: how each site scored each round's model."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from brainunet.errors import UsageError
from brainunet_server.cli_members import AsJson, Debug, Directory, show


def scores(
    directory: Directory,
    structure: Annotated[str, typer.Option(help="WT, TC, ET (regions), NETC or SNFH (labels)")] = "WT",
    run: Annotated[str | None, typer.Option(help="which run (default: the latest)")] = None,
    database: Annotated[str | None, typer.Option(help="path or URL of the store, as given to run")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Mean Dice of each round's model at every site, with the number of validation cases behind it."""
    del debug
    from typing import get_args

    from brainunet.records import Structure
    from brainunet_server import screens
    from brainunet_server.federation import Folder, read_settings
    from brainunet_server.running import database_of
    from brainunet_server.store.reader import StoreReader, dice_by_round

    known: tuple[Structure, ...] = get_args(Structure)
    of = next((one for one in known if one == structure), None)
    if of is None:
        raise UsageError("--structure", found=structure, expected=" or ".join(known))
    folder = Folder(directory)
    config = read_settings(folder)
    with StoreReader(database_of(folder, config, database)) as store:
        found = run or store.latest_run("federation").id
        rows = dice_by_round(store, found, of)
        spends = {row.site: row for row in store.spends(found)}  # the last of each
    if as_json:
        epsilons = {site: {"epsilon": row.epsilon, "delta": row.delta} for site, row in sorted(spends.items())}
        facts = {"run": found, "structure": structure, "rounds": rows} | ({"privacy": epsilons} if epsilons else {})
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"run {found}: mean Dice of {structure} (validation cases), round by round; round 0 is the start model")
    show(screens.score_table(rows))
    for site, row in sorted(spends.items()):
        typer.echo(f"{screens.shown(site)}: epsilon {row.epsilon:.3f} at delta {row.delta:g} after round {row.round}")
