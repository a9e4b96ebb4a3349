"""What the checks look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from brainunet.errors import ConfigError
from brainunet.kit import Kit, read_kit
from brainunet_client.home import Home
from brainunet_client.preflight.contact import Clock, machine_clock
from brainunet_client.site_settings import SiteSettings, read_site_settings


@dataclass(frozen=True)
class Context:
    """``data`` is the folder of cases, None where none was named; ``clock`` gives the time of this machine, in UTC."""

    home: Home
    data: Path | None
    clock: Clock = machine_clock

    def kit(self) -> Kit | None:
        """The kit, or None where there is no good one: the check of the kit says why, and others go on without.

        Its dates are not looked at: the server is asked also by a machine whose clock is years off, and tells so.
        """
        try:
            return read_kit(self.home.kit)
        except ConfigError:
            return None

    def settings(self) -> SiteSettings:
        """The settings, or the defaults where they can't be read: the check of the settings says why."""
        try:
            return read_site_settings(self.home)
        except ConfigError:
            return SiteSettings()
