"""Which release is meant, and where its file goes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from brainunet import home_folder
from brainunet.errors import FederationError, UsageError
from brainunet.registry.records import Release


def chosen(releases: Sequence[Release], name: str | None) -> Release:
    """The release of this name, or the newest that was not withdrawn; ``releases`` have the newest first.

    Raises:
        FederationError: none of this name, one that was withdrawn, or nothing to choose from.
    """
    free = [release for release in releases if release.withdrawn is None]
    if name is None:
        if free:
            return free[0]
        found = "every release was withdrawn" if releases else "nothing was published yet"
        raise FederationError("registry", found=found, expected="a release", remedy="ask the coordinator when one will be")
    release = next((release for release in releases if release.name == name), None)
    instead = f"the newest is {free[0].name}; see all: brainunet pull --list" if free else "see all: brainunet pull --list"
    if release is None:
        close = get_close_matches(name, [other.name for other in releases], n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise FederationError("registry", found=f"no release {name[:80]!r}{meant}", expected="a listed one", remedy=instead)
    if release.withdrawn is not None:
        raise FederationError(release.name, found=f"the federation has withdrawn it: {release.withdrawn}", remedy=instead)
    return release


def place_of(release: Release, home: Path, out: Path | None) -> Path:
    """Where the release's file goes: ``out``, in it if it is a folder, or among the models of ``home``.

    Raises:
        UsageError: a folder that is not there, or something that is neither file nor folder.
    """
    file = f"{release.name}.safetensors"
    if out is None:
        return home.absolute() / home_folder.MODELS / file
    if out.is_dir():
        return out.absolute() / file
    if not out.absolute().parent.is_dir():  # none is made: a name that was mistyped would hide the model
        raise UsageError("-o", found=f"no folder {out.absolute().parent}", expected="a folder that is there")
    if out.exists() and not out.is_file():  # it would be replaced: root can lose /dev/null that way
        raise UsageError("-o", found=f"{out}, a pipe or a device", expected="a file or a folder")
    return out.absolute()
