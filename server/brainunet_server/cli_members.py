"""The commands of ``flower-server`` about who is who: the federation itself, its hospitals and their keys."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainunet.errors import UsageError
from brainunet.moments import day, iso

if TYPE_CHECKING:
    from rich.table import Table

    from brainunet_server.kits import KitGiven

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="the federation's folder")]
Debug = Annotated[bool, typer.Option("--debug", help="show tracebacks")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Port = Annotated[int | None, typer.Option(help="TCP port", min=1, max=65535)]
Server = Annotated[str | None, typer.Option(help="HOST:PORT for the kit, if not that of federation.toml")]


class Key(StrEnum):
    SERVER = "server"
    SITE = "site"
    SIGNING = "signing"


def init(
    directory: Directory,
    name: Annotated[str, typer.Option(help="of the federation")],
    host: Annotated[list[str], typer.Option(help="DNS name or IP address by which hospitals reach it; may be repeated")],
    port: Port = None,
    model: Annotated[Path | None, typer.Option(help="model file that runs start from")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Begin a federation in DIR: keys, certificates, settings, and with --model the model to start from."""
    del debug
    from brainunet_server import founding
    from brainunet_server.federation import Folder
    from brainunet_server.roster import read_roster

    folder = Folder(directory)
    founded = founding.init(folder, name, host, port or 8443, model)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "folder": str(directory),
                    "federation": founded.name,
                    "fingerprint": founded.fingerprint,
                    "made": founded.made,
                    "kept": founded.kept,
                    "host": founded.host,
                    "port": founded.port,
                    "start_model": founded.has_start_model,
                }
            )
        )
        return
    typer.echo(f"federation {founded.name} in {directory}")
    if founded.made:
        typer.echo(f"made: {', '.join(founded.made)}")
    if founded.kept:
        typer.echo(f"kept as they were: {', '.join(founded.kept)}")
    if founded.port != (port or founded.port) or not set(founding.parsed_hosts(host)) <= set(founded.certified):
        typer.echo(
            f"note: host and port stay {founded.host} and {founded.port}; to change them edit federation.toml,"
            f" then: flower-server rotate {directory} server --host HOST"
        )
    typer.echo(f"fingerprint, to read out when a hospital opens its kit: {founded.fingerprint}")
    if not founded.has_start_model:
        again = ["init", str(directory), "--name", founded.name, "--host", founded.host, "--model", "MODEL"]
    elif not read_roster(folder.roster).active():
        again = ["enrol", str(directory), "REQUEST", "-o", "KIT"]
    else:
        again = ["run", str(directory)]
    typer.echo(f"next: flower-server {shlex.join(again)}")


