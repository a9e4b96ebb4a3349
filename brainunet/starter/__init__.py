"""The starter model that ships with the package: brainunet-nano, pretrained on made-up brains (see its card)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

STARTER: Final = Path(__file__).with_name("brainunet-nano-phantoms.safetensors")
