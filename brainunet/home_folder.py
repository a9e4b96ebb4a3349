"""What lies where in the folder of a hospital or a reader, ``~/.brainunet``, as far as more than one program uses it.

All of the client's own: ``brainunet_client.home``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from brainunet.errors import UsageError

DEFAULT: Final = "~/.brainunet"
VARIABLE: Final = "BRAINUNET_HOME"

KEY: Final = "site.key"
KIT: Final = "kit.json"
MODELS: Final = "models"  # a folder: what `brainunet pull` has fetched
PULLED: Final = "pulled.json"  # in it: which models those are


def home_of(path: Path) -> Path:
    """The folder, with "~" put as the user's own.

    Raises:
        UsageError: a user of whom the system knows no folder, as in a container.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise UsageError(
            "--home",
            found=f"{path}, and no such user's folder is known here",
            expected="a folder",
            remedy=f"name it with --home DIR or {VARIABLE}",
        ) from None
