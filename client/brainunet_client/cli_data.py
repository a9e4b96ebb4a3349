"""``brainunet-client --data``: take part, or only look (``--check``) or show what would leave (``--dry-run``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from brainunet.errors import DataError

if TYPE_CHECKING:
    from brainunet_client.home import Home


def use(place: Home, data: Path, *, check: bool, dry_run: bool, as_json: bool) -> None:
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
            typer.echo("\n".join(in_words(facts)))
        return

    from brainunet_client.enrolment import load_identity

    load_identity(place)  # before a folder is made: a site that has not joined is told how to
    from brainunet.data.cases import find_cases
    from brainunet.labels import DEFAULT_MODALITIES

    find_cases(data, modalities=DEFAULT_MODALITIES)  # a disk that is not there is said now, and not by a fault hours later
    from brainunet_client.supervisor import supervise

    supervise(open_home(place.path), data)


def in_words(facts: Mapping[str, Any]) -> Iterator[str]:
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