def enrol(
    directory: Directory,
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="the file that the hospital sent")],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="KIT", help="file or folder for its kit")] = None,
    server: Server = None,
    replace: Annotated[bool, typer.Option("--replace", help="the site has a new key; its earlier one is revoked")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Let a hospital in by its request, and write the kit that it needs; the same request again gives its kit again."""
    del debug
    from brainunet_server import administration
    from brainunet_server.federation import Folder

    given = administration.enrol(Folder(directory), request, out, server, replace=replace)
    if as_json:
        typer.echo(json.dumps(_kit_facts(given)))
        return
    said = {"enrolled": "enrolled", "renewed": "renewed the certificate of", "unchanged": "already enrolled:"}[given.change]
    typer.echo(f"{said} {given.site}, certificate valid until {day(given.valid_until)}")
    typer.echo(f"its request's fingerprint: {given.request_fingerprint}")
    typer.echo(f"this federation's fingerprint: {given.federation_fingerprint}")
    typer.echo(
        f"compare both with {given.site} by telephone; if the first differs:"
        f" flower-server revoke {directory} {given.site} --reason 'another key'"
    )
    typer.echo(f"next: send {given.kit} to {given.site}; it holds no secret")


def sites(directory: Directory, as_json: AsJson = False, debug: Debug = False) -> None:
    """Who is enrolled, for how long their certificates last, and what a running server sees of them."""
    del debug
    from brainunet_server import screens
    from brainunet_server.federation import Folder
    from brainunet_server.roster import read_roster
    from brainunet_server.status import is_served, read_status

    folder = Folder(directory)
    folder.require()
    status = read_status(folder) if is_served(folder) else None
    rows = screens.site_rows(read_roster(folder.roster), status.sites if status else ())
    if as_json:
        typer.echo(json.dumps(rows))
    elif rows:
        show(screens.site_table(rows, live=status is not None))
    else:
        typer.echo(f"no site is enrolled; next: flower-server enrol {directory} REQUEST -o KIT")


def revoke(
    directory: Directory,
    name: Annotated[str, typer.Argument(metavar="NAME", help="of the site")],
    reason: Annotated[str, typer.Option(help="for the audit trail, in one line")],
    debug: Debug = False,
) -> None:
    """Put a hospital out: its key never comes back."""
    del debug
    from brainunet_server import administration
    from brainunet_server.federation import Folder

    administration.revoke(Folder(directory), name, reason)
    typer.echo(f"revoked {name}; to take it back, enrol it with a new key")


def rotate(
    directory: Directory,
    key: Annotated[Key, typer.Argument(metavar="server|site|signing", help="whose")],
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="of the site")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="file for the new kit, or folder for the new kits")] = None,
    host: Annotated[list[str] | None, typer.Option(help="one more name or address of the server; may be repeated")] = None,
    server: Server = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Renew the server's key and certificate, a site's certificate, or the key that signs models and kits."""
    del debug
    from brainunet_server import administration
    from brainunet_server.authority import hosts_of
    from brainunet_server.federation import Folder
    from brainunet_server.founding import parsed_hosts

    if (name is None) == (key is Key.SITE):
        raise UsageError(
            f"rotate {key}", found=f"the name {name!r}" if name else "no name", expected="a name for a site, and only then"
        )
    if host and key is not Key.SERVER:
        raise UsageError("--host", found=f"rotate {key}", expected="rotate server")
    if key is Key.SERVER and (out is not None or server is not None):
        raise UsageError("rotate server", found="-o or --server", expected="neither: it makes no kit")
    folder = Folder(directory)
    if key is Key.SERVER:
        certificate = administration.rotate_server(folder, parsed_hosts(host or ()))
        until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        if as_json:
            typer.echo(json.dumps({"hosts": hosts_of(certificate), "valid_until": until}))
        else:
            typer.echo(f"the server's new certificate is valid until {until} for {', '.join(hosts_of(certificate))}")
            typer.echo("a server that runs keeps the earlier one until it is started again")
        return
    if name is not None:
        given: tuple[KitGiven, ...] = (administration.rotate_site(folder, name, out, server),)
    else:
        given = administration.rotate_signing(folder, out, server)
    if as_json:
        typer.echo(json.dumps([_kit_facts(kit) for kit in given]))
        return
    again = f"flower-server publish {directory}, flower-server reader add {directory}"
    for kit in given:
        typer.echo(f"{kit.site}: certificate valid until {day(kit.valid_until)}; send it {kit.kit}")
    if name is None:
        typer.echo("there is a new signing key; models signed before can only be checked with the earlier kits and passes:")
        typer.echo(f"publish again, under a new name, what is to be fetched from now on, and give readers new passes ({again})")
        if given:
            typer.echo(f"fingerprint, to read out when a hospital opens its kit: {given[0].federation_fingerprint}")


def show(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def _kit_facts(given: KitGiven) -> Mapping[str, Any]:
    return {
        "site": given.site,
        "kit": str(given.kit),
        "change": given.change,
        "valid_until": iso(given.valid_until),
        "request_fingerprint": given.request_fingerprint or None,
        "federation_fingerprint": given.federation_fingerprint,
    }
