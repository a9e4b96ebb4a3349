"""``brainunet pull``: a model that a federation has published, checked to be theirs, also over a line that breaks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainunet import home_folder
from brainunet.complaints import visible
from brainunet.terminal import tell

if TYPE_CHECKING:
    from brainunet.registry.access import Access
    from brainunet.registry.keep import Kept
    from brainunet.registry.pulled import PulledModel
    from brainunet.registry.records import Release
    from brainunet.registry.troubles import Passing


def pull(
    name: Annotated[str | None, typer.Option(help="of the release; the newest, if not given")] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="file or folder for it; HOME/models/NAME.safetensors, if not given"),
    ] = None,
    kit: Annotated[
        Path | None,
        typer.Option(metavar="KIT|PASS", help="the site's kit or the reader's pass that the coordinator sent"),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="of the registry, if not as the kit or pass says")
    ] = None,
    home: Annotated[
        Path, typer.Option(envvar=home_folder.VARIABLE, help="the client's folder, with key and kit; models go there too")
    ] = Path(home_folder.DEFAULT),
    show_list: Annotated[bool, typer.Option("--list", help="only show what there is")] = False,
    patience: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="how long to try again without a new byte; a minute, where it never answered"
        ),
    ] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bar, and no word of breaks")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Fetch a model that the federation has published.

    It gets its name only after its signature was found to be the federation's. Where the line breaks, the next attempt (or the
    same command on another day) goes on at the byte after the last. A model that was pulled before is kept.
    """
    del debug
    from brainunet.registry.agreed import prepare_grpc

    prepare_grpc()
    from brainunet.registry.access import access_by
    from brainunet.registry.choosing import chosen, place_of
    from brainunet.registry.client import Registry
    from brainunet.registry.patience import PatientRegistry
    from brainunet.registry.pulled import PulledModel, mark_withdrawn, no_longer_listed, remember

    folder = home_folder.home_of(home)
    access = access_by(kit, folder, server)

    def say(trouble: Passing, wait_s: float) -> None:
        if not quiet:
            tell(_again(trouble, wait_s))

    with PatientRegistry(lambda: Registry(access), patience, on_wait=say) as registry:
        listing = registry.listing()
        gone = mark_withdrawn(folder, access.federation, {one.sha256: one.withdrawn for one in listing.releases})
        _warn(gone, no_longer_listed(folder, access.federation, {one.sha256 for one in listing.releases}))
        if show_list:
            _show(access, listing.releases, gone, as_json=as_json)
            return
        release = chosen(listing.releases, name)
        target = place_of(release, folder, out)
        kept, came = _fetched(access, registry, release, target, patience, hidden=quiet)
    remember(
        folder,
        PulledModel(
            name=release.name,
            file=str(kept.file),
            federation=access.federation,
            sha256=release.sha256,
            run=release.run,
            round=release.round,
            pulled_at=datetime.now(UTC).replace(microsecond=0),
        ),
        aside=kept.aside,
    )
    if as_json:
        typer.echo(json.dumps(_facts(access, release, kept, came, gone)))
    else:
        _tell(access, release, kept, came)


def _fetched(
    access: Access, registry: Any, release: Release, target: Path, patience_s: float, *, hidden: bool
) -> tuple[Kept, int | None]:
    """The model under its name, and how many bytes came now; None if it was there before."""
    from brainunet.registry.client import Registry
    from brainunet.registry.fetch import Part, fetch, held
    from brainunet.registry.keep import Kept, keep, there_already
    from brainunet.terminal import download_bar

    if (card := there_already(target, release, access.signing_key)) is not None:
        return Kept(target, card), None
    described = registry.describe(release.name)
    part = Part(target)

    def wait(trouble: Passing, wait_s: float) -> None:
        if not hidden:
            bar.console.print(_again(trouble, wait_s), markup=False, highlight=False)

    with held(part) as descriptor, download_bar(hidden=hidden) as bar:
        task = bar.add_task(release.name, total=release.size_bytes)
        came = fetch(
            lambda: Registry(access),
            described.release,
            part,
            descriptor,
            patience_s=patience_s,
            on_bytes=lambda count: bar.update(task, completed=count),
            on_wait=wait,
        )
        return keep(part, described, access.signing_key), came


def _again(trouble: Passing, wait_s: float) -> str:
    return f"{trouble.found}; trying again in {wait_s:.0f} s"


def _warn(gone: Sequence[PulledModel], missing: PulledModel | None) -> None:
    for model in gone:
        tell(f"withdrawn: {model.name}, which was pulled to {model.file}: {model.withdrawn}. Don't use it.")
    if missing is not None:
        tell(
            f"note: {missing.name}, which was pulled last, is not in the registry's list, though lists keep every release: "
            "newer ones may be missing too. Ask the coordinator whether this is a copy of before"
        )


def _tell(access: Access, release: Release, kept: Kept, came: int | None) -> None:
    if came is None:
        typer.echo(f"{release.name} is there already: {kept.file}")
    else:
        typer.echo(f"{release.name} of {access.federation}: {kept.file} ({came / 1e6:.1f} MB came)")
    typer.echo(f"signed by the federation's key {access.signing_key.id}; SHA-256 {release.sha256}")
    if kept.aside is not None:
        typer.echo(f"the file that had this name before is kept as {kept.aside}")
    typer.echo(visible(kept.card.intended_use))
    typer.echo(f"what it is and how it scored: brainunet model show {kept.file}")


def _facts(access: Access, release: Release, kept: Kept, came: int | None, gone: Sequence[PulledModel]) -> Mapping[str, Any]:
    return {
        "name": release.name,
        "file": str(kept.file),
        "federation": access.federation,
        "run": release.run,
        "round": release.round,
        "sha256": release.sha256,
        "bytes": release.size_bytes,
        "bytes_fetched": came or 0,
        "was_there": came is None,
        "signed_by": access.signing_key.id,
        "earlier_file": str(kept.aside) if kept.aside else None,
        "withdrawn": [model.model_dump(mode="json") for model in gone],
    }


def _show(access: Access, releases: Sequence[Release], gone: Sequence[PulledModel], *, as_json: bool) -> None:
    if as_json:
        facts = {
            "federation": access.federation,
            "server": access.server,
            "releases": [release.model_dump(mode="json") for release in releases],
            "withdrawn": [model.model_dump(mode="json") for model in gone],
        }
        typer.echo(json.dumps(facts))
        return
    if not releases:
        typer.echo(f"{access.federation} has published nothing yet")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    from brainunet.moments import day

    table = Table(
        "release",
        "run",
        Column("round", justify="right"),
        Column("MB", justify="right"),
        "published",
        Column("notes", overflow="fold"),
        title=escape(f"models of {access.federation}"),
        title_justify="left",
    )
    for release in releases:
        notes = release.notes if release.withdrawn is None else f"WITHDRAWN: {release.withdrawn}"
        facts_of = (release.name, release.run, str(release.round), f"{release.size_bytes / 1e6:.1f}", day(release.published_at))
        table.add_row(*facts_of, escape(notes))
    Console().print(table)
