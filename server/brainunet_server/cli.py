"""``flower-server``: the coordinator's commands. What a command needs is imported by it, so that ``--help`` is instant."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from brainunet import __version__
from brainunet.errors import BrainUNetError, FederationError, UsageError
from brainunet.terminal import main_of
from brainunet_server.cli_members import AsJson, Debug, Directory, Port, enrol, init, revoke, rotate, show, sites
from brainunet_server.cli_models import models, publish, reader, withdraw
from brainunet_server.cli_privacy import privacy
from brainunet_server.cli_registry import registry
from brainunet_server.cli_scores import scores

app = typer.Typer(
    name="flower-server",
    help="Coordinate a federation of hospitals. Research only: not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (init, enrol, sites, revoke, rotate, scores, privacy, publish, models, withdraw, registry):
    app.command()(command)
app.add_typer(reader, name="reader")

STOP_PATIENCE_S = 60.0


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
) -> None:
    del version


@app.command()
def run(
    directory: Directory,
    database: Annotated[str | None, typer.Option(help="path or URL of the store")] = None,
    port: Port = None,
    listen: Annotated[str | None, typer.Option(help="address of this machine to listen on")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="a demonstration on this machine alone")] = False,
    new_run: Annotated[bool, typer.Option("--new-run", help="begin a new run, also where one was left unfinished")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="one setting, such as rounds.count=5")] = None,
    debug: Debug = False,
) -> None:
    """Serve the federation: a run from where it stands to its last round."""
    del debug
    from brainunet_server.federation import Folder, ServeOptions
    from brainunet_server.serve import serve

    serve(Folder(directory), ServeOptions(database, port, listen, demo, new_run, tuple(settings or ())))


@app.command()
def status(directory: Directory, as_json: AsJson = False, debug: Debug = False) -> None:
    """How the run stands: round, deadline, and what each site does."""
    del debug
    from brainunet_server import screens
    from brainunet_server.federation import Folder
    from brainunet_server.status import read_status, serving_pid

    folder = Folder(directory)
    folder.require()
    pid, said = serving_pid(folder), read_status(folder)
    if as_json:
        facts = {"served": pid is not None, "pid": pid, "status": said.model_dump(mode="json") if said else None}
        typer.echo(json.dumps(facts))
        return
    for line in screens.status_lines(folder, said, pid):
        typer.echo(line)
    if said is not None and pid is not None and said.sites:
        show(screens.status_table(said))


@app.command()
def pause(directory: Directory, debug: Debug = False) -> None:
    """Begin no further round; the one in progress is completed."""
    del debug
    from brainunet_server.federation import Folder
    from brainunet_server.status import is_served, want

    folder = Folder(directory)
    folder.require()
    if not is_served(folder):
        raise FederationError(
            str(directory), found="no server runs for it", expected="one to pause", remedy="start it to pause it, or leave it"
        )
    want(folder, "pause")
    typer.echo(f"it completes the round in progress and begins no other; go on with: flower-server resume {directory}")


@app.command()
def resume(directory: Directory, debug: Debug = False) -> None:
    """Go on after a pause."""
    del debug
    from brainunet_server.federation import Folder
    from brainunet_server.status import is_served, want

    folder = Folder(directory)
    folder.require()
    want(folder, "run")
    if is_served(folder):
        typer.echo("it goes on with the next round")
    else:
        typer.echo(f"the pause is over, but no server runs; start it: flower-server run {directory}")


@app.command()
def stop(directory: Directory, debug: Debug = False) -> None:
    """End the server that runs; the run goes on where it stopped with the next `flower-server run`."""
    del debug
    from brainunet_server.federation import Folder
    from brainunet_server.status import serving_pid, wait_for_end, want

    folder = Folder(directory)
    folder.require()
    pid = serving_pid(folder)
    if pid is None:
        typer.echo(f"no server runs for {directory}")
        return
    want(folder, "stop")
    typer.echo(f"asked process {pid} to stop; waiting up to {STOP_PATIENCE_S:.0f} s for its end", err=True)
    if not wait_for_end(folder, STOP_PATIENCE_S):
        raise FederationError(
            str(directory),
            found=f"process {pid} still runs after {STOP_PATIENCE_S:.0f} s",
            expected="its end",
            remedy=f"ask again later, or end it by hand: kill {pid}; complete rounds are kept",
        )
    typer.echo(f"stopped; go on with: flower-server run {directory}")


@app.command()
def audit(
    directory: Directory,
    verify: Annotated[bool, typer.Option("--verify", help="check the chain; exit code 1 if it is broken")] = False,
    kind: Annotated[str | None, typer.Option(help="only entries of this kind, such as site-enrolled")] = None,
    site: Annotated[str | None, typer.Option(help="only entries that name this site")] = None,
    last: Annotated[int | None, typer.Option(help="only so many, from the end", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, one entry a line")] = False,
    debug: Debug = False,
) -> None:
    """Everything that happened to the federation, in a chain in which no line can be changed unseen."""
    del debug
    from collections import deque

    from brainunet import chain
    from brainunet_server import screens
    from brainunet_server.federation import Folder

    folder = Folder(directory)
    folder.require()
    if not folder.audit.exists():
        raise BrainUNetError(
            folder.audit,
            found="it is missing",
            expected="the audit trail that init began",
            remedy="restore it from your backup and find out who removed it",
        )
    first = next(chain.entries(folder.audit), None)
    if first is None or first.kind != "federation-created":
        raise BrainUNetError(
            folder.audit,
            found="it does not begin with the making of the federation",
            expected="the audit trail that init began",
            remedy="restore it from your backup and find out who changed it",
        )
    if verify:
        if kind or site or last:
            raise UsageError("--verify", found="it came with --kind, --site or --last", expected="only the whole chain")
        found = chain.verify(folder.audit)
        if as_json:
            typer.echo(json.dumps({"entries": found.entries, "head": found.head, "torn": found.torn}))
            return
        typer.echo(f"{found.entries} entries, each as it was written; head {found.head}")
        if found.torn:
            typer.echo("a last line was cut short, as by a power cut; the next entry sets it aside")
        typer.echo("note the head elsewhere: it shows later whether lines were cut off the end")
        return
    entries = (e for e in chain.entries(folder.audit) if kind in (None, e.kind) and site in (None, e.data.get("site")))
    for entry in deque(entries, maxlen=last) if last else entries:
        typer.echo(json.dumps(screens.entry_facts(entry)) if as_json else screens.entry_line(entry))


main = main_of(app)
