"""``flower-server scores``: how each site scored each round's model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainunet.errors import ConfigError, UsageError
from brainunet_server.cli_members import AsJson, Debug, Directory, show

if TYPE_CHECKING:
    from brainunet_server.store.reader import StoreReader


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
    from brainunet_server.store.reader import StoreReader

    if structure not in get_args(Structure):
        raise UsageError("--structure", found=structure, expected=" or ".join(get_args(Structure)))
    folder = Folder(directory)
    config = read_settings(folder)
    with StoreReader(database or config.database or folder.store) as store:
        found = run or _latest(store, directory)
        rows = score_rows(store, found, structure)
    if as_json:
        typer.echo(json.dumps({"run": found, "structure": structure, "rounds": rows}))
        return
    typer.echo(f"run {found}: mean Dice of {structure} (validation cases), round by round; round 0 is the start model")
    show(screens.score_table(rows))


def score_rows(store: StoreReader, run: str, structure: str) -> list[dict[str, Any]]:
    """A row for each round's model: site -> its mean and n, or "withheld"; ``all`` is the mean over all cases."""
    from brainunet.metrics.summary import federation_mean
    from brainunet_server.store.reader import site_scores

    withheld = {(row.round - 1, row.site) for row in store.site_rounds(run) if row.withheld}
    by_round = site_scores(store.scores(run))
    rows = []
    for number in sorted(set(by_round) | {round_ for round_, _ in withheld}):
        scored = by_round.get(number, {})
        sites: dict[str, Any] = {
            site: next(({"mean": r.mean, "n": r.n} for r in score.rows if (r.structure, r.metric) == (structure, "dice")), None)
            for site, score in scored.items()
        }
        sites |= {site: "withheld" for round_, site in withheld if round_ == number}
        means: dict[Any, float | None] = dict(federation_mean(scored.values()))
        rows.append({"round": number, "sites": dict(sorted(sites.items())), "all": means.get(structure)})
    return rows


def _latest(store: StoreReader, directory: object) -> str:
    runs = [run for run in store.runs() if run.kind == "federation"]
    if not runs:
        remedy = f"start one: flower-server run {directory}"
        raise ConfigError("store", found="no run yet", expected="one that has begun", remedy=remedy)
    return max(runs, key=lambda run: run.started_at).id
