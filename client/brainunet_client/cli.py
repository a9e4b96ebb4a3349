"""``brainunet-client``: the hospital's one command. Heavy libraries are imported by the mode that needs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import click
import typer

from brainunet import __version__
from brainunet.errors import BrainUNetError, ConfigError, DataError, UsageError
from brainunet.terminal import main_of

if TYPE_CHECKING:
    from brainunet.kit import Kit
    from brainunet_client.home import Home

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
        typer.Option(metavar="NOISE,RATE,STEPS", help="with --privacy: go on with a stopped ledger that lost so much, or none"),
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
    place = Home(home.expanduser())
    if enrol is not None:
        if server is None:
            raise UsageError("--enrol", found="no --server", expected="--server HOST:PORT", remedy="ask the coordinator for it")
        _enrol(place, enrol, server, new_key)
    elif kit is not None:
        _install(place, kit, fingerprint, replace)
    elif mode == "ledger":
        _show_ledger(place, verify, as_json)
    elif mode == "privacy":
        from brainunet_client.cli_privacy import show_privacy

        show_privacy(place, settle or [], as_json)
    elif data is not None:
        _use(place, data, check=check, dry_run=dry_run, as_json=as_json)


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


def _enrol(place: Home, name: str, server: str, new_key: bool) -> None:
    from brainunet_client.enrolment import make_request
    from brainunet_client.home import open_home

    _require_free_here(place, name)
    home = open_home(place.path)
    request = make_request(home, name, server, new_key=new_key)
    kept = home.request_of(request.name)
    typer.echo(f"request of {request.name}: {_copy_here(kept)}")
    typer.echo(f"fingerprint: {request.fingerprint}")
    typer.echo("It holds the name and a public key, and no patient data.")
    typer.echo("Next:")
    typer.echo(f"  1. Send the file to the coordinator of {server}, and read out the fingerprint when they call.")
    typer.echo("  2. When a kit comes back: brainunet-client --kit KIT")
    typer.echo(f"Settings of this hospital: {home.settings}; excluded cases: {home.consent}")


def _require_free_here(place: Home, name: str) -> None:
    """Pass if the request of ``name`` may be copied into the current folder: nobody else's is lost by it.

    Raises:
        ConfigError: there is one of this name that this home has not made.
    """
    here = Path.cwd() / f"{name}.request"
    if Path(name).name != name or not here.is_file():  # what is no name is refused later
        return
    ours = [path.read_bytes() for path in place.path.glob("*.request*")]  # those set aside by --new-key too
    if not os.access(here, os.R_OK) or here.read_bytes() not in ours:
        raise ConfigError(
            here,
            found=f"there is another request of this name in {here.parent}",
            expected="a free place for the request of this site, or its own",
            remedy="move that file away, or give this command in another folder; nothing was made yet",
        )


def _copy_here(kept: Path) -> Path:
    """The request in the current folder, from where it is easily sent; where that can't be, the one that is kept."""
    from brainunet.files import writing_aside

    try:
        here = Path.cwd() / kept.name
        if here.exists() and here.samefile(kept):
            return kept
        with writing_aside(here) as aside:
            aside.write_bytes(kept.read_bytes())
    except (OSError, BrainUNetError):
        return kept
    return here


def _install(place: Home, path: Path, fingerprint: str | None, replace: bool) -> None:
    if fingerprint is None and not sys.stdin.isatty():
        raise UsageError(
            "--kit",
            found="no terminal to ask on, and no --fingerprint",
            expected="the numbers that the coordinator reads out",
            remedy='call the coordinator, then add --fingerprint "12345 ..." with the numbers you hear',
        )
    from brainunet_client.enrolment import install_kit

    def confirm(kit: Kit, numbers: str) -> bool:
        # what was read out must come from the coordinator, and not from this screen
        _introduce(place, kit, numbers if fingerprint is None else None)
        if fingerprint is None:
            return typer.confirm("Does the coordinator read out the same numbers?", default=False)
        if _digits(fingerprint) == _digits(numbers):
            return True
        raise ConfigError(
            "--fingerprint",
            found=f"{fingerprint or 'nothing'}, which is not that of {path.name}",
            expected="the thirty digits that the coordinator reads out",
            remedy="look for a typing error; else do not use this kit, somebody may have changed it: ask for it by another way",
        )

    kit = install_kit(place, path, confirm, replace=replace)
    typer.echo(f"installed: {place.kit}")
    typer.echo(f"Next: brainunet-client --data DIR --check, then brainunet-client --data DIR takes part as {kit.site}.")
    typer.echo("A client that is running already works with this kit when it is started again.")


