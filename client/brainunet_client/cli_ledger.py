"""``brainunet-client --ledger``: what has left this site, or whether the ledger is as it was written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from brainunet_client.home import Home


def show_ledger(place: Home, verify: bool, as_json: bool) -> None:
    from brainunet import chain
    from brainunet.moments import iso
    from brainunet_client.ledger import require_kept, sentence, totals

    require_kept(place)
    if verify:
        verified = chain.verify(place.ledger)
        facts = {"entries": verified.entries, "head": verified.head, "torn": verified.torn}
        if as_json:
            typer.echo(json.dumps(facts))
            return
        typer.echo(f"{place.ledger}: {verified.entries} entries, each as it was written.")
        if verified.torn:
            typer.echo("Its last line was cut short; the next entry will set it aside.")
        if verified.head:
            typer.echo(f"The last is {verified.head}: note it elsewhere, and lines cut off later can be found out.")
        return
    entries = []
    for entry in chain.entries(place.ledger):  # a line of a changed ledger ends the list with an error, after those before it
        entries.append(entry)
        if not as_json:
            typer.echo(sentence(entry))
    sums = totals(entries)
    if as_json:
        told = [{"number": e.number, "at": iso(e.at), "kind": e.kind, "data": dict(e.data), "hash": e.digest} for e in entries]
        typer.echo(json.dumps({"entries": told, "transfers": sums.transfers, "bytes": sums.n_bytes, "runs": dict(sums.runs)}))
    elif sums.transfers:
        runs = ", ".join(f"{run} ({count})" for run, count in sums.runs.items())
        typer.echo(f"{sums.transfers} transfers, {sums.n_bytes / 1e6:.1f} MB in all; runs: {runs}")
    else:
        typer.echo(f"nothing has been sent from {place.path}")
