"""``brainunet-dashboard``: pages over a store, on this machine alone unless they are protected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from brainunet import __version__
from brainunet.errors import UsageError
from brainunet.moments import duration
from brainunet.terminal import main_of

app = typer.Typer(name="brainunet-dashboard", add_completion=False, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def dashboard(
    directory: Annotated[
        str,
        typer.Argument(metavar="[DIR]", help="folder of a federation or simulation (default: this one), or its store's file"),
    ] = ".",
    database: Annotated[
        str | None,
        typer.Option(envvar="BRAINUNET_DATABASE", show_envvar=True, help="path or URL of the store instead of DIR's"),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="of this machine (default: 8501 or the next free one)", min=0, max=65535)
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="listen for other machines too; needs --oidc or --behind-proxy")
    ] = False,
    oidc: Annotated[Path | None, typer.Option(help="TOML file: a login by OpenID Connect, and who is allowed in")] = None,
    behind_proxy: Annotated[
        str | None, typer.Option(metavar="URL", help="address of a reverse proxy that asks people who they are")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="also where nothing is yet, for a run that is about to begin")] = False,
    refresh: Annotated[float, typer.Option(help="seconds between two looks for what is new", min=1, max=3600)] = 10,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Watch a federation or simulation in a browser, live; it only reads. Research only: not a medical device."""
    del version
    from brainunet_dashboard.access import access_of
    from brainunet_dashboard.source import Source, where_to_look

    access = access_of(public=public, oidc=oidc, behind_proxy=behind_proxy)
    named_twice = database is not None and ("://" in directory or Path(directory).is_file())
    if named_twice:
        raise UsageError(directory, found="a store, and --database names one too", expected="a folder beside --database")
    where, folder = where_to_look(directory, database)
    if database is not None and directory == ".":
        folder = None  # nobody named the folder that this happens to be
    source = Source(
        where,
        folder,
        refresh,
        needs_login=access.needs_login,
        allowed=access.allowed,
        takes_unverified=access.takes_unverified,
        waits=wait,
    )
    from brainunet_dashboard.first_look import first_look
    from brainunet_dashboard.serving import serve

    problem = first_look(source)
    if problem:
        typer.echo(f"{problem} The pages look again every {duration(refresh)}.", err=True)
    serve(source, access, port, debug=debug)


main = main_of(app)
