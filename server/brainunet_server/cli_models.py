"""The commands of ``flower-server`` about published models, and about who may fetch them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from brainunet.errors import UsageError
from brainunet.moments import day, iso
from brainunet_server.cli_members import AsJson, Debug, Directory, show

if TYPE_CHECKING:
    from brainunet_server.store.reader import StoreReader

Row: TypeAlias = dict[str, Any]
Database = Annotated[str | None, typer.Option(help="path or URL of the store, as given to run")]
ReaderName = Annotated[str, typer.Argument(metavar="NAME", help="of the reader")]

reader = typer.Typer(help="Who may fetch published models without being a hospital of the federation.", no_args_is_help=True)


def publish(
    directory: Directory,
    which: Annotated[str, typer.Option("--round", help='number of a round, or "best"')],
    name: Annotated[str, typer.Option(help="of the release, such as africa-2026.1")],
    notes: Annotated[str, typer.Option(help="for those who use the model; stands on its card")] = "",
    run: Annotated[str | None, typer.Option(help="which run (default: the latest)")] = None,
    database: Database = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Publish a round's model: name, complete card and signature. `flower-server registry` gives it to others."""
    del debug
    from brainunet_server import publishing
    from brainunet_server.federation import Folder

    if which != "best" and not (which.isascii() and which.isdigit() and len(which) <= 7):
        raise UsageError("--round", found=repr(which)[:40], expected='the number of a round, or "best"')
    chosen: publishing.Round = "best" if which == "best" else int(which)
    published = publishing.publish(Folder(directory), chosen, name, notes, run=run, database=database)
    released = published.row
    if as_json:
        facts = {
            "release": released.name,
            "run": released.run_id,
            "round": released.round,
            "file": released.file,
            "has_figures": published.has_figures,
        }
        typer.echo(json.dumps(facts | {"sha256": released.sha256, "bytes": released.n_bytes}))
        return
    typer.echo(f"published {released.name}: round {released.round} of run {released.run_id}, {released.n_bytes / 1e6:.1f} MB")
    if not published.has_figures:
        typer.echo(
            "note: its card has no figures and never will, for no site has told any of this model: a site scores a round's "
            "model in the next round, and withholds what is of too few cases"
        )
    typer.echo(f"{directory / released.file}, signed; its card: brainunet model show {directory / released.file}")
    typer.echo(f"next: flower-server registry {directory}, and at a hospital: brainunet pull --name {released.name}")


def models(directory: Directory, database: Database = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """What was published: which round, how good, how often fetched, what was withdrawn."""
    del debug
    from brainunet_server import screens
    from brainunet_server.releases import release_facts

    rows = _read(directory, database, release_facts)
    if as_json:
        typer.echo(_in_json(rows))
    elif rows:
        show(screens.release_table(rows))
    else:
        typer.echo(f"nothing is published; next: flower-server publish {directory} --round best --name NAME")


def withdraw(
    directory: Directory,
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the release")],
    reason: Annotated[str, typer.Option(help="told to everybody who asks for it, in one line")],
    database: Database = None,
    debug: Debug = False,
) -> None:
    """Give a release to nobody any more; those who fetched it are told when they next ask."""
    del debug
    from brainunet_server.federation import Folder
    from brainunet_server.releases import withdraw as withdraw_release

    withdraw_release(Folder(directory), name, reason, database=database)
    typer.echo(f"withdrew {name}; its file stays in {directory / 'published'}, and its name is never used again")


@reader.command("add")
def add(
    directory: Directory,
    name: ReaderName,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="PASS", help="file or folder for the pass")],
    days: Annotated[int, typer.Option(help="how long it can be used", min=1, max=3650)] = 365,
    database: Database = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Let somebody fetch published models, and write the pass that they need."""
    del debug
    from brainunet_server import readers
    from brainunet_server.federation import Folder

    given = readers.add_reader(Folder(directory), name, out, days, database=database)
    if as_json:
        facts = {"reader": given.reader, "pass": str(given.file), "server": given.server}
        typer.echo(json.dumps(facts | {"valid_until": iso(given.expires_at), "federation_fingerprint": given.fingerprint}))
        return
    typer.echo(f"{given.reader} may fetch models at {given.server} until {day(given.expires_at)}")
    typer.echo(f"this federation's fingerprint, to compare by telephone: {given.fingerprint}")
    typer.echo(f"next: give {given.file} to them over a way that nobody else reads: whoever has it is {given.reader}")


@reader.command("revoke")
def revoke(directory: Directory, name: ReaderName, database: Database = None, debug: Debug = False) -> None:
    """Refuse a reader's pass from now on."""
    del debug
    from brainunet_server import readers
    from brainunet_server.federation import Folder

    readers.revoke_reader(Folder(directory), name, database=database)
    typer.echo(f"revoked {name}; models it has fetched stay where they are")


@reader.command("list")
def listed(directory: Directory, database: Database = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """Who has a pass, until when, and what they have fetched."""
    del debug
    from brainunet_server import screens

    rows = _read(directory, database, lambda store: screens.reader_rows(store.readers(), store.downloads()))
    if as_json:
        typer.echo(_in_json(rows))
    elif rows:
        show(screens.reader_table(rows))
    else:
        typer.echo(f"nobody has a pass; next: flower-server reader add {directory} NAME -o NAME.pass.json")


def _read(directory: Path, database: str | None, rows_of: Callable[[StoreReader], list[Row]]) -> list[Row]:
    """What the store says: nothing of a new federation's own, which its first run makes; one that was named must be there."""
    from brainunet_server.federation import Folder, read_settings
    from brainunet_server.running import database_of
    from brainunet_server.store.reader import StoreReader

    folder = Folder(directory)
    where = database_of(folder, read_settings(folder), database)
    if isinstance(where, Path) and not where.exists():
        return []
    with StoreReader(where) as store:
        return rows_of(store)


def _in_json(rows: list[Row]) -> str:
    return json.dumps([{name: _plain(value) for name, value in row.items()} for row in rows])


def _plain(value: Any) -> Any:
    return iso(value) if isinstance(value, datetime) else value