def _introduce(place: Home, kit: Kit, numbers: str | None) -> None:
    from brainunet.certificates import days_left, read_certificate
    from brainunet.moments import day
    from brainunet_client.enrolment import requested_server

    certificate = read_certificate(kit.site_certificate)
    asked = requested_server(place)
    typer.echo(f"federation:  {kit.federation}")
    typer.echo(f"server:      {kit.server}" + (f" (you asked {asked})" if asked not in (None, kit.server) else ""))
    typer.echo(f"site:        {kit.site}")
    typer.echo(f"valid until: {day(certificate.not_valid_after_utc)} ({days_left(certificate)} days)")
    if numbers is not None:
        typer.echo(f"fingerprint: {numbers}")


def _digits(text: str) -> str:
    return "".join(character for character in text if character in "0123456789")


def _use(place: Home, data: Path, *, check: bool, dry_run: bool, as_json: bool) -> None:
    if check:
        from brainunet_client.preflight import exit_code, run_checks, show, to_json

        checks = run_checks(place, data)
        if as_json:
            typer.echo(json.dumps(to_json(checks)))
        else:
            show(checks)
        raise typer.Exit(exit_code(checks))

    from brainunet_client.home import open_home

    if not data.is_dir():
        raise DataError(
            str(data),
            found="no such folder",
            expected="the folder of cases",
            remedy="check the name, and that its disk is there",
        )
    if dry_run:
        from brainunet_client.dry_run import dry_run as would_leave

        facts = would_leave(open_home(place.path), data)
        if as_json:
            typer.echo(json.dumps(facts))
        else:
            typer.echo("\n".join(_in_words(facts)))
        return

    from brainunet_client.enrolment import load_identity

    load_identity(place)  # before a folder is made: a site that has not joined is told how to
    from brainunet.data.cases import find_cases
    from brainunet.labels import DEFAULT_MODALITIES

    find_cases(data, modalities=DEFAULT_MODALITIES)  # a disk that is not there is said now, and not by a fault hours later
    from brainunet_client.supervisor import supervise

    supervise(open_home(place.path), data)


def _in_words(facts: Mapping[str, Any]) -> Iterator[str]:
    """What a dry run found: every field of the reply with its bytes, the figures, and what is not in it."""
    task, arrays, figures = facts["task"], facts["arrays"], facts["figures"]
    what = f"The reply of {facts['site']} to a {task['kind'].replace('_', ' ')} ({task['source']})"
    yield f"{what} would be {facts['bytes']} bytes. Nothing was sent."
    yield f"{'field':<16} {'bytes':>10}  value"
    elsewhere = {"score": "the figures below", "layout": "names and shapes of the arrays"}
    for name, field in facts["header"].items():
        yield f"{name:<16} {field['bytes']:>10}  {elsewhere.get(name) or json.dumps(field['value'])}"
    if arrays["number"]:
        change = f"{arrays['number']} arrays, {arrays['values']} numbers: the trained weights minus those received"
        yield f"{'(arrays)':<16} {arrays['bytes']:>10}  {change} (norm {facts['update_norm']:.4g})"
    withheld = ": withheld, for there are too few" if figures["withheld"] else ""
    yield f"figures of {figures['cases']} validation cases{withheld}"
    for row in figures["rows"]:
        absent = "withheld" if row["n"] else "none"
        mean, median = (absent if row[key] is None else f"{row[key]:.4f}" for key in ("mean", "median"))
        told = f"mean {mean}, median {median} of {row['n']} cases, {row['missing']} missing"
        yield f"  {row['structure']} {row['metric']}: {told}"
    if figures["withheld_rows"]:
        yield f"  withheld, for there are too few cases behind them: {', '.join(figures['withheld_rows'])}"
    yield facts["stays"]
    yield facts["besides"]


def _show_ledger(place: Home, verify: bool, as_json: bool) -> None:
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


main = main_of(app)
