"""``brainunet-client``: the hospital's one command. Heavy libraries are imported by the mode that needs them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import click
import typer

from brainunet import __version__
from brainunet.errors import UsageError
from brainunet.home_folder import home_of
from brainunet.terminal import main_of

app = typer.Typer(name="brainunet-client", add_completion=False, pretty_exceptions_enable=False)

# A mode and the options that go with it; --home and --debug go with every one.
_MODES: Final[Mapping[str, frozenset[str]]] = {
    "enrol": frozenset({"server", "new_key"}),
    "kit": frozenset({"fingerprint", "replace"}),
    "data": frozenset({"check", "dry_run", "as_json"}),
    "ledger": frozenset({"verify", "as_json"}),
    "privacy": frozenset({"settle", "as_json"}),
}
_MODES_IN_WORDS: Final = (
    "one of --enrol NAME --server HOST:PORT [--new-key]; --kit KIT [--fingerprint DIGITS] [--replace]; --data DIR; "
    "--data DIR --check [--json]; --data DIR --dry-run [--json]; --ledger [--verify] [--json]; "
    "--privacy [--settle STEPS] [--json]"
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def client(
    context: typer.Context,
    enrol: Annotated[str | None, typer.Option(metavar="NAME", help="make this site's key and its request to join")] = None,
    server: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="the coordinator's server, for --enrol")] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="with --enrol: set the old key aside and make another")] = False,
    kit: Annotated[Path | None, typer.Option(help="install the kit that the coordinator sent")] = None,
    fingerprint: Annotated[str | None, typer.Option(help="with --kit: what the coordinator read out; asks nothing")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="with --kit: in place of a kit with other keys")] = False,
    data: Annotated[Path | None, typer.Option(help="folder of cases: take part in the federation with them")] = None,
    check: Annotated[bool, typer.Option("--check", help="with --data: only look whether everything is ready")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="with --data: show what would leave, and send nothing")] = False,
    ledger: Annotated[bool, typer.Option("--ledger", help="show what has left this site")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="with --ledger: only check that it was not changed")] = False,
    privacy: Annotated[bool, typer.Option("--privacy", help="show what of the budget of privacy is spent and left")] = False,
    settle: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NOISE,RATE,STEPS[,RUN]", help="with --privacy: go on with a stopped ledger that lost so much, or none"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON (--check, --dry-run, --ledger, --privacy)")] = False,
    home: Annotated[Path, typer.Option(envvar="BRAINUNET_HOME", help="folder of key, kit, settings and ledger")] = Path(
        "~/.brainunet"
    ),
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Take part in a federation that trains on this hospital's cases: the cases stay, changes of a model's weights go.

    Joining takes two steps: --enrol makes a request to send to the coordinator, --kit installs the answer. Then --data runs.
    """
    del debug, version
    from brainunet_client.home import Home

    mode = _mode_of(context)
    place = Home(home_of(home))
    if enrol is not None:
        if server is None:
            raise UsageError("--enrol", found="no --server", expected="--server HOST:PORT", remedy="ask the coordinator for it")
        from brainunet_client.cli_joining import ask_to_join

        ask_to_join(place, enrol, server, new_key)
    elif kit is not None:
        from brainunet_client.cli_joining import install

        install(place, kit, fingerprint, replace)
    elif mode == "ledger":
        from brainunet_client.cli_ledger import show_ledger

        show_ledger(place, verify, as_json)
    elif mode == "privacy":
        from brainunet_client.cli_privacy import show_privacy

        show_privacy(place, settle or [], as_json)
    elif data is not None:
        from brainunet_client.cli_data import use

        use(place, data, check=check, dry_run=dry_run, as_json=as_json)


def _mode_of(context: typer.Context) -> str:
    """The one mode that was asked for.

    Raises:
        UsageError: none, several, or one with another's options.
    """
    given = [p for p in context.command.params if p.name and _is_given(context, p.name)]
    modes = [p for p in given if p.name in _MODES]
    if len(modes) != 1:
        found = " and ".join(p.opts[0] for p in modes) + " together" if modes else "nothing to do"
        raise UsageError("brainunet-client", found=found, expected=_MODES_IN_WORDS)
    mode = str(modes[0].name)
    extra = [p.opts[0] for p in given if p.name not in {mode, "home", "debug"} | _MODES[mode]]
    if extra:
        raise UsageError("brainunet-client", found=f"{modes[0].opts[0]} with {', '.join(extra)}", expected=_MODES_IN_WORDS)
    options = {p.name for p in given}
    if {"check", "dry_run"} <= options:
        raise UsageError("brainunet-client", found="--check and --dry-run together", expected=_MODES_IN_WORDS)
    if mode == "data" and "as_json" in options and not options & {"check", "dry_run"}:
        raise UsageError("brainunet-client", found="--data with --json alone", expected=_MODES_IN_WORDS)
    return mode


def _is_given(context: typer.Context, name: str) -> bool:
    return context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


main = main_of(app)
