"""A hospital that has joined a federation: its home on disk, with key, kit and settings."""

from __future__ import annotations

from pathlib import Path

from brainunet_client.enrolment import install_kit, make_request
from brainunet_client.home import Home, open_home
from tests.support.coordinator import SERVER, coordinator


def joined_home(folder: Path, settings: str = "") -> Home:
    """The home of the site "lagos" in ``folder``; ``settings`` are lines of its site.toml.

    Training does not give way to other programs, so that it can be done in the process of a test.
    """
    home = open_home(folder)
    make_request(home, "lagos", SERVER)
    assert home.request is not None
    kit = folder / "lagos.kit"
    kit.write_bytes(coordinator().kit(home.request.read_bytes()))
    install_kit(home, kit, lambda kit, fingerprint: True)
    set_to(home, settings)
    return home


def set_to(home: Home, settings: str) -> None:
    home.settings.write_text(f"nice = 0\n{settings}")
