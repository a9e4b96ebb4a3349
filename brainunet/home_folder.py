"""What lies where in the folder of a hospital or a reader, ``~/.brainunet``, as far as more than one program uses it.

All of the client's own: ``brainunet_client.home``.
"""

from __future__ import annotations

from typing import Final

DEFAULT: Final = "~/.brainunet"
VARIABLE: Final = "BRAINUNET_HOME"

KEY: Final = "site.key"
KIT: Final = "kit.json"
MODELS: Final = "models"  # a folder: what `brainunet pull` has fetched
PULLED: Final = "pulled.json"  # in it: which models those are
