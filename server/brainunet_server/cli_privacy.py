"""``flower-server privacy``: what the private training of each site has cost, as the sites' own ledgers told it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from brainunet_server.cli_members import AsJson, Debug, Directory, show

if TYPE_CHECKING:
    from brainunet.privacy.accounting import Charge
    from brainunet_server.store.rows import SpendRow


def privacy(
    directory: Directory,
    site: Annotated[str | None, typer.Option(help="only this site, and what to write where its ledger was lost")] = None,
    database: Annotated[str | None, typer.Option(help="path or URL of the store, as given to run")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Epsilon of each site, by run and round; with --site also the words with which a lost ledger is settled there."""
    del debug
    from brainunet.moments import iso
    from brainunet_server import screens
    from brainunet_server.federation import Folder, read_settings
    from brainunet_server.store.reader import StoreReader

    folder = Folder(directory)
    config = read_settings(folder)
    with StoreReader(database or config.database or folder.store) as store:
        rows = [row for row in store.spends() if site in (None, row.site)]
    if as_json:
        names = ("run_id", "round", "site", "epsilon", "delta", "noise_multiplier", "sample_rate", "steps")
        more = ("accountant", "total_epsilon", "total_delta", "ledger_head", "ledger_entries")
        told = [{name: getattr(row, name) for name in (*names, *more)} | {"told_at": iso(row.told_at)} for row in rows]
        typer.echo(json.dumps({"spends": told}))
        return
    if not rows:
        of = f" of {site}" if site else ""
        typer.echo(f"no private training{of} yet; it is asked for by the part [privacy] of federation.toml, in a new run")
        return
    typer.echo("what all rounds of a run, and all runs of a site, tell of any one of its training cases at most:")
    show(screens.spend_table(rows))
    for note in screens.spend_notes(rows):
        typer.echo(note)
    if site is not None:
        words = " ".join(
            f"--settle {charge.noise!r},{charge.rate!r},{charge.steps},{run}"
            for run, charges in all_that(rows).items()
            for charge in charges
        )
        typer.echo(f"if all of the ledger of {site} was lost: brainunet-client --privacy {words}")
        typer.echo("if a part was lost: only the steps above that the site's own table (brainunet-client --privacy) has not")


def all_that(rows: Sequence[SpendRow]) -> dict[str, list[Charge]]:
    """Run -> all that one site has spent for it, in steps: no less in all than its ledger told last.

    A reply that never came, or a round that was trained a second time, is in the site's ledger and not in the rows. For it
    steps of the last kind are added until they cost what the site told of all its runs.
    """
    from brainunet.privacy.accounting import Charge
    from brainunet.privacy.calibration import steps_to

    steps: Counter[tuple[str, float, float]] = Counter()
    for row in rows:
        steps[row.run_id, row.noise_multiplier, row.sample_rate] += row.steps
    last = rows[-1]
    if last.total_epsilon is not None and last.total_delta is not None:
        known = [Charge(noise, rate, count) for (_, noise, rate), count in steps.items()]
        step = Charge(last.noise_multiplier, last.sample_rate)
        steps[last.run_id, step.noise, step.rate] += steps_to(last.total_epsilon, known, step, last.total_delta)
    found: dict[str, list[Charge]] = {}
    for (run, noise, rate), count in steps.items():
        found.setdefault(run, []).append(Charge(noise, rate, count))
    return found
