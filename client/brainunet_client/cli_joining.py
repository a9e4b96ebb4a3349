"""``brainunet-client --enrol`` and ``--kit``: the two steps by which a hospital joins."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from brainunet.errors import BrainUNetError, ConfigError, UsageError

if TYPE_CHECKING:
    from brainunet.kit import Kit
    from brainunet_client.home import Home


def ask_to_join(place: Home, name: str, server: str, new_key: bool) -> None:
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


def install(place: Home, path: Path, fingerprint: str | None, replace: bool) -> None:
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
